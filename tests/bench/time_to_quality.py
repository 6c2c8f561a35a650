"""Minutes of training until a recipe is as good on dev classes as another one at its end, each on all cores of this machine.

    python -m bench.time_to_quality --root DIR --dataset URI --knowledge URI --weights FILE RECIPE "RECIPE --flag value" ...

`PYTHONPATH=.:tests`. Each argument is what follows `python -m zsbir.train`. The first one's last dev/map_all is the goal. Minutes
count from the first step's start, evaluations included, which come every `--every` steps for all. Minutes of the clock are those of
this machine only where nothing else runs; those of its cores (user and system time, of all threads) suffer less from company.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
from bench.machine import described

STARTED = re.compile(r"^\d+ steps of \d+ images")
SCORED = re.compile(r"dev/map_all ([0-9.]+) at step (\d+)")


class Score(NamedTuple):
    """The mAP@all on dev classes at a step, and the minutes by the clock and of the cores that it had taken by then."""

    minutes: float
    core_minutes: float
    step: int
    map_all: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.time_to_quality")
    parser.add_argument("trainings", nargs="+", help="a recipe, and flags of zsbir.train behind it, as one argument")
    for name in ("root", "dataset", "knowledge", "weights"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--every", type=int, default=10, help="steps between evaluations")
    given = parser.parse_args()
    Path(given.root).mkdir(parents=True, exist_ok=True)
    print(f"{described()}\n")
    print("| training | ends with | at the goal after | of the cores | steps |\n|---|---|---|---|---|")
    goal = 0.0
    for words in given.trainings:
        scores = trained(words, given)
        goal = goal or scores[-1].map_all
        there = next((score for score in scores if score.map_all >= goal), None)
        reached = f"{there.minutes:.1f} min | {there.core_minutes:.1f} min | {there.step}" if there else "never | |"
        last = scores[-1]
        print(f"| {words} | {last.map_all:.3f} in {last.minutes:.1f} min ({last.core_minutes:.1f}) | {reached} |", flush=True)


def trained(words: str, given: argparse.Namespace) -> list[Score]:
    """Train in a new root, so that nothing is found made, and return the scores as they were printed."""
    inputs = ["--dataset", given.dataset, "--knowledge", given.knowledge, "--weights", given.weights]
    command = [sys.executable, "-m", "zsbir.train", *shlex.split(words), *inputs, "--eval-every-steps", str(given.every)]
    scores, began, began_cores = [], time.monotonic(), 0.0
    with tempfile.TemporaryDirectory(dir=given.root) as root:
        process = subprocess.Popen([*command, "--root", root, "--no-tracking"], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        used = psutil.Process(process.pid)
        for line in process.stderr:
            if STARTED.match(line):
                began, began_cores = time.monotonic(), core_seconds(used)
            if found := SCORED.search(line):
                minutes, of_cores = (time.monotonic() - began) / 60, (core_seconds(used) - began_cores) / 60
                scores.append(Score(minutes, of_cores, int(found[2]), float(found[1])))
        if process.wait():
            raise SystemExit(f"the training {words!r} ended with {process.returncode}")
    return scores


def core_seconds(process: psutil.Process) -> float:
    """Return how long a process has computed on all cores together."""
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
