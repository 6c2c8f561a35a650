"""Jobs that name a registered model over HTTP: accepted as they are given, or refused with what is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from zsbir.base.draft import draft

CHAMPION = "models:/zsbir@champion"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """One kind of database is enough here."""
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
def registry(served, mlflow_database_file: Path) -> MlflowClient:
    """The registry of the service's root, with a champion whose run lies in the root."""
    root = Path(served.root)
    with draft(str(root / "runs/toy-1"), "run", "toy") as work:
        work.file("encoder.safetensors").write_bytes(b"weights")
        run = work.commit(digest="a" * 64)
    shutil.copy(mlflow_database_file, root / "mlflow.db")
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}", f"sqlite:///{root / 'mlflow.db'}")
    tags = {
        "run_uri": run.uri,
        "run_digest": run.digest,
        "encoder_sha256": run.manifest.files["encoder.safetensors"].sha256,
    }
    client.create_registered_model("zsbir")
    client.create_model_version("zsbir", "file:///nowhere", tags={f"zsbir.{name}": text for name, text in tags.items()})
    client.set_registered_model_alias("zsbir", "champion", "1")
    return client


def submitted(served, run: str):
    return served.client("submitter").post("/api/jobs", json={"kind": "evaluate", "config": {"run": run}})


def test_a_job_keeps_the_address_that_it_was_given(served, registry):
    answer = submitted(served, CHAMPION)
    assert answer.status_code == 201, answer.text
    assert served.store.job(answer.json()["id"]).config == {"run": CHAMPION}


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ("models:/zsbir", "write models:/NAME@champion or models:/NAME/3"),
        ("models:/zsbir/7", "has no version 7: it has @champion, /1"),
        ("models:/other@champion", "no model is registered as 'other'; there are zsbir"),
    ],
)
def test_a_model_that_is_not_there_is_refused_with_what_is(served, registry, run, told):
    answer = submitted(served, run)
    assert answer.status_code == 422
    assert told in answer.json()["error"]
    assert served.store.counts() == {}


def test_a_tag_that_leads_outside_of_what_jobs_may_read_is_refused(served, registry, tmp_path):
    shutil.move(Path(served.root, "runs/toy-1"), tmp_path / "runs")
    registry.set_model_version_tag("zsbir", "1", "zsbir.run_uri", str(tmp_path / "runs/toy-1"))
    answer = submitted(served, CHAMPION)
    assert answer.status_code == 422
    assert "outside of what this service reads" in answer.json()["error"]


def test_a_registry_that_is_away_is_no_fault_of_the_job(served, registry, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    answer = submitted(served, CHAMPION)
    assert answer.status_code == 503
    assert "does not answer" in answer.json()["error"]
