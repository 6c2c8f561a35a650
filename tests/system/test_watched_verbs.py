"""What verbs tell whoever follows them: that a result was there already, and how good it is."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from zsbir import evaluate, index, ingest, teacher, train
from zsbir.base import watch
from zsbir.base.artifact import Artifact

pytestmark = pytest.mark.slow
VERBS = {
    "ingest": (ingest, ["toy", "--toy-photos-per-class", "6", "--toy-sketches-per-class", "6", "--toy-px", "48"]),
    "teacher": (teacher, ["DATASET", "--backbone", "resnet18", "--weights", "WEIGHTS", "--image-px", "32"]),
    "train": (
        train,
        ["toy", "--dataset", "DATASET", "--knowledge", "KNOWLEDGE", "--steps", "2", "--image-px", "32", "--classes-per-batch", "4",
         "--per-class", "2", "--no-tracking"],
    ),
}  # fmt: skip
"""The commands that made the shared pipeline."""


@pytest.fixture
def facts(tmp_path, monkeypatch):
    """A function that runs a verb as a job would, and returns its result and the facts that it recorded."""

    def run(verb, argv):
        folder = tmp_path / f"watch{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        monkeypatch.setenv(watch.WATCH, str(folder))
        monkeypatch.setattr(watch, "_started", False)
        watch.start()
        made = verb._parse(argv)
        watch.flush()
        written = folder / "driver.json"
        return made, json.loads(written.read_text())["facts"] if written.exists() else {}

    yield run
    watch.stop()


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_says_that_its_result_was_there_already(name, facts, pipeline_root, dataset, knowledge, run, weights):
    verb, argv = VERBS[name]
    there = {"DATASET": dataset, "KNOWLEDGE": knowledge, "WEIGHTS": weights}
    made, told = facts(verb, [*(there.get(word, word) for word in argv), "--root", str(pipeline_root)])
    assert made in (dataset, knowledge, run)
    assert told["found"] == made


def test_a_run_that_was_found_tells_the_score_of_the_encoder_that_is_kept(facts, pipeline_root, dataset, knowledge, run):
    argv = [{"DATASET": dataset, "KNOWLEDGE": knowledge}.get(word, word) for word in VERBS["train"][1]]
    _, told = facts(train, [*argv, "--root", str(pipeline_root)])
    manifest = Artifact(run, "run").manifest
    assert told["score"] == {
        "value": manifest.facts["best_dev_map_all"], "metric": "map_all", "on": "dev", "step": manifest.counts["best_step"],
    }  # fmt: skip


def test_a_training_tells_the_score_of_the_encoder_that_it_keeps_and_not_the_last_one(facts, tmp_path, dataset, knowledge):
    argv = [{"DATASET": dataset, "KNOWLEDGE": knowledge}.get(word, word) for word in VERBS["train"][1] if word != "2"]
    argv = [word for word in argv if word not in ("--steps", "--per-class")]
    steps = [
        "--steps",
        "6",
        "--per-class",
        "2",
        "--eval-every-steps",
        "1",
        "--lr-backbone",
        "0.01",
        "--root",
        str(tmp_path / "root"),
    ]
    made, told = facts(train, [*argv, *steps])
    run = Artifact(made, "run")
    scores = [row for row in pq.read_table(run.file("history.parquet")).to_pylist() if row["dev/map_all"] is not None]
    best = max(scores, key=lambda row: row["dev/map_all"])
    assert len(scores) == 6
    assert told["score"] == {"value": best["dev/map_all"], "metric": "map_all", "on": "dev", "step": best["step"]}
    assert "found" not in told


def test_an_evaluation_and_an_index_say_whether_they_were_made_and_the_score_on_unseen_classes(facts, tmp_path, run):
    root = ["--root", str(tmp_path / "root")]
    made, told = facts(evaluate, [run, "--no-tracking", *root])
    score = {"value": Artifact(made, "report").manifest.facts["trained"], "metric": "map_all", "on": "unseen", "step": None}
    assert told == {"score": score}
    assert facts(evaluate, [run, "--no-tracking", *root]) == (made, {"found": made, "score": score})
    first, told = facts(index, [run, *root])
    assert "found" not in told
    assert facts(index, [run, *root]) == (first, {"found": first})
    assert Path(first).exists()
