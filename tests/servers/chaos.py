"""Trainings in a queue whose parts are killed again and again, and checks of what must hold meanwhile and afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from mlflow.tracking import MlflowClient

from servers.processes import free_ports
from services.jobs.cli.client import Client
from services.jobs.local.paths import default_store, read_state
from services.jobs.queue.states import TERMINAL
from services.jobs.queue.store import open_store
from services.jobs.runs.attempt_dir import attempt_dir_of
from zsbir.base.artifact import exists
from zsbir.base.errors import RunError

TARGETS = ("dispatcher", "api", "ray", "worker", "mlflow")
SMALL = {"recipe": "toy", "image_px": 32, "classes_per_batch": 4, "per_class": 2, "eval_every_steps": 1000, "log_every_steps": 5}


@dataclass
class Report:
    """What was observed. twice: trainings seen in two processes at once. most: the highest number of trainings seen at once."""

    kills: list[tuple[float, str]] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    most: int = 0
    seconds: float = 0.0
    states: dict[str, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)
    untrue: list[str] = field(default_factory=list)
    mlflow: dict[str, int] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


class Service:
    """A service that `up` starts, over a root of its own."""

    def __init__(self, root: Path, *, running: int, places: str):
        self.root = str(root.resolve())
        self.running, self.places, self.stderr = running, places, ""
        (self.port,) = free_ports(1)

    def up(self) -> None:
        options = [f"--root={self.root}", f"--port={self.port}", f"--running={self.running}", f"--places={self.places}"]
        self.command("up", *options, "--cpus=2", "--gpus=0", "--patience-s=5", "--grace-s=30")

    def down(self) -> None:
        self.command("down", f"--root={self.root}", "--now")

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "services.jobs", *words], capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stderr
        self.stderr = done.stderr
        return done.stdout.strip()

    @property
    def state(self) -> dict[str, Any]:
        return read_state(self.root)

    @property
    def client(self) -> Client:
        return Client(self.state["url"], Path(self.state["token"]).read_text().strip())

    def pid(self, name: str) -> int:
        return int(next(program["pid"] for program in self.state["programs"] if program["name"] == name))

    def processes(self, *marks: str) -> list[psutil.Process]:
        """Return the processes whose command line contains all of these texts."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or [])
            if process.pid != os.getpid() and all(mark in words for mark in marks):
                found.append(process)
        return found

    def strike(self, target: str, chance: random.Random) -> str:
        """Kill one part with SIGKILL and return its name; return an empty text where there is nothing to kill."""
        if target == "ray":
            temp = self.state["ray"]["temp"]
            doomed = self.processes("gcs_server", temp) + self.processes("raylet/raylet", temp)
        elif target == "worker":
            work = self.processes("-m zsbir.train", self.root) + self.processes("-m services.jobs.runs.runner", self.root)
            doomed = [chance.choice(work)] if work else []
        else:
            doomed = [psutil.Process(self.pid(target))] if self.pid(target) else []
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        return target if doomed else ""


class Watcher(threading.Thread):
    """Counts trainings five times a second."""

    def __init__(self, service: Service, report: Report):
        super().__init__(daemon=True)
        self._service, self._report, self.over = service, report, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            runs = trainings(self._service.processes("-m zsbir.train", self._service.root))
            self._report.twice += [seed for seed, count in runs.items() if count > 1]
            self._report.most = max(self._report.most, sum(runs.values()))


def trainings(found: Iterable[psutil.Process]) -> Counter[str]:
    """Return how many live processes train each seed.

    Forked children do not count: until they execute a program of their own, they have their parent's command line.
    """
    alive: dict[int, tuple[int, str]] = {}
    for process in found:
        with suppress(psutil.NoSuchProcess):
            seed = next((word for word in process.cmdline() if word.startswith("--seed=")), "")
            if process.status() != psutil.STATUS_ZOMBIE:
                alive[process.pid] = process.ppid(), seed
    return Counter(seed for parent, seed in alive.values() if parent not in alive)


def chaos(
    service: Service, dataset: str, knowledge: str, *, jobs: int, kills: int, seed: int, every_s: tuple[float, float]
) -> Report:
    """Submit trainings, kill parts meanwhile, and report what happened. The service must be up, and is taken down."""
    report, chance, began = Report(), random.Random(seed), time.monotonic()
    config = {**SMALL, "dataset": dataset, "knowledge": knowledge, "steps": 40, "checkpoint_every_steps": 5}
    watcher = Watcher(service, report)
    watcher.start()
    ids = [submitted(service, {"kind": "train", "config": {**config, "seed": number}}, f"chaos-{number}") for number in range(jobs)]
    targets = [TARGETS[number % len(TARGETS)] for number in range(kills)]
    chance.shuffle(targets)
    for target in targets:
        time.sleep(chance.uniform(*every_s))
        until = time.monotonic() + 30
        while not (struck := service.strike(target, chance)) and time.monotonic() < until:
            time.sleep(0.2)
        report.kills.append((round(time.monotonic() - began, 1), struck or f"no {target}"))
    wait_for_all(service, ids, report, timeout_s=60.0 * jobs)
    watcher.over.set()
    watcher.join()
    report.seconds = time.monotonic() - began
    judge(service, ids, report)
    service.down()
    report.left = [" ".join(process.cmdline())[:200] for process in service.processes(service.root)]
    return report


def submitted(service: Service, job: dict[str, Any], key: str) -> int:
    """Return the id of the submitted job. Try again while the service is down: the key makes it one job."""
    until = time.monotonic() + 120
    while True:
        try:
            return int(service.client.submit(job, key)[0]["id"])
        except RunError:
            assert time.monotonic() < until
            time.sleep(0.5)


def wait_for_all(service: Service, ids: list[int], report: Report, timeout_s: float) -> None:
    """Wait until all jobs have ended and are cleaned up, reading the store: the service may be down."""
    store, until = open_store(default_store(service.root)), time.monotonic() + timeout_s
    while any(store.job(job_id).state not in TERMINAL for job_id in ids) or store.uncleaned():
        if time.monotonic() > until:
            report.untrue.append("not all ended: " + str([(job.id, job.state, job.message) for job in store.jobs(limit=1000)]))
            return
        time.sleep(0.5)


def judge(service: Service, ids: list[int], report: Report) -> None:
    """Check that a job has an artifact exactly if it succeeded, and count states, causes and MLflow's statuses."""
    store = open_store(default_store(service.root))
    jobs = [store.job(job_id) for job_id in ids]
    attempts = [attempt for job_id in ids for attempt in store.attempts(job_id)]
    report.states = dict(Counter(job.state for job in jobs))
    report.causes = dict(Counter(str(attempt.cause) for attempt in attempts))
    for job in jobs:
        attempt_dirs = [attempt_dir_of(service.root, attempt.submission_id) for attempt in store.attempts(job.id)]
        runs = {attempt_dir.status("train")["facts"].get("run", "") for attempt_dir in attempt_dirs} - {""}
        made = any(exists(run) for run in runs)
        if made != (job.state == "succeeded") or (job.result != "") != made:
            report.untrue.append(f"job {job.id} is {job.state}, its run is {'there' if made else 'not there'}")
    client = MlflowClient(f"sqlite:///{service.root}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    report.mlflow = dict(Counter(run.info.status for run in client.search_runs(experiments, max_results=1000)))
