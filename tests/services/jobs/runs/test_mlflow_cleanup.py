"""MLflow runs of ended attempts are ended, too: a real store, and a real MLflow in a file."""

from __future__ import annotations

import threading

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


class Counted(MlflowCleanup):
    """One whose rounds can be waited for."""

    def __init__(self, *words):
        super().__init__(*words)
        self.rounds = threading.Semaphore(0)

    def round(self):
        try:
            return super().round()
        finally:
            self.rounds.release()

    def wait(self, number):
        assert all(self.rounds.acquire(timeout=60) for _ in range(number))


def test_without_mlflow_everything_is_cleaned_at_once(store, lease, ended):
    ended("lost")
    ended("succeeded")
    cleaner = MlflowCleanup(store, "", lambda: lease)
    assert [cleaner.round(), cleaner.round()] == [2, 0]
    assert store.uncleaned() == []


def test_a_process_without_the_lease_cleans_nothing(store, ended):
    ended("lost")
    assert MlflowCleanup(store, "", lambda: None).round() == 0
    assert len(store.uncleaned()) == 1


def test_a_live_attempt_is_left_alone(store, lease):
    store.submit(JobRequest(kind="train"))
    store.claim(lease, Limits())
    assert MlflowCleanup(store, "", lambda: lease).round() == 0


def test_each_cause_has_its_status_in_mlflow(store, lease, ended, tracking):
    attempts = {cause: ended(cause) for cause in CAUSES}
    runs = {cause: [run_of(tracking, attempt)] for cause, attempt in attempts.items()}
    runs["lost"].append(run_of(tracking, attempts["lost"]))  # a sweep has several
    store.submit(JobRequest(kind="train"))
    live = run_of(tracking, store.claim(lease, Limits(running=1000)), "another experiment")
    MlflowCleanup(store, tracking, lambda: lease).round()
    for cause, found in runs.items():
        assert {status() for status in found} == {STATUS.get(cause, "KILLED")}, cause
    assert live() == "RUNNING"
    assert store.uncleaned() == []


def test_while_mlflow_is_away_nothing_is_forgotten_and_nothing_ends(store, lease, ended, monkeypatch):
    ended("lost")
    monkeypatch.setattr(cleanup, "POLL_S", 0.01)
    monkeypatch.setattr(cleanup, "RETRY_S", 0.01)
    stop = threading.Event()
    cleaner = Counted(store, "nonsense://nowhere", lambda: lease)
    thread = threading.Thread(target=cleaner.run, args=(stop,))
    thread.start()
    cleaner.wait(3)
    assert thread.is_alive()
    assert len(store.uncleaned()) == 1
    cleaner._uri = ""
    cleaner.wait(2)
    assert not store.uncleaned()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_lease_of_another_process_does_not_end_the_thread(store, lease, ended, monkeypatch):
    ended("lost")
    store.take_lease("two", store.seen_lease())
    monkeypatch.setattr(cleanup, "POLL_S", 0.01)
    stop = threading.Event()
    cleaner = Counted(store, "", lambda: lease)
    thread = threading.Thread(target=cleaner.run, args=(stop,))
    thread.start()
    cleaner.wait(3)
    assert thread.is_alive()
    assert len(store.uncleaned()) == 1
    stop.set()
    thread.join(10)
