"""Programs of one machine's service: real processes that die, hang, and start others."""

from __future__ import annotations

import os
import signal
import sys
import time
from itertools import pairwise

import psutil
import pytest

from services.jobs.local import process as programs
from services.jobs.local.process import Program, Running, answers, await_healthy

HANG = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


@pytest.fixture
def running(tmp_path):
    """A function that makes a program of a few lines of Python, not started; what is left of it ends with the test."""
    made = []

    def make(code, **fields):
        command = [sys.executable, "-c", code, str(tmp_path)]
        one = Running(Program(name="it", command=command, log=tmp_path / "logs" / "it.log", **fields), marker="test")
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


def test_a_program_that_runs_is_left_alone_and_its_output_is_in_its_log(running):
    one = running("import os, sys, time; print(os.environ['COLOUR'], flush=True); time.sleep(600)", env={"COLOUR": "green"})
    assert one.pid == 0
    assert one.restart_if_ended()
    pid = one.pid
    assert not one.restart_if_ended()
    assert one.pid == pid
    eventually(lambda: "green" in one.program.log.read_text())
    assert os.getsid(pid) == pid


def test_a_program_inherits_neither_credentials_nor_the_form_of_log_lines(running, monkeypatch):
    for name in ("ZSBIR_JOBS_STORE", "ZSBIR_JOBS_TOKEN", "ZSBIR_LOG_TIMES", "ZSBIR_OTHER"):
        monkeypatch.setenv(name, f"{name.lower()} of the keeper")
    names = "('ZSBIR_JOBS_STORE', 'ZSBIR_JOBS_TOKEN', 'ZSBIR_LOG_TIMES', 'ZSBIR_OTHER')"
    show = f"import os, time; print([name for name in {names} if name in os.environ], flush=True); time.sleep(600)"
    one = running(show, env={"ZSBIR_LOG_TIMES": "1"})
    one.restart_if_ended()
    eventually(lambda: "]" in one.program.log.read_text())
    assert one.program.log.read_text().strip() == "['ZSBIR_LOG_TIMES', 'ZSBIR_OTHER']"
    assert one.program.log.stat().st_mode & 0o077 == 0


def test_a_program_that_dies_is_started_again(running):
    one = running(HANG)
    one.restart_if_ended()
    first = one.pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not one.pid)
    eventually(one.restart_if_ended)
    assert one.pid not in (0, first)


def test_a_program_that_keeps_dying_is_restarted_with_back_off(running, monkeypatch):
    monkeypatch.setattr(programs, "BACKOFF_S", (0.0, 0.1, 0.4))
    one = running("raise SystemExit(3)")
    starts = []
    until = time.monotonic() + 20
    while len(starts) < 5:
        assert time.monotonic() < until
        if one.restart_if_ended():
            starts.append(time.monotonic())
        time.sleep(0.01)
    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert waits[0] >= 0.1
    assert all(wait >= 0.4 for wait in waits[1:])


def test_a_program_that_ran_for_a_minute_is_restarted_at_once(running, monkeypatch):
    monkeypatch.setattr(programs, "BACKOFF_S", (0.0, 60.0))
    one = running(HANG)
    one.restart_if_ended()
    one._started_s -= 61  # a minute ago
    os.kill(one.pid, signal.SIGKILL)
    eventually(lambda: not one.pid)
    assert one.restart_if_ended()


FAMILY = """
import subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
for number in range(2):
    subprocess.Popen([sys.executable, "-c", child], process_group=0 if number else None)
print("up", flush=True)
time.sleep(600)
"""


def test_ending_a_program_ends_all_of_its_session(running):
    one = running(FAMILY)
    one.restart_if_ended()
    eventually(lambda: "up" in one.program.log.read_text())
    family = [one.pid, *(child.pid for child in psutil.Process(one.pid).children(recursive=True))]
    assert len(family) == 3
    one.end()
    eventually(lambda: all(gone(pid) for pid in family))
    assert one.pid == 0
    one.end()


def test_restarting_a_killed_program_ends_the_rest_of_its_session(running):
    one = running(FAMILY)
    one.restart_if_ended()
    eventually(lambda: "up" in one.program.log.read_text())
    children = [child.pid for child in psutil.Process(one.pid).children(recursive=True)]
    os.kill(one.pid, signal.SIGKILL)
    eventually(lambda: not one.pid)
    one.restart_if_ended()
    eventually(lambda: all(gone(pid) for pid in children))


def test_a_program_that_ignores_sigterm_is_killed(running, monkeypatch):
    monkeypatch.setattr(programs, "END_S", 0.3)
    one = running(DEAF)
    one.restart_if_ended()
    eventually(lambda: "up" in one.program.log.read_text())
    began, pid = time.monotonic(), one.pid
    one.end()
    assert 0.3 <= time.monotonic() - began < 5
    assert gone(pid)


def test_a_program_that_cannot_be_started_says_so(tmp_path):
    one = Running(Program(name="it", command=[str(tmp_path / "nothing")], log=tmp_path / "log"))
    with pytest.raises(OSError):
        one.restart_if_ended()


SERVE = """
import http.server, sys, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path[1:])); self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
(pathlib.Path(sys.argv[1]) / "port").write_text(str(server.server_port))
server.serve_forever()
"""


def test_a_server_is_healthy_when_it_answers_even_with_unauthorized(running, tmp_path, monkeypatch):
    one = running(SERVE)
    one.restart_if_ended()
    port = tmp_path / "port"
    eventually(lambda: port.exists() and port.read_text())
    address = f"http://127.0.0.1:{port.read_text()}"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(
            name, "http://127.0.0.1:9"
        )  # nothing listens there; programs of this machine are reached without a proxy
    assert [answers(f"{address}/{code}") for code in (200, 401, 404, 500, 503)] == [True, True, True, False, False]
    one.end(signal.SIGKILL)
    assert not answers(f"{address}/200")
    assert not answers("http://::1:80/")


def test_programs_that_are_not_healthy_in_time_are_named(running):
    good, bad = running(HANG), running(HANG, health_url="http://127.0.0.1:9/")
    reported = []
    assert await_healthy([good, bad], 0.5, reported.append) == ["it"]
    assert reported == ["it is up"]
