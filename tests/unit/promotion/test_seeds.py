"""Which reports are of one recipe's seeds, where a spread of seeds comes from, and the commands that find one."""

import json
import shlex
import subprocess

import pytest

from zsbir import promote, train
from zsbir.base.artifact import Artifact
from zsbir.base.config import Config
from zsbir.base.draft import draft
from zsbir.base.errors import InputError, RunError
from zsbir.promotion.opponent import champion_reports, earlier_spread
from zsbir.promotion.seeds import SeedSpread, more_seeds
from zsbir.promotion_run import promoting
from zsbir.recipes import SEED_SPREADS, measured_spread, recipe

WEIGHTS = f"weights/{'0' * 64}.safetensors"


class Asked(Config):
    protocol: str = "zero_shot"


def report(root, name, *, seed=0, data="d" * 64, **changes):
    """A Report without results, of a Run with everything it was made from."""
    made = {}
    for kind, folder in (("dataset", "datasets/toy/1"), ("knowledge", "knowledge/1/1")):
        if not (root / folder / "manifest.json").exists():
            with draft(root / folder, kind, "toy") as work:
                work.commit(digest=kind[0] * 64)
        made[kind] = Artifact(root / folder, kind).reference()
    (root / "weights").mkdir(exist_ok=True)
    (root / WEIGHTS).write_bytes(b"")
    weights = {"uri": str(root / WEIGHTS), "digest": "0" * 64}
    with draft(root / "runs" / name, "run", "toy") as work:
        run = work.commit(digest=name * 8, config=recipe("toy").replace(seed=seed, **changes), inputs={**made, "weights": weights})
    with draft(root / "reports" / name, "report", "toy") as work:
        dataset = {**made["dataset"], "digest": data}
        return work.commit(digest=name * 8, config=Asked(), inputs={"run": run.reference(), "dataset": dataset})


def test_the_commands_to_decide_train_the_same_with_other_seeds(tmp_path, monkeypatch):
    root = tmp_path / "a place with blanks"
    of_seed_1 = report(root, "b", seed=1, lr=0.004, lr_preserver=0.001, train_on_dev=True)
    changed = promoting.changed_fields(of_seed_1.input("run", "run"))
    *trainings, promotion = more_seeds([of_seed_1], "artifacts/indexes/toy/1", changed, root=str(root))
    asked = []
    monkeypatch.setattr(train, "train", lambda config, uris, settings: asked.append((config, uris, settings)) or of_seed_1)
    for line in trainings:
        name, _, rest = line.partition("=")
        inner = rest.removeprefix('$(python -m zsbir.evaluate "$(python -m zsbir.train ').split(')" --protocol zero_shot')[0]
        train._parse(shlex.split(inner))
        assert f'"${name}"' in promotion
    configs, uris, settings = zip(*asked, strict=True)
    assert [config.seed for config in configs] == [0, 2]
    assert {config.replace(seed=1) for config in configs} == {
        recipe("toy").replace(seed=1, lr=0.004, lr_preserver=0.001, train_on_dev=True)
    }
    assert uris[0].dataset == str(root / "datasets/toy/1")
    assert uris[0].knowledge == str(root / "knowledge/1/1")
    assert uris[0].weights == str(root / WEIGHTS)
    assert settings[0].root == str(root)
    assert shlex.split(promotion)[:4] == ["python", "-m", "zsbir.promote", of_seed_1.uri]
    assert shlex.split(promotion)[-4:] == ["--index", "artifacts/indexes/toy/1", "--root", str(root)]


def test_the_commands_to_decide_are_sound_shell(tmp_path):
    """A shell that runs them with `python` replaced passes each result on to the next command."""
    lines = more_seeds([report(tmp_path / "it's here", "a")], "an index", {}, root="")
    script = 'python() { echo "$2($#)"; }\n' + "\n".join(lines)
    done = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "zsbir.promote(7)\n"
    assert done.stderr == ""


def test_a_spread_of_seeds_is_taken_from_the_champion_s_own_comparison(tmp_path):
    of_data = report(tmp_path, "a")
    numbers = {
        "metric": "map_all",
        "dataset_digest": "d" * 64,
        "spread": {"sd": 0.02, "seeds": 5, "source": "estimated from these seeds"},
    }

    def found(metric="map_all", **changes):
        return earlier_spread({"gate_numbers": json.dumps({**numbers, **changes})}, metric, of_data, source="as before")

    assert found() == SeedSpread(0.02, 5, "as before")
    assert found(metric="p_at_100") is None
    assert found(dataset_digest="e" * 64) is None
    assert found(spread={**numbers["spread"], "source": "given as --seed-spread"}) is None, "a guess is not handed on"
    assert found(spread=None) is None
    assert earlier_spread({"gate_numbers": '{"low": 0.1}'}, "map_all", of_data, source="") is None, "a version before 29 November"
    assert earlier_spread({}, "map_all", of_data, source="") is None


def test_reports_in_a_store_that_cannot_be_asked_are_no_reports_that_are_gone(tmp_path, monkeypatch):
    mine = report(tmp_path / "mine", "a")
    tags = {"report": "s3://lost/zsbir/reports/b", "run_digest": "a" * 8}
    monkeypatch.setenv("ZSBIR_S3_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"a report of models:/m/1 cannot be read \(.*credentials.*or replace this champion with"):
        champion_reports("models:/m/1", tags, [], root=str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(RunError, match=r"a report of models:/m/1 cannot be read .*or replace this champion with --force"):
        champion_reports("models:/m/1", tags, [], root=str(tmp_path))
    named = champion_reports("models:/m/1", tags, [mine.uri], root=str(tmp_path))
    assert [found.uri for found in named] == [mine.uri], "whoever names another one does not wait for the store"


@pytest.mark.parametrize("text", ["[]", "{", "NaN", '{"metric": "map_all", "dataset_digest": "%s", "spread": 3}', "[" * 10_000])
def test_a_tag_that_holds_something_else_gives_no_spread(tmp_path, text):
    tags = {"gate_numbers": text.replace("%s", "d" * 64), "seeds": "1"}
    assert earlier_spread(tags, "map_all", report(tmp_path, "a"), source="") is None


@pytest.mark.parametrize("seeds", ["-3", "1e9", "9" * 30, "two", "\u0663"])
def test_a_number_of_seeds_that_cannot_be_true_counts_as_one(tmp_path, seeds):
    only = report(tmp_path, "a")
    tags = {"report": only.uri, "seeds": seeds}
    assert [found.uri for found in champion_reports("models:/m/1", tags, [], root=str(tmp_path))] == [only.uri]


def test_a_recipe_s_measured_spread_holds_for_the_recipe_alone():
    name, data, metric = next(iter(SEED_SPREADS))
    config = recipe(name).replace(seed=7).model_dump(mode="json")
    found = measured_spread(config, data, metric)
    assert found.sd > 0
    assert found.seeds > 2
    assert measured_spread({**config, "lr": 0.5}, data, metric) is None
    assert measured_spread({**config, "train_on_dev": True}, data, metric).changes == {"train_on_dev": True}
    assert measured_spread({**config, "train_on_dev": True, "lr": 0.5}, data, metric) is None
    assert measured_spread(config, "other", metric) is None
    assert measured_spread(config, data, "p_at_100") is None
    assert measured_spread({**config, "recipe": "custom"}, data, metric) is None


def test_the_champion_s_reports_are_found_by_its_tags(tmp_path, capsys):
    first, second = report(tmp_path, "a"), report(tmp_path, "b", seed=1)
    tags = {"report": first.uri, "seeds": "2", "report_2": second.uri, "run_digest": "a" * 8}
    assert [found.uri for found in champion_reports("models:/m/1", tags, [], root=str(tmp_path))] == [first.uri, second.uri]
    moved = {**tags, "report": "/gone/reports/a", "report_2": "/gone/reports/b", "report_3": "/stale/reports/c"}
    assert [found.uri for found in champion_reports("models:/m/1", moved, [], root=str(tmp_path))] == [first.uri, second.uri]
    assert [found.uri for found in champion_reports("m", {"report": first.uri}, [], root="")] == [first.uri], "before 29 November"
    lacking = {**tags, "report_2": "/gone/reports/c"}
    assert [found.uri for found in champion_reports("m", lacking, [], root=str(tmp_path))] == [first.uri]
    assert "1 of the 2 reports of the champion's seeds are gone" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"is not at /gone/reports/c: make one with .* RUN, .*--champion-report"):
        champion_reports("m", tags, ["/gone/reports/c"], root=str(tmp_path))
    of_run = {"run_uri": first.manifest.inputs["run"]["uri"], "encoder_sha256": "0" * 64}
    with pytest.raises(InputError, match=r"its run is gone, too, so nothing .*artifacts copy, or replace"):
        champion_reports("m", tags | of_run, ["/gone/reports/c"], root=str(tmp_path))
    with pytest.raises(InputError, match=r"is a report of .*runs/b, not of the champion m"):
        champion_reports("m", tags, [second.uri], root=str(tmp_path))


def test_the_commands_to_decide_ask_for_what_was_asked(tmp_path):
    config = promote.PromoteConfig(metric="map_all/macro", margin=0.02)
    request = promote.PromotionRequest("r", "i", champion_reports=("reports/c",), dry_run=True)
    options = promoting.flags_of(request, config, promote.Settings(experiment="mine"))
    *_, last = more_seeds([report(tmp_path, "a")], "an index", {}, root="", options=options)
    words = shlex.split(last)
    asked = [*words[words.index("an index") + 1 :]]
    assert asked == [
        *("--metric", "map_all/macro", "--margin", "0.02", "--experiment", "mine"),
        *("--champion-report", "reports/c", "--dry-run"),
    ]
