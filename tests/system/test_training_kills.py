"""A training that is killed at any moment goes on, and its best encoder is always the one that its score was measured on.

Real processes, really killed: see training_to_kill.py. Noise after each step makes every process compute something else, as a GPU
may.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SLOW_S = 0.02
"""Seconds that each write takes at least, about as long as a step of training."""

NOISE = 0.02
KILLED = -9


class Trainings:
    """Runs trainings and judges what they leave, through one program that has the libraries loaded."""

    def __init__(self, dataset: str, folder: Path, environment: dict[str, str], new_root: Callable[[], str]):
        self._dataset, self._weights, self.new_root = dataset, str(folder / "tiny.safetensors"), new_root
        program = [sys.executable, str(Path(__file__).with_name("training_to_kill.py")), self._weights]
        self._process = subprocess.Popen(
            program, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self._judged: dict[str, dict[str, Any]] = {}
        self.kills, self.steps_lost, self._began_s = 0, list[int](), time.monotonic()

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def train(self, root: str, *, noise: float = NOISE, **more: Any) -> dict[str, Any]:
        """Train until the end or a kill. What it went on from is the newest checkpoint; what it leaves is true, and no older."""
        before = self._judged.get(root, {}).get("checkpoint")
        resumable = before["step"] if before else 0
        ended = self._order("train", root, noise=noise, **{"slow_s": SLOW_S, **more})
        assert ended["code"] in (0, KILLED), ended
        has_trained = ended["first_step"] >= 0
        assert ended["first_step"] == resumable or not has_trained
        after = self.judge(root)
        saved = after["checkpoint"]["step"] if after["checkpoint"] else 0
        assert saved >= resumable
        if ended["code"] == KILLED:
            self.kills += 1
            self.steps_lost.append(ended["last_step"] - saved if has_trained else 0)
        else:
            assert after["signed"]["step"] == saved == after["all_steps"]
            assert after["others"] == [], "nothing is left of older checkpoints"
        return ended

    def diverge(self, root: str, step: int) -> str:
        """Train until a weight is not a number, after that step; the error."""
        return str(self._order("train", root, noise=NOISE, slow_s=SLOW_S, spoil_at=step)["error"])

    def judge(self, root: str) -> dict[str, Any]:
        """Return what is stored of the run in a root: each part is whole, and each encoder has the score that stands with it."""
        found = self._judged[root] = self._order("judge", root)
        for part in filter(None, (found["checkpoint"], found["signed"])):
            if part["best_step"]:
                assert part["score"] == part["true_score"], found
            assert part.get("history_score", part.get("score")) == part.get("score"), found
            assert part.get("history_step", part["best_step"]) == part["best_step"], found
        return found

    def report(self, kind: str) -> None:
        """Print what it cost, for `pytest -s`, and count anew."""
        lost, took_s = self.steps_lost, time.monotonic() - self._began_s
        line = f"{kind}: {self.kills} kills, steps lost on average {sum(lost) / len(lost):.1f}, at most {max(lost)}; {took_s:.0f} s"
        print(f"\n{line}")
        self.kills, self.steps_lost, self._began_s = 0, [], time.monotonic()

    def _order(self, do: str, root: str, **more: Any) -> dict[str, Any]:
        order = {"do": do, "root": root, "dataset": self._dataset, "weights": self._weights, **more}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "error" not in answer or "spoil_at" in more, answer["error"]
        return answer


@pytest.fixture(scope="module", params=["disk", pytest.param("s3", marks=pytest.mark.long)])
def trainings(request: pytest.FixtureRequest, dataset: str, module_path: Path) -> Iterator[Trainings]:
    environment, roots = {**os.environ, "OMP_NUM_THREADS": "1"}, count()

    def new_root() -> str:
        if request.param == "disk":
            return str(module_path / f"root{next(roots)}")
        return f"s3://{request.getfixturevalue('moto').new_bucket()}/root"

    if request.param == "s3":
        environment |= request.getfixturevalue("moto").env
    trainings = Trainings(dataset, module_path, environment, new_root)
    yield trainings
    trainings.close()


@pytest.mark.parametrize("slow_s", [SLOW_S, pytest.param(0, marks=pytest.mark.long), pytest.param(0.1, marks=pytest.mark.long)])
def test_killed_at_each_write_a_training_goes_on_and_best_encoder_and_score_agree(trainings: Trainings, slow_s: float):
    for number in count(1):
        root = trainings.new_root()
        if trainings.train(root, slow_s=slow_s, kill_at=number)["code"] == 0:
            break
        assert trainings.train(root, slow_s=slow_s)["code"] == 0
    trainings.report(f"killed at each write, {slow_s} s each")
    assert number > 10, "a checkpoint and the run itself take that many"


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.long)])
def test_killed_at_random_moments_a_training_goes_on_and_best_encoder_and_score_agree(trainings: Trainings, kills: int):
    chance = random.Random(kills)
    whole_s = trainings.train(trainings.new_root())["seconds"]
    root = trainings.new_root()
    while trainings.kills < kills:
        if trainings.train(root, kill_after_s=chance.uniform(0, whole_s))["code"] == 0:
            root = trainings.new_root()
    assert trainings.train(root)["code"] == 0
    trainings.report("killed at random moments")


@pytest.mark.parametrize("step", [3, 4, 5, 6, 8, 9])
def test_a_training_that_diverges_leaves_its_last_good_checkpoint_and_is_not_signed(trainings: Trainings, step: int):
    """The loss is still good in that step; evaluations follow every second one, checkpoints every third, the last with both."""
    root = trainings.new_root()
    assert "PermanentError: training has diverged" in trainings.diverge(root, step)
    found = trainings.judge(root)
    assert (found["checkpoint"] or {"step": 0})["step"] == (step - 1) // 3 * 3
    assert found["signed"] is None
    assert trainings.train(root)["code"] == 0, "it goes on from there, and this time nothing is spoilt"


def test_without_noise_a_killed_training_ends_with_the_encoder_of_one_that_was_not(trainings: Trainings):
    whole, broken = trainings.new_root(), trainings.new_root()
    trainings.train(whole, noise=0)
    for number in (9, 17, 25):
        trainings.train(broken, noise=0, kill_at=number)
    trainings.train(broken, noise=0)
    assert trainings.judge(broken)["signed"] == trainings.judge(whole)["signed"]
