"""MLflow runs of ended attempts are ended, too: a real store, and a real MLflow in a file."""

from __future__ import annotations

import threading
import time

import pytest
from mlflow.tracking import MlflowClient

from services.jobs.queue.limits import Limits
from services.jobs.queue.records import JobRequest
from services.jobs.queue.states import RETRY_LIMITS
from services.jobs.queue.store import open_store
from services.jobs.runs import mlflow_cleanup as cleanup
from services.jobs.runs.mlflow_cleanup import STATUS, MlflowCleanup

CAUSES = ("succeeded", "cancelled", "timed_out", *RETRY_LIMITS)


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/jobs.db")
    yield opened
    opened.engine.dispose()


@pytest.fixture
def lease(store):
    return store.take_lease("one", None)


@pytest.fixture
def ended(store, lease):
    """A function that makes an attempt ended by a cause."""

    def make(cause):
        store.submit(JobRequest(kind="train"))
        attempt = store.claim(lease, Limits(running=1000))
        store.end(lease, attempt, cause)
        return attempt

    return make


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def run_of(tracking, attempt, name="x"):
    client = MlflowClient(tracking)
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found else client.create_experiment(name)
    run = client.create_run(experiment, tags={"zsbir.job": attempt.submission_id})
    return lambda: client.get_run(run.info.run_id).info.status


def test_without_mlflow_everything_is_tidy_at_once(store, lease, ended):
    ended("lost")
    ended("succeeded")
    tidy = MlflowCleanup(store, "", lambda: lease)
    assert [tidy.round(), tidy.round()] == [2, 0]
    assert store.uncleaned() == []


def test_who_has_no_lease_tidies_nothing(store, ended):
    ended("lost")
    assert MlflowCleanup(store, "", lambda: None).round() == 0
    assert len(store.uncleaned()) == 1


def test_a_live_attempt_is_left_alone(store, lease):
    store.submit(JobRequest(kind="train"))
    store.claim(lease, Limits())
    assert MlflowCleanup(store, "", lambda: lease).round() == 0


def test_each_end_is_called_in_mlflow_what_it_was(store, lease, ended, tracking):
    attempts = {cause: ended(cause) for cause in CAUSES}
    runs = {cause: [run_of(tracking, attempt), run_of(tracking, attempt)] for cause, attempt in attempts.items()}
    store.submit(JobRequest(kind="train"))
    live = run_of(tracking, store.claim(lease, Limits(running=1000)), "another experiment")
    MlflowCleanup(store, tracking, lambda: lease).round()
    for cause, (first, second) in runs.items():
        assert first() == second() == STATUS.get(cause, "KILLED"), cause
    assert live() == "RUNNING"
    assert store.uncleaned() == []


def test_while_mlflow_is_away_nothing_is_forgotten_and_nothing_ends(store, lease, ended, monkeypatch):
    ended("lost")
    monkeypatch.setattr(cleanup, "POLL_S", 0.01)
    monkeypatch.setattr(cleanup, "RETRY_S", 0.01)
    stop = threading.Event()
    tidy = MlflowCleanup(store, "nonsense://nowhere", lambda: lease)
    thread = threading.Thread(target=tidy.run, args=(stop,))
    thread.start()
    time.sleep(1)
    assert thread.is_alive()
    assert len(store.uncleaned()) == 1
    tidy._uri = ""
    until = time.monotonic() + 60
    while store.uncleaned():
        assert time.monotonic() < until
        time.sleep(0.02)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_another_ones_lease_is_no_end_of_it(store, lease, ended, monkeypatch):
    ended("lost")
    store.take_lease("two", store.seen_lease())
    monkeypatch.setattr(cleanup, "POLL_S", 0.01)
    stop = threading.Event()
    thread = threading.Thread(target=MlflowCleanup(store, "", lambda: lease).run, args=(stop,))
    thread.start()
    time.sleep(0.3)
    assert thread.is_alive()
    assert len(store.uncleaned()) == 1
    stop.set()
    thread.join(10)
