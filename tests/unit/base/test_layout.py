"""The layout of a storage root, held to the tree that docs/architecture.md shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zsbir.base import layout

DOCS = Path(__file__).resolve().parents[3] / "docs" / "architecture.md"
ROOT = "/r"


def test_the_documented_tree_is_what_the_functions_build():
    built = {
        layout.dataset_uri(ROOT, "<name>", "<plan>"),
        layout.knowledge_uri(ROOT, "<dataset>", "<digest>"),
        layout.run_uri(ROOT, "<recipe>", "<digest>"),
        layout.report_uri(ROOT, "<digest>"),
        layout.index_uri(ROOT, "<name>", "<digest>"),
        layout.sweep_uri(ROOT, "<recipe>", "<digest>"),
        layout.export_uri(ROOT, "<digest>"),
        layout.pretrained_uri(ROOT, "<digest>"),
        layout.promotion_uri(ROOT, "<model>"),
        layout.job_attempt_uri(ROOT, "<submission id>"),
        layout.job_steps_uri(ROOT, "<job>"),
        str(layout.service_dir(ROOT)),
    }
    files = {
        f"{layout.weights_folder(ROOT)}/<sha256>.safetensors",
        str(layout.mlflow_database(ROOT)),
        f"{layout.mlflow_artifacts(layout.mlflow_database(ROOT))}/",
    }
    tree = DOCS.read_text("utf-8").split("<root>/\n", 1)[1].split("```", 1)[0]
    shown = {path for line in tree.splitlines() for path in re.findall(r"(?:^  |(?<=\.db  ))((?:[\w.-]|<[^>]+>|/)+)", line)}
    assert shown == {f"{path}/".removeprefix(f"{ROOT}/") for path in built} | {path.removeprefix(f"{ROOT}/") for path in files}


def test_a_run_keeps_its_checkpoints_where_the_documentation_says():
    text = DOCS.read_text("utf-8")
    assert f"{layout.checkpoints_uri('').strip('/')}/step-000150/" in text
    assert layout.is_checkpoint("runs/toy-0/checkpoints/step-000150")
    assert not layout.is_checkpoint("runs/toy-0/checkpoints")
    assert not layout.is_checkpoint("sweeps/toy-0/checkpoints/step-000150")


ADDRESSES = [
    "datasets/toy/0123",
    "knowledge/0123/4567",
    "runs/toy-0123",
    "runs/toy-0123/checkpoints/step-000001",
    "reports/0123",
    "indexes/toy/0123",
    "sweeps/toy-0123",
    "exports/0123",
    "pretrained/0123",
    "weights/0123.safetensors",
]


@pytest.mark.parametrize("root", ["/r", "s3://bucket", "s3://bucket/runs/team", "/home/datasets/of/team", "/a/weights/of/runs"])
@pytest.mark.parametrize("path", ADDRESSES)
def test_an_address_is_a_root_and_a_path_below_it(root: str, path: str):
    assert layout.below_root(f"{root}/{path}") == path
    assert layout.root_of(f"{root}/{path}/") == root
    assert layout.lies_in_root(f"{root}/{path}")


def test_an_address_outside_of_any_root_is_recognised():
    assert layout.below_root("/somewhere/else") == "else"
    assert not layout.lies_in_root("/somewhere/else")
    assert layout.below_root("/r/runs/a/b/c") == "runs/a/b/c", "no artifact lies there, but it is below the folder of runs"


def test_what_object_storage_cannot_hold_lies_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert layout.local_dir("s3://bucket/prefix") == tmp_path / "artifacts"
    assert layout.local_dir("elsewhere") == tmp_path / "elsewhere"
    assert layout.service_dir("s3://bucket/prefix") == tmp_path / "artifacts" / "service"
    assert layout.mlflow_database("elsewhere") == tmp_path / "elsewhere" / "mlflow.db"
