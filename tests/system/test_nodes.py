"""Trainings over several nodes that are lost, missing, cut off, or run other code. The long form has a network for each node."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers.ray_nodes import Network, Nodes, ray_nodes

from zsbir.base.artifact import Artifact
from zsbir.base.code import package_sha256

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
LONG_S = 1500
"""Seconds after which a test gives up: the machine may be busy."""


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """A cluster on this machine: its head, to which a test adds nodes."""
    with ray_nodes() as made:
        yield made


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := Network.reason_why_not():
        pytest.skip(reason)
    made = Network(4)
    yield made
    made.remove()


class Training:
    """A data-parallel training of two workers as a process, with what it says in a file."""

    def __init__(self, nodes: Nodes, dataset: str, knowledge: str, root: Path, *more: str):
        small = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--precision", "fp32", "--no-tracking"]
        often = ["--checkpoint-every-steps", "10", "--eval-every-steps", "100000", "--log-every-steps", "1", "--num-workers", "2"]
        inputs = ["--dataset", dataset, "--knowledge", knowledge, "--root", str(root / "root")]
        words = [sys.executable, "-m", "zsbir.train", "toy", *inputs, *small, *often, *more]
        self._log, self._watched, self.root = root / "train.log", root / "watched", root / "root"
        environment = {**nodes.driver(), "ZSBIR_WATCH": str(self._watched), "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(nodes.command(words), env=environment, cwd=root, stdout=log, stderr=log)

    def said(self) -> str:
        return self._log.read_text("utf-8")

    def until(self, happened: Callable[[], object], timeout_s: float = LONG_S) -> float:
        """Wait for something, and return the seconds it took."""
        began = time.monotonic()
        while not happened():
            assert self.process.poll() is None, self.said()[-5000:]
            assert time.monotonic() - began < timeout_s, self.said()[-5000:]
            time.sleep(0.2)
        return time.monotonic() - began

    def until_said(self, pattern: str, times: int = 1) -> float:
        return self.until(lambda: len(re.findall(pattern, self.said())) >= times)

    def saved_step(self) -> int:
        """The newest complete checkpoint's step; 0 before the first."""
        found = [int(file.parent.name[5:]) for file in self.root.glob("runs/*/checkpoints/step-*/manifest.json")]
        return max(found, default=0)

    def last_step(self) -> int:
        """The last step that it reported."""
        return max(map(int, re.findall(r"train (\d+)/", self.said())), default=0)

    def resumed_steps(self) -> list[int]:
        """The steps at which it resumed, each once: every worker says so."""
        return list(dict.fromkeys(int(step) for step in re.findall(r"resuming at step (\d+) of", self.said())))

    def ended(self) -> Artifact:
        """The run, once it is trained."""
        assert self.process.wait(LONG_S) == 0, self.said()[-5000:]
        (manifest,) = self.root.glob("runs/*/manifest.json")
        run = Artifact(manifest.parent, "run")
        run.verify()
        return run

    def stop(self) -> None:
        """Ask it for a final checkpoint, and wait for its end."""
        self.process.terminate()
        assert self.process.wait(LONG_S) == 130, self.said()[-5000:]
        assert f"checkpoint of step {self.saved_step()} saved" in self.said()

    def waiting(self) -> str:
        """What it tells those who follow it of its waiting."""
        return str(json.loads((self._watched / "driver.json").read_text("utf-8"))["facts"].get("waiting", ""))


@pytest.fixture
def train(dataset, knowledge, tmp_path) -> Iterator[Callable[..., Training]]:
    started: list[Training] = []

    def begin(nodes: Nodes, *more: str) -> Training:
        started.append(Training(nodes, dataset, knowledge, tmp_path, *more))
        return started[-1]

    yield begin
    for training in started:
        training.process.kill()
        training.process.wait()


def lose_a_node(nodes: Nodes, training: Training, numbers: list[int]) -> tuple[int, int]:
    """Kill a node on which a worker trains; return its number and the newest step that was saved before."""
    victim = next(number for number in numbers if nodes.workers(number))
    saved = training.saved_step()  # a checkpoint that is being written may still come after the workers have resumed
    nodes.kill(victim)
    return victim, saved


def test_a_node_is_lost_with_a_spare_and_without_and_the_training_goes_on(nodes, train):
    for number in (1, 2, 3):
        nodes.start(number)
    training = train(nodes, "--steps", "5000")
    training.until(lambda: training.saved_step() >= 10)
    victim, saved = lose_a_node(nodes, training, [1, 2, 3])
    training.until_said("resuming at step")
    assert training.resumed_steps()[0] >= saved

    training.until(lambda: training.saved_step() > training.resumed_steps()[0])
    left = [number for number in (1, 2, 3) if number != victim]
    second, saved = lose_a_node(nodes, training, left)
    training.until_said("waiting since")
    assert "2 workers of 1 CPU each to start; 1 are there" in training.said() or "; 0 are there" in training.said()
    training.until(training.waiting)
    time.sleep(5)
    nodes.start(second)
    training.until(lambda: len(training.resumed_steps()) > 1)
    training.until_said(r"the workers are there, after \d+ s")
    training.until(lambda: not training.waiting())
    assert training.resumed_steps()[1] >= saved
    training.until(lambda: training.saved_step() > training.resumed_steps()[1])
    training.stop()


def test_a_start_without_room_waits_for_a_node_that_the_cluster_has_had(nodes, train):
    nodes.start(1)
    nodes.start(2)
    nodes.kill(2)
    nodes.until_alive(2)
    training = train(nodes, "--steps", "20")
    training.until_said("waiting since .* for the cluster to have nodes for 2 workers of 1 CPU each, it has them for 1")
    nodes.start(2)
    assert training.ended().manifest.counts["steps"] == 20
    refused = train(nodes, "--steps", "20", "--seed", "1", "--num-workers", "4")
    assert refused.process.wait(LONG_S) == 2
    assert "never had room for more than 2" in refused.said()


def changed_copy(folder: Path) -> Path:
    """The package with another margin in its loss."""
    shutil.copytree(REPOSITORY / "zsbir", folder / "zsbir", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "zsbir" / "losses" / "quadruplet.py"
    file.write_text(file.read_text("utf-8") + "\n# another loss\n", "utf-8")
    return folder


def test_a_node_with_other_code_is_refused_by_name_before_the_first_step(nodes, train, tmp_path):
    nodes.start(1, PYTHONPATH=str(REPOSITORY))
    nodes.start(2, PYTHONPATH=str(changed_copy(tmp_path / "other")))
    training = train(nodes, "--steps", "20")
    assert training.process.wait(LONG_S) == 2, training.said()[-3000:]
    assert re.search(
        r"error: node \S+ runs other code than the command: zsbir/losses/quadruplet\.py; install the same", training.said()
    )
    assert not list(training.root.glob("runs/*/checkpoints/*"))
    nodes.kill(2)
    nodes.start(2, PYTHONPATH=str(REPOSITORY))
    run = train(nodes, "--steps", "20").ended()
    assert run.manifest.code["package_sha256"] == package_sha256()


@pytest.mark.long
def test_on_three_machines_nodes_are_killed_and_missing_for_minutes(network, train, tmp_path):
    """Prints how long each recovery took and how many steps it cost; run it with -s to see them."""
    with ray_nodes(network) as nodes:
        for number in (1, 2, 3):
            nodes.start(number)
        training = train(nodes, "--steps", "4000", "--checkpoint-every-steps", "20")
        training.until(lambda: training.saved_step() >= 20)

        def recovered(what: str, resumptions: int, at: int, began: float) -> None:
            training.until_said("resuming at step", resumptions)
            step = training.resumed_steps()[resumptions - 1]
            print(f"{what}: going on after {time.monotonic() - began:.0f} s, from step {step}, at least {max(0, at - step)} lost")
            training.until(lambda: training.saved_step() > step)

        at, began = training.last_step(), time.monotonic()
        victim, _ = lose_a_node(nodes, training, [1, 2, 3])
        recovered("a node killed with a spare", 1, at, began)

        left = [number for number in (1, 2, 3) if number != victim]
        at, began = training.last_step(), time.monotonic()
        second, _ = lose_a_node(nodes, training, left)
        training.until_said("waiting since")
        time.sleep(300)
        assert training.process.poll() is None, training.said()[-3000:]
        assert training.waiting()
        nodes.start(second)
        recovered("a node killed without a spare, missing for 300 s", 2, at, began)

        training.stop()


@pytest.mark.long
def test_of_three_machines_one_has_no_network_for_a_minute(network, train):
    """Prints how long the recovery took and how many steps it cost."""
    with ray_nodes(network) as nodes:
        nodes.start(1)
        nodes.start(2)
        training = train(nodes, "--steps", "4000", "--checkpoint-every-steps", "20")
        training.until(lambda: training.saved_step() >= 20)
        cut = next(number for number in (1, 2) if nodes.workers(number))
        at, began = training.last_step(), time.monotonic()
        network.cut(cut)
        time.sleep(60)
        network.mend(cut)
        training.until_said("resuming at step")
        step = training.resumed_steps()[0]
        print(f"no network for 60 s: going on after {time.monotonic() - began:.0f} s, from step {step}, {max(0, at - step)} lost")
        training.until(lambda: training.saved_step() > step)
        training.stop()


@pytest.mark.long
def test_of_three_machines_the_one_with_other_code_is_named(network, train, tmp_path):
    with ray_nodes(network) as nodes:
        nodes.start(1, PYTHONPATH=str(REPOSITORY))
        nodes.start(2, PYTHONPATH=str(changed_copy(tmp_path / "other")))
        training = train(nodes, "--steps", "20")
        assert training.process.wait(LONG_S) == 2, training.said()[-3000:]
        assert "error: node node2 runs other code than the command: zsbir/losses/quadruplet.py" in training.said()
