"""The eye that watches a queue being killed: it must see what it is there for, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest
from servers.chaos import trainings

SLEEPS = "print(flush=True); import time; time.sleep(60)"
FORKS = f"import os; os.fork(); {SLEEPS}"


@pytest.fixture
def started():
    """A function that starts a program, and returns all processes of its once they all live."""
    running = []

    def start(program, seed, many=1):
        words = [sys.executable, "-c", program, "-m", "zsbir.train", f"--seed={seed}"]
        running.append(subprocess.Popen(words, stdout=subprocess.PIPE))
        for _ in range(many):
            assert running[-1].stdout.readline() == b"\n"
        process = psutil.Process(running[-1].pid)
        return [process, *process.children()]

    yield start
    for process in running:
        for child in psutil.Process(process.pid).children():
            child.kill()
        process.kill()
        process.communicate()


def test_a_training_in_two_processes_is_seen(started):
    found = [*started(SLEEPS, 1), *started(SLEEPS, 1), *started(SLEEPS, 2)]
    assert trainings(found) == {"--seed=1": 2, "--seed=2": 1}


def test_what_a_training_has_forked_is_no_second_one(started):
    found = started(FORKS, 1, many=2)
    assert len(found) == 2
    assert trainings(found) == {"--seed=1": 1}


def test_one_that_has_ended_counts_no_more(started):
    (process,) = started(SLEEPS, 1)
    process.kill()
    while process.status() != psutil.STATUS_ZOMBIE:
        pass
    assert not trainings([process])
