"""The card says what report and run say, in a form that Hugging Face's hub reads."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.evaluation.intervals import interval_over_classes
from zsbir.evaluation.metrics import METRICS
from zsbir.promotion.card import Subject, card
from zsbir.training.config import TrainConfig

TRAINED = {metric: 0.1 + number / 30 for number, metric in enumerate(METRICS)}
FROZEN = {metric: value / 3 for metric, value in TRAINED.items()}
SUMMARY = {
    "protocol": "zero_shot v1",
    "dataset": "toy",
    "dataset_digest": "d" * 64,
    "queries": 280,
    "gallery": 281,
    "classes": 7,
    "chance_map_all": 0.1594,
    "models": {"frozen": FROZEN, "trained": {**TRAINED, "map_all_low95": 0.05, "map_all_high95": 0.15}},
}


def subject(folder, *, summary=SUMMARY, **training):
    config = TrainConfig(recipe="toy", backbone="resnet18", embedding_dim=128, **training)
    with draft(folder / "runs/toy-1", "run", "toy") as work:
        work.file("encoder.safetensors").write_bytes(b"weights")
        run = work.commit(digest="a" * 64, config=config, counts={"steps": 200, "best_step": 150})
    with draft(folder / "reports/1", "report", "toy") as work:
        work.file("report.json").write_text(json.dumps(summary))
        table = {"class_id": [1, 1, 2, 3], "trained/map_all": [0.2, 0.4, 0.5, 0.7], "frozen/map_all": [0.1, 0.1, 0.1, 0.1]}
        pq.write_table(pa.table(table), work.file("per_query.parquet"))
        report = work.commit(digest="b" * 64, inputs={"run": run.reference()})
    facts = {"backbone": "resnet18", "embedding_dim": 128, "image_px": 64}
    return Subject("zsbir", report, run, facts, {name: getattr(config, name) for name in training})


def front(text):
    assert text.startswith("---\n")
    return yaml.safe_load(text[4:].partition("\n---\n")[0])


def test_the_front_matter_is_yaml_with_the_report_s_own_numbers(tmp_path):
    found = front(card(subject(tmp_path)))
    assert found["pipeline_tag"] == "image-feature-extraction"
    assert found["library_name"] == "zsbir"
    assert found["metrics"] == list(METRICS)
    assert "sketch-based-image-retrieval" in found["tags"]
    ((model, results),) = [(entry["name"], entry["results"]) for entry in found["model-index"]]
    assert model == "zsbir"
    (result,) = results
    assert result["task"]["type"] == "image-feature-extraction"
    assert result["dataset"] == {"type": "toy", "name": "toy", "revision": "d" * 64}
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == TRAINED
    assert all(metric["name"] == f"{metric['type']} (zero_shot v1)" for metric in result["metrics"])


def test_hugging_face_understands_it_where_it_is_installed(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(card(subject(tmp_path))).data
    assert {result.metric_type: result.metric_value for result in data.eval_results} == TRAINED


def test_the_table_stands_beside_frozen_and_chance(tmp_path):
    text = card(subject(tmp_path))
    for metric in METRICS:
        assert f"| `{metric}` | {TRAINED[metric]:.4f} | {FROZEN[metric]:.4f} |" in text
    assert "| `map_all` of a random order | 0.1594 | |" in text


def test_the_interval_is_over_classes_even_where_an_old_report_has_one_over_queries(tmp_path):
    """report.json of earlier versions has an interval over queries, .05 to .15 here; the queries' own values make a true one."""
    interval = interval_over_classes(np.array([0.2, 0.4, 0.5, 0.7]), np.array([1, 1, 2, 3]))
    text = card(subject(tmp_path))
    assert (
        f"`map_all` of this model: 95 % interval over 7 classes {max(interval.low, 0):.3f} to {min(interval.high, 1):.3f}." in text
    )
    assert "0.0500" not in text


def test_data_protocol_and_provenance_have_their_digests(tmp_path):
    about = subject(tmp_path)
    text = card(about)
    assert f"data set `toy`, digest `{'d' * 64}`" in text
    assert "protocol `zero_shot v1`: 280 sketches of 7 classes against 281 photos" in text
    assert f"run `toy-1`, digest `{'a' * 64}`, made {about.run.manifest.created_utc}" in text
    assert f"digest `{'b' * 64}`" in text
    assert f"commit `{about.run.manifest.code['commit']}`" in text


def test_changed_fields_and_training_on_dev_are_told(tmp_path):
    text = card(subject(tmp_path, margin_cross=0.35, train_on_dev=True))
    assert "Recipe `toy`, 200 steps, checkpoint of step 150. Fields that differ from the recipe:" in text
    assert "| `margin_cross` | `0.35` |" in text
    assert "Trained on the dev classes too" in text
    plain = card(subject(tmp_path / "plain"))
    assert "every field as in the recipe." in plain
    assert "dev classes" not in plain


def test_nothing_in_a_name_breaks_out_of_its_place(tmp_path):
    wild = "toy\n---\n# x | `rm` | ![](http://x)"
    text = card(subject(tmp_path, summary={**SUMMARY, "dataset": wild}))
    assert front(text)["model-index"][0]["results"][0]["dataset"]["name"] == "toy --- # x | `rm` | ![](http://x)"
    assert "data set `toy --- # x / 'rm' / ![](http://x)`" in text


def test_the_python_in_it_compiles(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", card(subject(tmp_path)), re.DOTALL)
    compile(code, "card", "exec")
    assert 'load_model("models:/zsbir@champion")' in code


def test_a_damaged_report_makes_no_card(tmp_path):
    about = subject(tmp_path)
    about.report.file("report.json").write_text("{}")
    with pytest.raises(InputError, match="differs from its manifest"):
        card(about)
