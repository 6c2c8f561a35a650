"""What a job is told by the variables that Ray shows to everybody who may see its jobs."""

from __future__ import annotations

import os

import pytest

from services.jobs.__main__ import _tracking_uri
from services.jobs.queue.limits import Limits
from services.jobs.queue.records import JobRequest
from services.jobs.queue.store import open_store
from services.jobs.runs.dispatcher import Dispatcher
from services.jobs.runs.settings import DispatcherSettings


@pytest.fixture
def environment_of(tmp_path, monkeypatch):
    """A function that returns the variables of a job under a dispatcher with this MLflow."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    store = open_store(f"sqlite:///{tmp_path}/jobs.db")
    lease = store.take_lease("test", None)
    job = store.submit(JobRequest(kind="ingest", config={"layout": "toy"}))
    attempt = store.claim(lease, Limits())

    def environment(given):
        settings = DispatcherSettings(root=str(tmp_path), tracking_uri=_tracking_uri(given))
        return Dispatcher(store, None, settings)._task(job, attempt).env

    yield environment
    store.engine.dispose()


@pytest.mark.parametrize(
    "address", ["postgresql://ann:hush@db/mlflow", "postgresql:///mlflow?password=hush", "https://h/x?token=hush"]
)
def test_an_address_with_a_password_is_not_among_them_and_the_operator_is_told(environment_of, capfd, address):
    environment = environment_of(address)
    assert "MLFLOW_TRACKING_URI" not in environment
    assert "hush" not in str(environment)
    said = capfd.readouterr().err
    assert "set MLFLOW_TRACKING_URI on the nodes" in said
    assert "hush" not in said


def test_a_web_address_is_without_its_name_and_password(environment_of, capfd):
    environment = environment_of("https://ann:hu%2Fsh@mlflow.example.org/x")
    assert environment["MLFLOW_TRACKING_URI"] == "https://mlflow.example.org/x"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("ann", "hu/sh")
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD on the nodes" in capfd.readouterr().err


def test_the_address_of_the_environment_is_taken_where_none_is_given(environment_of, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org:5000")
    assert environment_of("")["MLFLOW_TRACKING_URI"] == "http://mlflow.example.org:5000"
    assert environment_of("http://other:5000")["MLFLOW_TRACKING_URI"] == "http://other:5000"
