"""Which processes `down` ends: those of the service, wherever they have gone, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid

import psutil
import pytest

from services.jobs.local.ownership import MARKER, Leader, in_session, is_process, kill, marked, of_service, start_of
from zsbir.base.errors import RunError

HANG = "import time; time.sleep(600)"
IN_A_NEW_SESSION = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {HANG!r}], start_new_session=True)"
RETITLED = f"""
import ctypes, pathlib
first, last = map(int, pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[47:49])
ctypes.memset(first, 0, last - first)  # as setproctitle does to make room for a long title
print("up", flush=True)
{HANG}
"""
STARTS_RETITLED = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {RETITLED!r}]).wait()"


@pytest.fixture
def marker():
    """A marker of this test alone, whose processes end with it."""
    text = uuid.uuid4().hex
    yield text
    kill(lambda: marked(text))


@pytest.fixture
def start(marker):
    """A function that starts a few lines of Python as leader of a session; ended with the test."""
    started, leaders = [], []

    def start(code, *words, env=None, **options):
        env = {**os.environ, MARKER: marker} if env is None else env
        started.append(subprocess.Popen([sys.executable, "-c", code, *words], env=env, start_new_session=True, **options))
        leaders.append(leader_of(started[-1]))
        return started[-1]

    yield start
    for process, leader in zip(started, leaders, strict=True):
        kill(lambda leader=leader: in_session(leader, ""))
        process.wait()
        if process.stdout:
            process.stdout.close()


def leader_of(process):
    return Leader(process.pid, start_of(process.pid))


def numbers(processes):
    return {process.pid for process in processes}


def only(find):
    """The single process that is found before long."""
    until = time.monotonic() + 20
    while len(found := list(find())) != 1:
        assert time.monotonic() < until, found
        time.sleep(0.02)
    return found[0]


def test_a_process_that_merely_names_the_service_in_its_command_line_survives(start, marker, tmp_path):
    own = start(HANG, str(tmp_path))
    editor = start(HANG, marker, str(tmp_path), f"services.jobs.runs.runner {tmp_path}/jobs/", env=dict(os.environ))
    kill(lambda: of_service([leader_of(own)], marker))
    assert own.wait(10) == -signal.SIGKILL
    assert editor.poll() is None


def test_a_process_in_a_session_of_its_own_whose_parent_has_ended_is_found_by_the_marker(start, marker):
    parent = start(IN_A_NEW_SESSION)
    parent.wait(20)
    orphan = only(lambda: marked(marker))
    assert parent.pid not in (orphan.ppid(), os.getsid(orphan.pid))
    kill(lambda: of_service([leader_of(parent)], marker))
    assert not is_process(orphan.pid, start_of(orphan.pid))


def test_a_process_whose_title_overwrote_its_environment_is_found_by_its_session(start, marker):
    """As Ray's agents do, which also outlive their head for a while."""
    head = start(STARTS_RETITLED, stdout=subprocess.PIPE, text=True)
    leader = leader_of(head)
    assert head.stdout.readline() == "up\n"
    (agent,) = psutil.Process(head.pid).children()
    os.kill(head.pid, signal.SIGKILL)
    head.wait()
    assert not marked(marker)
    assert numbers(in_session(leader, marker)) == {agent.pid}
    kill(lambda: of_service([leader], marker))
    assert not agent.is_running() or agent.status() == psutil.STATUS_ZOMBIE


def test_descendants_are_found_without_marker_and_session(start, marker):
    cleared = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {HANG!r}], env={{}}, start_new_session=True).wait()"
    parent = start(cleared)
    child = only(lambda: psutil.Process(parent.pid).children())
    assert numbers(of_service([leader_of(parent)], "")) == {parent.pid, child.pid}
    assert numbers(of_service([], marker)) == {parent.pid, child.pid}
    kill(lambda: of_service([], marker))
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_session_whose_number_belongs_to_another_process_by_now_is_left_alone(start, marker):
    other = start(HANG, env=dict(os.environ))
    for stale in ("", f"{start_of(other.pid)}0", "another boot 1"):
        assert in_session(Leader(other.pid, stale), "") == []
    gone = start("")
    leader = leader_of(gone)
    gone.wait(20)
    assert in_session(leader, "") == []
    assert in_session(Leader(gone.pid, "another boot 1"), "") == []
    assert in_session(leader_of(other), marker) == [], "its environment lacks the marker"


def test_an_empty_marker_finds_nothing():
    assert marked("") == []
    assert of_service([], "") == []


@pytest.mark.parametrize("error", [psutil.AccessDenied(1), psutil.NoSuchProcess(1), PermissionError()])
def test_what_cannot_be_read_is_left_alone_and_what_cannot_be_killed_is_named(start, marker, monkeypatch, error):
    own = start(HANG)

    def refuse(self):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(psutil.Process, "environ", refuse)
        assert marked(marker) == []
        assert numbers(of_service([leader_of(own)], marker)) == {own.pid}
    if isinstance(error, psutil.Error):
        with monkeypatch.context() as patched:
            patched.setattr("services.jobs.local.ownership.KILL_S", 0.2)
            patched.setattr(psutil.Process, "kill", refuse)
            with pytest.raises(RunError, match=f"do not end, not even killed: {own.pid}"):
                kill(lambda: marked(marker))
            patched.setattr(psutil.Process, "uids", refuse)
            assert marked(marker) == []
    assert own.poll() is None


def test_processes_of_other_users_are_never_found(start, marker, monkeypatch):
    own = start(HANG)
    assert numbers(marked(marker)) == {own.pid}
    with monkeypatch.context() as patched:
        patched.setattr(os, "getuid", lambda: 12345)
        assert of_service([leader_of(own)], marker) == []


def test_a_number_that_another_process_has_by_now_is_not_the_recorded_process(start):
    one = start(HANG)
    began = start_of(one.pid)
    assert is_process(one.pid, began)
    assert not is_process(one.pid, f"{began}0")
    assert not is_process(one.pid, "")


def test_a_zombie_counts_as_ended():
    process = subprocess.Popen([sys.executable, "-c", HANG])
    began = start_of(process.pid)
    process.kill()
    until = time.monotonic() + 20
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
    assert not is_process(process.pid, began)
    process.wait()
    assert not is_process(process.pid, began)
    assert start_of(process.pid) == ""
