"""`up` and `down` on one machine: who keeps a root's service, how long jobs may take to save, and what is told to whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from services.jobs.local import keeper as local
from services.jobs.local.machine import Machine, UpSettings
from services.jobs.local.paths import remember, state_folder
from services.jobs.local.process import start_of
from services.jobs.runs.attempt_dir import attempt_dir_of
from services.jobs.runs.steps import Step
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import join

KEEPER = """
import signal, sys, threading
from services.jobs.local import keeper as local
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
with local._kept(sys.argv[1]):
    print("kept", flush=True)
    stop.wait()
    print(local._asked_grace_s(sys.argv[1], 7.0), flush=True)
"""
LONG = {"image_px": 16, "photos_per_class": 4000, "epochs": 1, "batch_images": 16}
"""A pre-training that draws photos for a quarter of an hour."""


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "root")


@pytest.fixture
def keeper(root):
    """A process that holds the lock, and says for how long it was told to wait."""
    process = subprocess.Popen([sys.executable, "-c", KEEPER, root], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "kept\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def at_work(root):
    """An attempt of that root at work in a process of its own, as Ray would have started it, with its place."""
    attempt_dir = attempt_dir_of(root, "zsbir-test-1-a1")
    steps = [Step("pretrain", LONG).as_json()]
    memo = join(root, "jobs", "steps", "zsbir-test-1")
    attempt_dir.write_spec({"job": 1, "submission_id": "zsbir-test-1-a1", "root": root, "memo": memo, "env": {}, "steps": steps})
    process = subprocess.Popen(
        [sys.executable, "-m", local.WORK, attempt_dir.uri], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while not attempt_dir.status("pretrain")["progress"].get("done"):
        assert time.monotonic() < until
        time.sleep(0.05)
    yield process, attempt_dir
    process.kill()
    process.wait()


def test_one_process_keeps_a_root_until_it_is_gone(root, keeper):
    assert local._is_kept(root)
    with pytest.raises(RunError, match="kept by another process"), local._kept(root):
        pass
    keeper.kill()
    keeper.wait()
    assert not local._is_kept(root)
    with local._kept(root):
        assert local._is_kept(root)
    assert not local._is_kept(root)


def test_what_a_keeper_starts_does_not_hold_its_lock(root):
    with local._kept(root):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    assert not local._is_kept(root)
    child.kill()
    child.wait()


@pytest.mark.parametrize(("words", "waits_s"), [({"grace_s": 600.0}, "600.0"), ({"grace_s": None}, "33.0"), ({"now": True}, "0.0")])
def test_the_keeper_waits_as_long_as_down_was_told_or_up(root, keeper, words, waits_s):
    remember(root, {"grace_s": 33.0, "programs": [], "ray": {"temp": "/nowhere/of/this/test"}})
    local.down(root, **{"now": False, **words})
    assert keeper.stdout.read() == f"{waits_s}\n"
    assert keeper.wait(10) == 0
    assert not (state_folder(root) / "up.json").exists()


def test_a_second_down_shortens_the_wait_of_the_first(root, at_work):
    """Who is asked to hurry hurries; asking again alone does not."""
    process, attempt_dir = at_work
    os.kill(process.pid, signal.SIGSTOP)  # it does not listen
    asked = [600.0]
    waiting = threading.Thread(target=local._pause_jobs, args=(root, lambda: asked[0]))
    waiting.start()
    waiting.join(1.5)
    assert waiting.is_alive()
    assert attempt_dir.stop_reason() == "preempted"
    asked[0] = 0.0
    waiting.join(5)
    assert not waiting.is_alive()


@pytest.mark.slow
def test_jobs_that_a_killed_keeper_left_behind_save_their_work_first(root, at_work):
    process, attempt_dir = at_work
    dispatcher = subprocess.Popen(["sleep", "600"], start_new_session=True)
    programs = [{"name": "dispatcher", "pid": dispatcher.pid, "start": start_of(dispatcher.pid)}]
    programs += [{"name": "api", "pid": os.getpid(), "start": "another boot 1"}]  # a number that is somebody else's by now
    remember(root, {"grace_s": 60.0, "programs": programs, "ray": {"temp": "/nowhere/of/this/test"}})
    local.down(root, now=False)
    assert attempt_dir.read_end().cause == "preempted"
    process.wait(10)  # with what exit code, `down` may have learned before: it waits for this child, too
    assert dispatcher.wait(10) == -signal.SIGKILL


def test_now_means_now(root, at_work):
    process, attempt_dir = at_work
    remember(root, {"grace_s": 600.0, "programs": [], "ray": {"temp": "/nowhere/of/this/test"}})
    local.down(root, now=True)
    process.wait(10)
    assert attempt_dir.read_end() is None, "it had no time for a last word"


def test_a_number_that_an_earlier_keeper_left_is_nobody_s(root, keeper):
    """Between taking the lock and saying who has it."""
    lock = state_folder(root) / "keeper.lock"
    said = lock.read_text()
    other = subprocess.Popen(["sleep", "600"])
    for stale in ("", f"{other.pid}", f"{other.pid} another boot 1"):
        lock.write_text(stale)
        assert local._keeper(root) == 0
        assert not local._is_ready(root)
    threading.Timer(0.5, lock.write_text, (said,)).start()
    remember(root, {"grace_s": 33.0, "programs": [], "ray": {"temp": "/nowhere/of/this/test"}})
    local.down(root, now=False)
    assert other.poll() is None
    assert keeper.wait(10) == 0
    other.kill()
    other.wait()


def test_nothing_is_ended_where_nothing_is_up(root, capfd):
    local.down(root, now=False)
    assert "nothing is up" in capfd.readouterr().err


def test_without_tokens_it_listens_on_this_machine_alone(root):
    with pytest.raises(InputError, match="would be operator"):
        local.up(UpSettings(root=root, host="0.0.0.0", auth="off"))


@pytest.mark.parametrize(
    ("host", "url", "auth"),
    [("127.0.0.1", "http://127.0.0.1:", "off"), ("::1", "http://[::1]:", "off"), ("0.0.0.0", "http://127.0.0.1:", "tokens")],
)
def test_the_address_is_one_that_works(root, host, url, auth):
    machine = Machine(UpSettings(root=root, host=host, port=0, hosts=("jobs.example.org",)))
    api = next(program for program in machine.programs if program.name == "api")
    (names,) = [word.partition("=")[2].split(",") for word in api.words if word.startswith("--hosts=")]
    assert machine.said["url"].startswith(url)
    assert machine.auth == auth
    assert "jobs.example.org" in names
    assert ("127.0.0.1" in names) == (host == "0.0.0.0")


def test_a_password_is_on_no_command_line_and_in_no_file(root, tmp_path):
    machine = Machine(UpSettings(root=root, store="postgresql://ann:hush@db.example.org/zsbir"))
    assert all("hush" not in " ".join(program.words) for program in machine.programs)
    assert [program.name for program in machine.programs if "hush" in str(program.env)] == ["dispatcher", "api"]
    assert "hush" not in str(machine.said)
