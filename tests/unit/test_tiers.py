"""The plugin behind the tiers: a Ctrl-C keeps what is known so far, and a quick test must stay quick."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
HANGS = "time.sleep(60)"
MAKES_AN_EXIT_OF_IT = "try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        raise SystemExit(130)"
MARKS = "[pytest]\nmarkers =\n  slow: x\n  long: x\n  realdata: x\n"


def pytest_of(folder: Path, code: str, *words: str) -> subprocess.Popen[str]:
    (folder / "test_it.py").write_text(code)
    (folder / "pytest.ini").write_text(MARKS)
    command = [sys.executable, "-m", "pytest", "-p", "tiers", "-p", "no:cacheprovider", "--durations=5", *words]
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    return subprocess.Popen(
        command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


@pytest.mark.parametrize(
    ("hangs", "words"),
    [(HANGS, ()), (MAKES_AN_EXIT_OF_IT, ()), (HANGS, ("-n", "2", "--dist", "loadfile"))],
    ids=["raised", "made an exit", "several processes"],
)
def test_ctrl_c_ends_a_run_with_the_failures_and_durations_so_far(tmp_path, hangs, words):
    """Also where the test calls a verb, which makes an exit of the interrupt."""
    code = f"""
import time
from pathlib import Path
def test_it_fails(tmp_path):
    time.sleep(0.05)
    assert 1 == 2, "told although interrupted"
def test_it_hangs(tmp_path):
    Path("hangs").touch()
    {hangs}
def test_it_is_not_begun():
    Path("begun").touch()
"""
    running = pytest_of(tmp_path, code, *words)
    until = time.monotonic() + 240
    while not (tmp_path / "hangs").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    said, _ = running.communicate(timeout=240)
    assert running.returncode == 2, said
    assert "told although interrupted" in said
    assert "slowest" in said
    assert " failed in " in said
    assert "KeyError" not in said
    assert not (tmp_path / "begun").exists()


def test_a_quick_test_that_takes_too_much_cpu_time_fails_with_the_way_out(tmp_path):
    code = """
import pytest, tiers
tiers.LIMIT_CPU_S = 0.05
def work():
    sum(range(10_000_000))
def test_dear():
    work()
@pytest.mark.slow
def test_dear_and_marked():
    work()
def test_cheap():
    pass
"""
    said, _ = pytest_of(tmp_path, code).communicate(timeout=60)
    assert "1 failed, 2 passed" in said
    assert "test_it.py::test_dear took" in said
    assert "mark it `slow`" in said
