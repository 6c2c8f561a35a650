"""Training that is killed, interrupted or started twice."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file

from zsbir.base.artifact import Artifact

pytestmark = pytest.mark.slow

STEPS = 14


def command(dataset: str, knowledge: str, root: Path, *more: str) -> list[str]:
    options = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--steps", str(STEPS), "--no-tracking"]
    every = ["--checkpoint-every-steps", "4", "--eval-every-steps", "5", "--log-every-steps", "1"]
    inputs = ["--dataset", dataset, "--knowledge", knowledge, "--root", str(root)]
    return [sys.executable, "-m", "zsbir.train", "toy", *inputs, *options, *every, *more]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def on_a_terminal(*words: str) -> tuple[int, subprocess.Popen[bytes]]:
    """Start a command that leads the session of a new terminal; also return the terminal's other end, which ends it when closed."""
    leader, follower = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(follower, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        words,
        stdin=follower,
        stdout=subprocess.DEVNULL,
        stderr=follower,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509 - it makes one system call
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    os.close(follower)
    threading.Thread(target=_discard, args=(leader,), daemon=True).start()
    return leader, process


def _discard(terminal: int) -> None:
    """Read a terminal until it is closed: who writes to a full one waits."""
    with suppress(OSError, ValueError):
        while True:
            if select.select([terminal], [], [], 0.1)[0]:
                os.read(terminal, 65536)


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, err
    return out.strip(), err


def wait_for(root: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list(root.glob(pattern)):
        assert process.poll() is None, "training ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(dataset: str, knowledge: str, module_path: Path) -> Path:
    out, _ = finish(start(*command(dataset, knowledge, module_path)))
    return Path(out)


def assert_same(run: Path, other: Path) -> None:
    assert run.name == other.name
    for name in ("encoder.safetensors", f"checkpoints/step-{STEPS:06d}/state.safetensors"):
        ours, theirs = load_file(run / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert value.equal(theirs[key]), f"{key} differs in {name}"


def test_killed_mid_epoch_and_started_again_it_ends_with_the_same_bits(dataset, knowledge, uninterrupted, tmp_path):
    process = start(*command(dataset, knowledge, tmp_path))
    wait_for(tmp_path, "runs/*/checkpoints/step-000008/manifest.json", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob("runs/*/manifest.json"))
    out, err = finish(start(*command(dataset, knowledge, tmp_path)))
    assert f"of {STEPS}" in err.split("resuming at step ")[1].splitlines()[0]
    assert_same(Path(out), uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_it_saves_a_checkpoint_and_says_how_to_go_on(number, dataset, knowledge, uninterrupted, tmp_path):
    process = start(*command(dataset, knowledge, tmp_path))
    wait_for(tmp_path, "runs/*/checkpoints/step-*/manifest.json", process)
    process.send_signal(number)
    out, err = finish(process, code=130)
    assert out == ""
    assert "the same command goes on from there" in err
    out, _ = finish(start(*command(dataset, knowledge, tmp_path)))
    assert_same(Path(out), uninterrupted)


def test_a_training_whose_terminal_is_lost_saves_a_checkpoint(dataset, knowledge, uninterrupted, tmp_path):
    terminal, process = on_a_terminal(*command(dataset, knowledge, tmp_path))
    wait_for(tmp_path, "runs/*/checkpoints/step-000004/manifest.json", process)
    os.close(terminal)
    assert process.wait(60) == 130
    steps = [int(file.parent.name[5:]) for file in tmp_path.glob("runs/*/checkpoints/step-*/manifest.json")]
    assert max(steps) >= 4
    out, _ = finish(start(*command(dataset, knowledge, tmp_path)))
    assert_same(Path(out), uninterrupted)


@pytest.mark.parametrize("redirection", ["2>&-", "2> >(head -n 1 >/dev/null)"])
def test_a_training_without_a_standard_error_is_the_same(redirection, dataset, knowledge, uninterrupted, tmp_path):
    words = shlex.join(command(dataset, knowledge, tmp_path))
    out, _ = finish(start("bash", "-c", f"{words} {redirection}"))
    assert_same(Path(out), uninterrupted)


def test_a_second_process_does_not_train_the_same_run(dataset, knowledge, tmp_path):
    first = start(*command(dataset, knowledge, tmp_path), "--steps", "100000")
    wait_for(tmp_path, "runs/*/checkpoints/step-*/manifest.json", first)
    out, err = finish(start(*command(dataset, knowledge, tmp_path), "--steps", "100000"), code=1)
    first.kill()
    first.communicate()
    assert out == ""
    assert "another process is working on" in err


def test_a_finished_run_is_found_at_once_and_its_history_has_every_step(dataset, knowledge, uninterrupted):
    began = time.monotonic()
    out, err = finish(start(*command(dataset, knowledge, uninterrupted.parent.parent)))
    assert Path(out) == uninterrupted
    assert "already trained" in err
    assert time.monotonic() - began < 60
    import pyarrow.parquet as pq

    steps = pq.read_table(Artifact(uninterrupted, "run").file("history.parquet"), columns=["step", "loss"]).to_pylist()
    assert [int(row["step"]) for row in steps if row["loss"] is not None] == list(range(1, STEPS + 1))
