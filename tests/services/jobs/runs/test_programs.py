"""Jobs of kind command: any program, as a process whose output, result, end and children the attempt answers for."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from services.jobs.runs import child, runner
from services.jobs.runs.attempt_dir import attempt_dir_of
from services.jobs.runs.causes import cause_of_program
from services.jobs.runs.steps import COMMAND, Step
from zsbir.base.draft import draft
from zsbir.base.storage import join


@pytest.fixture
def run(tmp_path):
    """A function that runs one program in this process's attempt, and returns its end and its log."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    count = iter(range(1, 100))

    def run(*words, stop=None, **values):
        root, name = str(tmp_path / "root"), f"zsbir-test-1-a{next(count)}"
        attempt_dir = attempt_dir_of(root, name)
        step = Step(COMMAND, {"words": list(words), **values})
        memo = join(root, "jobs", "steps", "zsbir-test-1")
        attempt_dir.write_spec({"job": 1, "submission_id": name, "root": root, "memo": memo, "env": {}, "steps": [step.as_json()]})
        attempt = runner.Attempt(attempt_dir)
        if stop:
            threading.Thread(target=stop, args=(attempt,), daemon=True).start()
        end = attempt.run()
        attempt.close(end)
        return end, attempt_dir.log(0).decode()

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def python(code, *arguments):
    return ("python", "-c", code, *arguments)


def when_file(path):
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_program_gets_its_words_as_they_are_and_all_that_it_prints_is_logged(run, tmp_path):
    words = ["a b", "$HOME", "x,y", "--flag=1", "'", "*"]
    end, log = run(*python("import sys; print(sys.argv[1:]); print('beside', file=sys.stderr)", *words), cwd=str(tmp_path))
    assert (end.cause, end.result, end.message) == ("succeeded", "", "")
    assert repr(words) in log
    assert "beside" in log


def test_it_is_this_projects_python_in_the_folder_that_was_named(run, tmp_path):
    _, log = run(*python("import os, sys; print(os.path.realpath(sys.executable), os.getcwd())"), cwd=str(tmp_path))
    assert f"{Path(sys.executable).resolve()} {tmp_path}" in log


def test_the_result_is_the_last_line_where_that_is_the_address_of_an_artifact_or_a_model(run, tmp_path):
    with draft(tmp_path / "made", "dataset", "made") as work:
        work.file("x").write_bytes(b"x")
        work.commit(digest="0" * 64)
    for line, result in (
        (str(tmp_path / "made"), str(tmp_path / "made")),
        (str(tmp_path), ""),
        ("all is well", ""),
        ("models:/zsbir@champion", "models:/zsbir@champion"),
        ("/" + "x" * 5000, ""),
    ):
        end, _ = run(*python(f"print('some lines'); print({line!r})"))
        assert (end.cause, end.result) == ("succeeded", result)


@pytest.mark.parametrize(
    ("code", "error", "cause"),
    [
        (1, "", "user_error"),
        (2, "", "user_error"),
        (130, "", "user_error"),
        (75, "", "unreachable"),
        (1, "Unreachable", "unreachable"),
        (1, "DiskFull", "disk_full"),
        (2, "InputError", "user_error"),
        (-signal.SIGKILL, "", "lost"),
        (-signal.SIGTERM, "", "preempted"),
        (-signal.SIGSEGV, "", "user_error"),
    ],
)
def test_only_what_says_so_or_was_killed_is_tried_again(code, error, cause):
    assert cause_of_program(code, error) == cause


def test_a_failure_is_told_with_the_exit_code_and_the_last_line(run):
    end, _ = run(*python("import sys; print('MemoryError, it says'); sys.exit(3)"))
    assert (end.cause, end.message) == ("user_error", "exit code 3: MemoryError, it says")
    end, _ = run(*python("raise SystemExit(4)"))
    assert end.message == "exit code 4", "it has printed nothing"


def test_a_command_of_this_project_that_finds_no_network_is_told_from_one_that_fails(run):
    code = "from zsbir.base import cli, errors\ndef f(_): raise errors.Unreachable('nobody')\ncli.main(f)"
    end, _ = run(*python(code))
    assert (end.cause, end.message) == ("unreachable", "exit code 1: error: nobody")


@pytest.mark.parametrize(
    ("words", "values", "line"),
    [
        (("no-such-program",), {}, "error: 'no-such-program' cannot be started: No such file or directory"),
        (("python",), {"cwd": "/no/such/folder"}, "error: '/no/such/folder' cannot be started: No such file or directory"),
    ],
)
def test_a_program_that_is_not_there_is_the_users_error(run, words, values, line):
    end, log = run(*words, **values)
    assert (end.cause, end.message) == ("user_error", line)
    assert line in log


STARTS_ANOTHER = """
import pathlib, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
other = subprocess.Popen([sys.executable, "-c", deaf])
pathlib.Path(sys.argv[1]).write_text(str(other.pid))
{rest}
"""


@pytest.mark.parametrize("rest", ["time.sleep(600)", "sys.exit(0)"], ids=["asked to stop", "by itself"])
def test_what_a_program_has_started_ends_with_it(run, tmp_path, rest):
    file = tmp_path / "pid"

    def stop(attempt):
        when_file(file)
        time.sleep(0.2)
        attempt.request_stop("cancelled")

    waits = rest != "sys.exit(0)"
    end, _ = run(*python(STARTS_ANOTHER.format(rest=rest), str(file)), stop=stop if waits else None)
    assert end.cause == ("cancelled" if waits else "succeeded")
    psutil.wait_procs([psutil.Process(int(file.read_text()))] if psutil.pid_exists(int(file.read_text())) else [], timeout=10)
    assert not psutil.pid_exists(int(file.read_text())) or psutil.Process(int(file.read_text())).status() == psutil.STATUS_ZOMBIE


def test_a_program_that_is_deaf_to_the_first_request_is_killed_by_the_second(run, tmp_path, monkeypatch):
    monkeypatch.setattr(child, "SECOND_ASKING_S", 0.3)
    file = tmp_path / "deaf"
    code = (
        "import pathlib, signal, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        " pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
    )

    def stop(attempt):
        when_file(file)
        for pause_s in (0.0, 0.05, 0.5):
            time.sleep(pause_s)
            attempt.request_stop("timed_out")

    end, log = run(*python(code, str(file)), stop=stop)
    assert end.cause == "timed_out"
    assert "killed by SIGKILL" in log


def test_a_program_that_prints_without_end_fills_no_memory(run):
    end, log = run(*python("import sys\nfor _ in range(200): sys.stdout.write('x' * 100_000)\nprint()\nprint('the end')"))
    assert end.cause == "succeeded"
    assert log
    assert child.LONGEST_RESULT < 10**6


INNER = """
from zsbir.base import cli, errors

def fails(argv):
    raise errors.{error}("{told}")

cli.main(fails, [])
"""


@pytest.mark.parametrize(
    ("error", "cause"), [("Declined", "user_error"), ("Unreachable", "user_error"), ("DiskFull", "user_error")]
)
def test_what_a_command_reports_that_a_program_has_handled_is_not_the_end_of_the_program(run, error, cause):
    code = INNER.format(error=error, told="refused: not better")
    script = 'python -c "$1" || python -c "$1" || echo "the old one stays"; exit 3'
    end, log = run("sh", "-c", script, "sh", code)
    assert "the old one stays" in log
    assert (end.cause, end.message.partition(":")[0]) == (cause, "exit code 3")


@pytest.mark.parametrize(("error", "cause"), [("Declined", "succeeded"), ("Unreachable", "unreachable"), ("Busy", "busy")])
def test_a_program_that_is_a_command_of_this_project_ends_as_one(run, error, cause):
    end, _ = run(*python(INNER.format(error=error, told="no")))
    assert end.cause == cause
