"""The champion as an address: every verb that takes one, champions of earlier versions as opponents, the demo again and again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from promotable import SPREAD, Made

from zsbir import artifacts, evaluate, export, index, promote, search
from zsbir.base.artifact import Artifact
from zsbir.base.draft import remove
from zsbir.base.errors import InputError, RunError
from zsbir.recipes import recipe

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
SKETCH = str(REPOSITORY / "docs/pictures/sketch.png")
CHAMPION = "models:/zsbir@champion"
OLD = "zsbir-resnet18-128"


@pytest.fixture
def root(mlflow_database_file: Path, tmp_path: Path) -> str:
    """A root with an empty registry, in a folder called as the default one."""
    (tmp_path / "artifacts").mkdir()
    shutil.copy(mlflow_database_file, tmp_path / "artifacts/mlflow.db")
    return str(tmp_path / "artifacts")


def do(made: Made, root: str, *more: str) -> str:
    return promote._parse([made.report, "--index", made.index, *SPREAD, "--root", root, *more])


def client(root: str) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root}/mlflow.db", f"sqlite:///{root}/mlflow.db")


def test_every_verb_takes_the_champion_for_its_run_or_index(root, fair, good, capsys, monkeypatch):
    do(fair, root)
    of_fair = search._parse([fair.index, SKETCH, "-k", "3"])
    assert search._parse([CHAMPION, SKETCH, "-k", "3", "--root", root]) == of_fair
    assert f"{CHAMPION} is models:/zsbir/1: index {fair.index} (digest " in capsys.readouterr().err
    do(good, root)
    assert search._parse([CHAMPION, SKETCH, "-k", "3", "--root", root]) == search._parse([good.index, SKETCH, "-k", "3"])
    assert search._parse(["models:/zsbir/1", SKETCH, "-k", "3", "--root", root]) == of_fair

    made = index._parse([CHAMPION, "--name", "again", "--root", root])
    assert Artifact(made, "index").manifest.inputs["run"]["digest"] == Artifact(good.run).digest
    report = evaluate._parse(["models:/zsbir/1", "--no-tracking", "--grid-rows", "1", "--root", root])
    assert Artifact(report, "report").manifest.inputs["run"]["uri"] == fair.run
    exported = export._parse([CHAMPION, "--formats", "pt2", "--root", root])
    assert Artifact(exported, "export").manifest.inputs["run"]["uri"] == good.run
    monkeypatch.setenv("ZSBIR_ROOT", root)
    assert artifacts._parse(["show", CHAMPION, "--files", "encoder.safetensors"]) == f"{good.run}/encoder.safetensors"


def test_a_champion_whose_index_is_gone_says_what_to_do(root, fair, tmp_path):
    with pytest.raises(InputError, match="no model is registered as 'zsbir'"):
        search._parse([CHAMPION, SKETCH, "--root", root])
    copied = [artifacts._parse(["copy", uri, str(tmp_path / "other")]) for uri in (fair.run, fair.report, fair.index)]
    do(Made(*copied), root)
    remove(copied[2])
    with pytest.raises(
        InputError, match=r"the index of models:/zsbir/1 is gone \(nothing is at .*zsbir.index models:/zsbir/1 and promote"
    ):
        search._parse([CHAMPION, SKETCH, "--root", root])
    shutil.copy(Path(root, "mlflow.db"), tmp_path / "other/mlflow.db")
    again = index._parse(["models:/zsbir/1", "--precision", "fp32", "--root", str(tmp_path / "other")])
    assert again == copied[2]
    assert "rank" in search._parse([CHAMPION, SKETCH, "--root", root])


def test_one_name_for_all_backbones_and_one_of_ones_own(root, fair, good):
    assert do(fair, root, "--model", "bicycles") == "models:/bicycles/1"
    assert do(good, root) == "models:/zsbir/1", "another application, which has no champion yet"
    rows = [json.loads(line) for line in promote._parse(["list", "--json", "--root", root]).splitlines()]
    assert [row["version"] for row in rows] == ["models:/bicycles/1", "models:/zsbir/1"]
    version = client(root).get_model_version("zsbir", "1")
    tags = {name: version.tags[f"zsbir.{name}"] for name in ("backbone", "dimensions", "dataset", "metric", "metric_value")}
    value = Artifact(good.report).manifest.facts["trained"]
    assert tags == {
        "backbone": "resnet18",
        "dimensions": "128",
        "dataset": "toy",
        "metric": "map_all",
        "metric_value": f"{value:.4f}",
    }
    with pytest.raises(RunError, match="version 1 of zsbir has no champion before it"):
        promote._parse(["rollback", "--reason", "x", "--root", root])


def test_the_champions_under_older_names_are_the_first_opponents(root, fair, good, bad, make, capsys):
    do(fair, root, "--model", OLD)
    do(bad, root, "--model", "zsbir-resnet50-512", "--force", "--reason", "another one to beat")
    with pytest.raises(RunError, match=rf"refused: .* of the champion models:/{OLD}/1, gain \+0\.0000"):
        do(make("equal", 0.55), root)
    older = f"models:/{OLD}/1, models:/zsbir-resnet50-512/1"
    assert f"zsbir has no champion yet: the champions under older names are the opponents: {older}" in capsys.readouterr().err
    assert do(good, root) == "models:/zsbir/2"
    numbers = json.loads(client(root).get_model_version("zsbir", "2").tags["zsbir.gate_numbers"])
    assert numbers["opponent"] == f"the champion models:/{OLD}/1", "the one that is hardest to beat"
    with pytest.raises(RunError, match=r"of the champion \(version 2\)"):
        do(fair, root)


def test_a_champion_under_an_older_name_moves_to_the_new_one_without_beating_itself(root, good):
    do(good, root, "--model", OLD)
    assert do(good, root) == "models:/zsbir/1"
    numbers = json.loads(client(root).get_model_version("zsbir", "1").tags["zsbir.gate_numbers"])
    assert numbers["opponent"] == "its own frozen backbone"


def test_reports_of_several_older_champions_are_told_apart(root, fair, good, bad):
    do(fair, root, "--model", OLD)
    do(bad, root, "--model", "zsbir-resnet50-512", "--force", "--reason", "another one to beat")
    with pytest.raises(InputError, match="is a report of none of the champions that are the opponents"):
        do(good, root, "--champion-report", good.report)
    assert do(good, root, "--champion-report", bad.report, "--champion-report", fair.report) == "models:/zsbir/1"


def test_a_champion_whose_report_and_run_are_gone_needs_a_decision(root, fair, good, tmp_path):
    copied = [artifacts._parse(["copy", uri, str(tmp_path / "other")]) for uri in (fair.run, fair.report, fair.index)]
    do(Made(*copied), root)
    remove(copied[1])
    with pytest.raises(InputError, match=rf"is not at .*: make one with python -m zsbir.evaluate {copied[0]}, and pass"):
        do(good, root)
    remove(copied[0])
    with pytest.raises(InputError, match=r"its run is gone, too, .* --force --reason"):
        do(good, root)
    assert do(good, root, "--force", "--reason", "the old one is gone") == "models:/zsbir/2"


# --- the demo


@pytest.fixture
def trained(make: Callable[..., Made]) -> Callable[[str, float], Made]:
    """A function that makes a model of the demo's own configuration, whose spread over seeds is recorded."""
    config = recipe("toy").replace(lr=1e-3, lr_backbone=3e-4, train_on_dev=True).model_dump(mode="json")
    return lambda name, share: make(f"demo-{name}", share, 0, config)


def demo(made: Made, root: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the part of the demo that promotes and searches, as `make demo` does, to its exit code, and print CHAMPION last."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "ZSBIR_ROOT": root, "REPORT": made.report, "INDEX": made.index, **environment}
    script = 'set -eu; . infra/demo_champion.sh; echo "champion $CHAMPION"'
    words = ["sh", "-c", script]
    return subprocess.run(words, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False, timeout=300)


def check_demo(done: subprocess.CompletedProcess[str], champion: str, *told: str) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    table, last = done.stdout.rstrip().rsplit("\n", 1)
    assert last == f"champion {champion}", done.stderr
    assert len(table.splitlines()) == 11, "ten photos below a head"
    for text in told:
        assert re.search(text, done.stderr, re.MULTILINE), done.stderr


def test_the_demo_ends_well_after_itself(root, trained):
    first = trained("first", 0.75)
    check_demo(demo(first, root), "models:/zsbir-demo/1", "models:/zsbir-demo/1 is champion now", "is models:/zsbir-demo/1: index")
    check_demo(demo(first, root), "models:/zsbir-demo/1", "is champion already, with this index: nothing was changed")


def test_the_demo_ends_well_with_another_network_that_is_not_better(root, trained):
    first, other = trained("first", 0.75), trained("other", 0.55)
    demo(first, root)
    check_demo(
        demo(other, root),
        "models:/zsbir-demo@champion",
        r"^error: refused: map_all .* of the champion \(version 1\)",
        "demo: the gate did not promote this training",
        "models:/zsbir-demo@champion is models:/zsbir-demo/1",
    )


def test_the_demo_ends_well_where_not_even_the_first_network_is_better(root, trained):
    poor = trained("poor", 0.0)
    check_demo(demo(poor, root), "none that can be searched with", "error: refused", "demo: no champion can be searched with")


def test_the_demo_ends_well_before_and_after_one_in_object_storage_whose_server_is_gone(root, trained, s3_root):
    """The registry lies on this disk; what the one in object storage made dies with its server, but for what it copied here."""
    first, other = trained("first", 0.75), trained("second", 0.8)
    copies = [artifacts._parse(["copy", uri, s3_root]) for uri in (first.run, first.report, first.index)]
    server = {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db"}
    check_demo(demo(Made(*copies), s3_root, **server, REPORT=first.report, INDEX=first.index), "models:/zsbir-demo/1")
    for uri in copies:
        remove(uri)
    check_demo(demo(first, root), "models:/zsbir-demo/1", "is champion already")
    lost = Made(*[artifacts._parse(["copy", uri, s3_root]) for uri in (other.run, other.report, other.index)])
    promote._parse([lost.report, "--index", lost.index, "--model", "zsbir-demo", "--force", "--reason", "x", "--root", root])
    for uri in (lost.run, lost.report, lost.index):
        remove(uri)
    check_demo(
        demo(first, root),
        "models:/zsbir-demo/1",
        r"^error: the report of models:/zsbir-demo/2 is not at s3://.*: its run is gone, too",
        "demo: the champion of an earlier demo cannot be compared with",
    )


def test_the_demo_ends_well_beside_other_champions_and_leaves_them(root, trained, good, fair):
    do(good, root)
    do(fair, root, "--model", OLD)
    check_demo(demo(trained("first", 0.75), root), "models:/zsbir-demo/1")
    for model in ("zsbir", OLD):
        assert client(root).get_model_version_by_alias(model, "champion").version == 1


def test_the_code_of_the_page_on_mlflow_finds_the_demo_s_champion_even_if_the_newest_run_has_no_model(root, good, monkeypatch):
    do(good, root, "--model", "zsbir-demo")
    experiment = client(root).get_experiment_by_name("zsbir").experiment_id
    client(root).create_run(experiment, tags={"mlflow.runName": "a trial of a sweep"})
    text = (REPOSITORY / "docs" / "mlflow.md").read_text("utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "mlflow" in block]
    monkeypatch.chdir(Path(root).parent)
    (Path(root).parent / "docs/pictures").mkdir(parents=True)
    shutil.copy(SKETCH, Path(root).parent / "docs/pictures")
    space: dict[str, object] = {}
    exec(code, space)
    assert space["embeddings"].shape == (1, 128)
