"""The queue of a team on several machines: its head replaced, its dispatchers killed, frozen and with wrong clocks.

PostgreSQL and MLflow run on the host and are let into the box. Run with -s: every test prints times.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.cluster import BRIDGE, Box, Command, box, faketime, make_whole, reason_why_not
from servers.debian import Unavailable
from servers.job_queue import JobQueue
from servers.mlflow_server import mlflow_server
from servers.postgres import new_database

from infra.cluster_in_a_box.clock import wrong_clock
from zsbir.base.storage import open_folder

pytestmark = [pytest.mark.slow, pytest.mark.long]

TOY = {"layout": "toy", "toy_photos_per_class": 4, "toy_sketches_per_class": 4, "toy_px": 48}
TRAINING = {"recipe": "toy", "image_px": 32, "classes_per_batch": 4, "per_class": 2, "eval_every_steps": 100_000}
LEASE_S = 15.0
"""The default of `dispatch --lease-s`."""


class Team:
    """A queue over the box: its store as the host sees it, and dispatchers on its machines."""

    def __init__(self, cluster, url: str, tracking: str, folder):
        self.cluster, self._folder, self.url, self._tracking = cluster, folder, url, tracking
        self.root = f"s3://{cluster.facts.store['bucket']}/{folder.name}".replace("_", "-")
        self.queue = JobQueue(self.root, {}, folder, url=url)
        self.dispatchers: list[Command] = []

    def dispatch(self, number: int, **environment: str) -> Command:
        """Start a dispatcher on a machine and return it."""
        port = self.url.rpartition(":")[2].partition("/")[0]
        store = self.url.replace(f"127.0.0.1:{port}", f"{BRIDGE}:5432")
        words = ["python", "-m", "services.jobs", "dispatch", f"--root={self.root}", "--ray=http://head:8265", "--poll-s=0.5"]
        words += [f"--tracking-uri={self._tracking}"]
        log = self._folder / f"dispatcher{len(self.dispatchers)}.log"
        made = Command(self.cluster, number, words, log, {"ZSBIR_JOBS_STORE": store, **environment})
        self.dispatchers.append(made)
        return made

    def submit(self, count: int = 1, **fields) -> list[int]:
        """Submit ingests of different seeds."""
        return [self.queue.submit("ingest", {**TOY, "seed": number}, **fields).id for number in range(count)]

    def once_each(self, ids: list[int]) -> None:
        """Every job has succeeded, and one of its attempts has begun: one that a frozen dispatcher had only claimed never does."""
        for job_id in ids:
            assert self.queue.ended(job_id, 600).state == "succeeded", self.queue.log(job_id)[-3000:]
            folders = [open_folder(f"{self.root}/jobs/{each.submission_id}") for each in self.queue.store.attempts(job_id)]
            assert sum("began" in folder.names() for folder in folders) == 1


@pytest.fixture(scope="module")
def machines() -> Iterator[Box]:
    """A head, a node of two CPUs, and two machines without Ray, for dispatchers."""
    if reason := reason_why_not():
        pytest.skip(reason)
    with box(3, cpus=2) as made:
        yield made


@pytest.fixture
def team(cluster, postgres, tmp_path) -> Iterator[Team]:
    make_whole(cluster, [0, 1])
    for number in (2, 3):
        cluster.boot(number)
    url = new_database(postgres)
    served = tmp_path / "mlflow"
    served.mkdir()
    with mlflow_server(f"sqlite:///{served}/mlflow.db", served, "--allowed-hosts", f"{BRIDGE}:5000,127.0.0.1:*") as tracking:
        port = url.rpartition(":")[2].partition("/")[0]
        cluster.let_in(5432, f"127.0.0.1:{port}")
        cluster.let_in(5000, tracking.removeprefix("http://"))
        made = Team(cluster, url, f"http://{BRIDGE}:5000", tmp_path)
        yield made
        for dispatcher in made.dispatchers:
            dispatcher.end()
        for door in (5432, 5000):
            cluster.shut(door)


def test_a_job_of_the_queue_outlives_the_head_that_it_ran_on(team, inputs):
    where = dict(zip(("dataset", "knowledge"), inputs[1::2], strict=True))
    config = {**TRAINING, **where, "steps": 120, "num_workers": 2, "log_every_steps": 1, "checkpoint_every_steps": 20}
    team.dispatch(2)
    job = team.queue.submit("train", config, cpus=2).id
    team.queue.at_step(job, 45)
    at, began = team.queue.store.job(job).progress["done"], time.monotonic()
    team.cluster.unplug(0)
    time.sleep(20)
    team.cluster.start(0)
    back_s = time.monotonic() - began
    team.queue.until(job, lambda _: len(team.queue.store.attempts(job)) > 1, 600)
    noticed_s = time.monotonic() - began
    team.queue.until(job, lambda found: team.queue.store.attempts(job)[-1].resumed_from, 600)
    resumed_s, newest = time.monotonic() - began, team.queue.store.attempts(job)[-1]
    step = int(newest.resumed_from.split()[-1])
    print(
        f"\nMEASURED the head replaced (a new one after {back_s:.0f} s): counted as lost after {noticed_s:.0f} s, training again"
        f" after {resumed_s:.0f} s, from step {step}, {max(0, at - step)} of the reported steps lost"
    )
    assert team.queue.ended(job, 1200).state == "succeeded", team.queue.log(job)[-3000:]
    assert [attempt.cause for attempt in team.queue.store.attempts(job)][-1] == "succeeded"
    assert step >= 40


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_second_dispatcher_takes_over_and_nothing_runs_twice(team, how):
    first = team.dispatch(2)
    first.until_said("dispatching as")
    second = team.dispatch(3)
    second.until_said("dispatches; waiting until it is silent")
    jobs = team.submit(4)
    team.queue.until(jobs[0], lambda job: job.state != "queued")
    began = time.monotonic()
    first.send(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    second.until_said("dispatching as", 1)
    took_s = time.monotonic() - began
    if how == "frozen":
        time.sleep(5)
        first.send(signal.SIGCONT)
        first.until_said("node3 .* dispatches; waiting")
    print(f"\nMEASURED a dispatcher {how}: the other one took over after {took_s:.1f} s; {len(jobs)} jobs, each run once")
    assert took_s >= LEASE_S - 4, "a lease is not taken from a holder that may be alive"
    team.once_each(jobs)


def test_a_dispatcher_ten_minutes_ahead_times_nothing_out(team):
    try:
        library = faketime()
    except Unavailable as reason:
        pytest.skip(str(reason))
    wrong = wrong_clock(600, Path(library))
    clock = Command(team.cluster, 2, ["python", "-c", "import time; print(time.time())"], team._folder / "clock.log", wrong)
    clock.process.wait(60)
    assert abs(float(clock.said()) - time.time() - 600) < 30, "its clock is wrong"
    jobs = team.submit(3, start_by_s=team.queue.store.now() + 400, time_limit_s=300)
    began = time.monotonic()
    team.dispatch(2, **wrong).until_said("dispatching as")
    team.once_each(jobs)
    for job_id in jobs:
        job, attempt = team.queue.store.job(job_id), team.queue.store.attempts(job_id)[-1]
        assert job.submitted_s <= attempt.claimed_s <= attempt.started_s <= attempt.ended_s <= team.queue.store.now()
        assert attempt.ended_s - job.submitted_s < time.monotonic() - began + 60, "times are the store's"
    print(f"\nMEASURED a dispatcher whose clock is 600 s ahead: {len(jobs)} jobs, none timed out, each run once")
