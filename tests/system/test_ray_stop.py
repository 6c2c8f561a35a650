"""Data-parallel training that is asked to stop: real commands on a real Ray, real signals."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ray.job_submission import JobStatus, JobSubmissionClient
from servers.ray_head import train_workers

from zsbir.base.artifact import Artifact
from zsbir.edge.ray_train import MARKS

pytestmark = pytest.mark.slow

STEPS = 5000
"""More than any test waits for: the only checkpoint there can be is the final one."""


def options(dataset: str, knowledge: str, root: Path) -> list[str]:
    small = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--steps", str(STEPS), "--precision", "fp32"]
    never = ["--checkpoint-every-steps", str(STEPS), "--eval-every-steps", str(STEPS), "--log-every-steps", "1"]
    inputs = ["--dataset", dataset, "--knowledge", knowledge, "--root", str(root)]
    return ["-m", "zsbir.train", "toy", *inputs, *small, *never, "--num-workers", "2"]


class Command:
    """A training as a process, with what it says in a file."""

    def __init__(self, environment: dict[str, str], words: list[str], log: Path):
        self._log = log
        with log.open("w") as said:
            self.process = subprocess.Popen([sys.executable, *words], env=environment, stdout=said, stderr=said)

    def said(self) -> str:
        return self._log.read_text("utf-8")

    def until(self, pattern: str) -> None:
        """Wait until it has said so."""
        eventually(lambda: self.process.poll() is not None or re.search(pattern, self.said()), 400)
        assert self.process.poll() is None, self.said()

    def ended(self) -> float:
        """Seconds until it ends, as a command does that was interrupted."""
        began = time.monotonic()
        assert self.process.wait(60) == 130, self.said()
        return time.monotonic() - began


@pytest.fixture
def start(head, tmp_path) -> Iterator[Callable[[list[str]], Command]]:
    """Starts commands; none outlives the test."""
    commands: list[Command] = []

    def begin(words: list[str]) -> Command:
        commands.append(Command(head, words, tmp_path / f"{len(commands)}.log"))
        return commands[-1]

    yield begin
    for command in commands:
        command.process.kill()
        command.process.wait()


def eventually(true: Callable[[], object], timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def final_step(root: Path) -> int:
    """The step of the only checkpoint, a whole one; no mark of the talk between driver and workers is left."""
    (manifest,) = root.glob("runs/*/checkpoints/step-*/manifest.json")
    checkpoint = Artifact(manifest.parent, "checkpoint")
    checkpoint.verify()
    assert not {path.name for path in manifest.parents[2].iterdir()} & set(MARKS)
    return checkpoint.manifest.counts["step"]


def test_interrupted_it_saves_the_step_it_is_at_and_the_same_command_goes_on_from_there(start, dataset, knowledge, tmp_path):
    command = start(options(dataset, knowledge, tmp_path))
    command.until("loss ")
    command.process.send_signal(signal.SIGINT)
    command.ended()
    step = final_step(tmp_path)
    assert 0 < step < STEPS
    assert f"interrupted: checkpoint of step {step} saved in" in command.said()
    tracking = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [found.experiment_id for found in tracking.search_experiments() if found.name == "zsbir"]
    assert [run.info.status for run in tracking.search_runs([experiment])] == ["KILLED"]

    again = start(options(dataset, knowledge, tmp_path))
    again.until(f"resuming at step {step} of {STEPS}")
    again.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    again.process.send_signal(signal.SIGTERM)  # from a wrapper that was told as well: no second request
    again.ended()
    assert final_step(tmp_path) > step


def test_a_later_signal_ends_at_once_even_before_the_workers_are_there(start, head, dataset, knowledge, tmp_path):
    command = start([*options(dataset, knowledge, tmp_path), "--no-tracking"])
    command.until("joining Ray")
    eventually(lambda: list(tmp_path.glob("runs/*/.ray")), 60)  # Ray Train has begun
    command.process.send_signal(signal.SIGINT)
    time.sleep(2.1)
    command.process.send_signal(signal.SIGINT)
    assert command.ended() < 20
    eventually(lambda: not train_workers(head), 20)


def test_a_submitted_job_that_ray_stops_leaves_a_final_checkpoint(head, dataset, knowledge, tmp_path):
    client = JobSubmissionClient(head["RAY_API_SERVER_ADDRESS"])
    words = [sys.executable, *options(dataset, knowledge, tmp_path), "--no-tracking"]
    patient = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
    job = client.submit_job(entrypoint=" ".join(words), runtime_env={"env_vars": patient})
    eventually(lambda: "loss " in client.get_job_logs(job), 400)
    client.stop_job(job)
    eventually(lambda: client.get_job_status(job) == JobStatus.STOPPED, 60)
    step = final_step(tmp_path)
    assert f"interrupted: checkpoint of step {step} saved in" in client.get_job_logs(job)
