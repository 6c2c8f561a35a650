"""Programs of one machine's service: real processes that die, hang, and leave others behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from services.jobs.local import process as programs
from services.jobs.local.process import Program, Running, answers, await_well, end_all, is_process, start_of

HANG = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


@pytest.fixture
def running(tmp_path):
    """A function that makes a program of a few lines of Python, not started; whatever is left of it ends with the test."""
    made = []

    def make(code, **fields):
        mark = f"mark-{uuid.uuid4().hex}"
        words = [sys.executable, "-c", code, mark, str(tmp_path)]
        one = Running(Program(name="it", words=words, log=tmp_path / "logs" / "it.log", marks=(mark,), **fields))
        made.append(one)
        return one

    yield make
    for one in made:
        one.end(signal.SIGKILL)


def eventually(true, timeout_s=20):
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_what_runs_is_left_alone_and_what_it_says_is_in_its_log(running):
    one = running("import os, sys, time; print(os.environ['COLOUR'], flush=True); time.sleep(600)", env={"COLOUR": "green"})
    assert one.pid == 0
    assert one.keep()
    pid = one.pid
    assert not one.keep()
    assert one.pid == pid
    eventually(lambda: "green" in one.program.log.read_text())
    assert os.getsid(pid) == pid


def test_what_dies_is_started_again(running):
    one = running(HANG)
    one.keep()
    first = one.pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not one.pid)
    eventually(one.keep)
    assert one.pid not in (0, first)


def test_what_dies_again_and_again_is_started_more_and_more_slowly(running, monkeypatch):
    monkeypatch.setattr(programs, "BACKOFF_S", (0.0, 0.1, 0.4))
    one = running("raise SystemExit(3)")
    starts = []
    until = time.monotonic() + 20
    while len(starts) < 5:
        assert time.monotonic() < until
        if one.keep():
            starts.append(time.monotonic())
        time.sleep(0.01)
    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert waits[0] >= 0.1
    assert all(wait >= 0.4 for wait in waits[1:])


def test_what_has_lived_for_long_is_started_again_at_once(running, monkeypatch):
    monkeypatch.setattr(programs, "BACKOFF_S", (0.0, 60.0))
    one = running(HANG)
    one.keep()
    one._started_s -= 61  # a minute ago
    os.kill(one.pid, signal.SIGKILL)
    eventually(lambda: not one.pid)
    assert one.keep()


FAMILY = """
import subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
for _ in range(2):
    subprocess.Popen([sys.executable, "-c", child])
print("up", flush=True)
time.sleep(600)
"""


def test_the_end_leaves_nothing_of_its_process_group_behind(running):
    one = running(FAMILY)
    one.keep()
    eventually(lambda: "up" in one.program.log.read_text())
    family = [one.pid, *(child.pid for child in psutil.Process(one.pid).children(recursive=True))]
    assert len(family) == 3
    one.end()
    eventually(lambda: all(gone(pid) for pid in family))
    assert one.pid == 0
    one.end()


def test_so_does_the_restart_of_one_that_was_killed_alone(running):
    one = running(FAMILY)
    one.keep()
    eventually(lambda: "up" in one.program.log.read_text())
    children = [child.pid for child in psutil.Process(one.pid).children(recursive=True)]
    os.kill(one.pid, signal.SIGKILL)
    eventually(lambda: not one.pid)
    one.keep()
    eventually(lambda: all(gone(pid) for pid in children))


def test_who_does_not_hear_is_killed_after_a_while(running, monkeypatch):
    monkeypatch.setattr(programs, "END_S", 0.3)
    one = running(DEAF)
    one.keep()
    eventually(lambda: "up" in one.program.log.read_text())
    began, pid = time.monotonic(), one.pid
    one.end()
    assert 0.3 <= time.monotonic() - began < 5
    assert gone(pid)


def test_what_left_its_group_is_found_by_its_mark_with_its_children(running):
    one = running(HANG)
    (mark,) = one.program.marks
    stray = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {HANG!r}]); time.sleep(600)",
            mark,
        ],
        start_new_session=True,
    )
    other = subprocess.Popen([sys.executable, "-c", HANG, "mark-of-another"], start_new_session=True)
    eventually(lambda: psutil.Process(stray.pid).children())
    (child,) = psutil.Process(stray.pid).children()
    one.keep()
    stray.wait(10)
    eventually(lambda: gone(child.pid))
    assert other.poll() is None
    assert one.pid
    other.kill()
    other.wait()


def test_without_marks_nobody_is_ended():
    other = subprocess.Popen([sys.executable, "-c", HANG], start_new_session=True)
    end_all(())
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_program_that_cannot_be_started_says_so(tmp_path):
    one = Running(Program(name="it", words=[str(tmp_path / "nothing")], log=tmp_path / "log"))
    with pytest.raises(OSError):
        one.keep()


SERVE = """
import http.server, sys, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path[1:])); self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
(pathlib.Path(sys.argv[2]) / "port").write_text(str(server.server_port))
server.serve_forever()
"""


def test_a_server_is_well_when_it_answers_if_only_that_one_may_not(running, tmp_path, monkeypatch):
    one = running(SERVE)
    one.keep()
    port = tmp_path / "port"
    eventually(lambda: port.exists() and port.read_text())
    address = f"http://127.0.0.1:{port.read_text()}"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody's; a program of this machine is asked without it
    assert [answers(f"{address}/{code}") for code in (200, 401, 404, 500, 503)] == [True, True, True, False, False]
    one.end(signal.SIGKILL)
    assert not answers(f"{address}/200")
    assert not answers("http://::1:80/")


def test_who_is_not_well_in_time_is_named(running):
    good, bad = running(HANG), running(HANG, well="http://127.0.0.1:9/")
    told = []
    assert await_well([good, bad], 0.5, told.append) == ["it"]
    assert told == ["it is up"]


def test_a_number_that_somebody_else_has_now_is_not_that_process(running):
    one = running(HANG)
    one.keep()
    began = start_of(one.pid)
    assert is_process(one.pid, began)
    assert not is_process(one.pid, f"{began}0")
    assert not is_process(one.pid, "")


def test_a_process_that_has_ended_is_none_though_nobody_has_waited_for_it():
    process = subprocess.Popen([sys.executable, "-c", HANG])
    began = start_of(process.pid)
    process.kill()
    eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert not is_process(process.pid, began)
    process.wait()
    assert not is_process(process.pid, began)
    assert start_of(process.pid) == ""
    assert Path("/proc").is_dir()
