"""A trial's process: Ray Tune trains in a thread of it, and ends it without waiting for that thread."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import threading, time
from tuning.trial import TrialTask

class Slow(TrialTask):
    def _train(self, config, name):
        time.sleep(1)
        print("ended", name, flush=True)

class AnyConfig:
    def replace(self, **point):
        return self

task = Slow(AnyConfig(), None, None)
threading.Thread(target=task, args=({"number": 3, "point": {}},), daemon=True).start()
time.sleep(0.2)
"""


@pytest.mark.slow
def test_the_process_of_a_trial_ends_after_the_thread_that_trains():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("ended trial 3"), done.stderr
    assert done.returncode == 0
