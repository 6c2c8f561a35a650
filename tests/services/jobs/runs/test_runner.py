"""The process of an attempt: its steps, what it writes to its folder, its end, and how it is stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from servers.night import small_disk

from services.jobs.runs import attempt_dir as attempt_dirs
from services.jobs.runs import runner
from services.jobs.runs.attempt_dir import AttemptDir, End, attempt_dir_of
from services.jobs.runs.causes import cause_of
from services.jobs.runs.progress import read_status
from services.jobs.runs.steps import Step
from zsbir.base.artifact import MANIFEST, Artifact
from zsbir.base.storage import join, open_folder
from zsbir.training_run.delivery import UNDELIVERED

QUICK = {"layout": "toy", "toy_photos_per_class": 2, "toy_sketches_per_class": 2, "toy_px": 32, "threads": 1}
"""A data set of a second, by the command that starts fastest: it loads no torch."""

LONG = {**QUICK, "toy_photos_per_class": 500, "toy_px": 256}
"""One that is drawn for minutes."""

FULL = Path("/dev/full")
BAD = Step("evaluate", {"run": "no such run"})


@pytest.fixture
def attempt(tmp_path):
    """A function that makes the folder of an attempt at some steps, each time a new attempt at the same job."""
    made = []

    def make(*steps, root=None):
        root = root or str(tmp_path / "root")
        attempt_dir = attempt_dir_of(root, f"zsbir-test-1-a{len(made) + 1}")
        made.append(attempt_dir)
        attempt_dir.write_spec(
            {
                "job": 1,
                "submission_id": f"zsbir-test-1-a{len(made)}",
                "root": root,
                "memo": join(root, "jobs", "steps", "zsbir-test-1"),
                "env": {"OMP_NUM_THREADS": "1"},
                "steps": [step.as_json() for step in steps],
            }
        )
        return attempt_dir

    return make


@pytest.fixture
def started(tmp_path):
    """A function that starts the process of an attempt; what is left of it ends with the test."""
    running = []

    def start(attempt_dir):
        words = [sys.executable, "-m", "services.jobs.runs.runner", attempt_dir.uri]
        env = {**os.environ, "ZSBIR_PLAIN_LOG": "1"}
        with (tmp_path / f"out{len(running)}").open("wb") as out:
            running.append(subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, env=env, start_new_session=True))
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture
def run_here():
    """A function that does in this process what the process of an attempt does, to its exit code. Commands have their own."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield lambda attempt_dir: runner.main(attempt_dir.uri)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def log_of(attempt_dir: AttemptDir) -> str:
    return attempt_dir.log(0).decode()


def eventually(true, timeout_s=120):
    until = time.monotonic() + timeout_s
    while not (found := true()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def at_work(attempt_dir, process) -> psutil.Process:
    """What the attempt's process has started, once it draws: seconds before it tells how far it is."""
    datasets = Path(attempt_dir.spec()["root"], "datasets")
    eventually(lambda: [*datasets.glob("toy/*/.writing-*")])
    (command,) = psutil.Process(process.pid).children()
    return command


def test_a_step_that_ends_well_leaves_its_result_its_log_and_its_status(attempt, run_here):
    attempt_dir = attempt(Step("ingest", QUICK))
    assert run_here(attempt_dir) == 0
    end = attempt_dir.read_end()
    assert (end.cause, end.message, end.made) == ("succeeded", "", {"ingest": end.result})
    assert Artifact(end.result, "dataset").manifest.name == "toy"
    lines = log_of(attempt_dir).splitlines()
    assert lines[0].startswith("$ python -m zsbir.ingest --toy-photos-per-class=2 ")
    assert lines[-2:] == [end.result, "succeeded"]
    assert attempt_dir.status("ingest")["progress"]["label"] == "ingest"
    assert attempt_dir.heartbeat_version() is not None
    assert attempt_dir.claimed_by().endswith(tuple("0123456789"))


def test_an_attempt_writes_how_long_its_stages_took_and_which_it_found_or_had_made_before(attempt, run_here):
    first = attempt(Step("ingest", QUICK))
    run_here(first)
    assert 0 < first.stage_times()["ingest"]["took_s"] <= first.read_end().ran_s
    assert [stage["state"] for stage in read_status(first).progress["stages"]] == ["done"]
    again = attempt(Step("ingest", QUICK))
    run_here(again)
    assert [stage["state"] for stage in read_status(again).progress["stages"]] == ["found"]
    later = attempt(Step("ingest", QUICK), BAD)
    run_here(later)
    assert later.stage_times()["ingest"]["repeated"]
    assert "took_s" not in later.stage_times()["evaluate"]
    told = [(stage["name"], stage["state"], stage["took_s"] is None) for stage in read_status(later).progress["stages"]]
    assert told == [("ingest", "done", True), ("evaluate", "running", False)]


@pytest.mark.parametrize("times", ["", "1"])
def test_bad_input_ends_the_attempt_with_the_commands_own_error_line(attempt, run_here, monkeypatch, times):
    """Also on a node where log lines begin with the time."""
    monkeypatch.setenv("ZSBIR_LOG_TIMES", times)
    attempt_dir = attempt(BAD)
    assert run_here(attempt_dir) == 1
    end = attempt_dir.read_end()
    assert (end.cause, end.result, end.made) == ("user_error", "", {})
    assert end.message.startswith("error: ")
    assert "no such run" in end.message
    assert log_of(attempt_dir).splitlines()[-1] == f"user_error: {end.message}"


@pytest.mark.slow
def test_a_later_attempt_does_not_repeat_the_steps_of_an_earlier_one(attempt, run_here):
    steps = (Step("ingest", QUICK), BAD)
    first, second = attempt(*steps), attempt(*steps)
    run_here(first)
    made = first.read_end().made
    assert re.fullmatch(r"error: .* \(in evaluate\)", first.read_end().message)
    assert list(made) == ["ingest"]
    run_here(second)
    assert log_of(second).splitlines()[0] == f"ingest: done before: {made['ingest']}"
    assert "zsbir.ingest" not in log_of(second)
    assert second.read_end().made == made
    other = attempt(Step("ingest", {**QUICK, "seed": 1}), BAD)
    run_here(other)
    assert "done before" not in log_of(other), "other arguments are other work"


@pytest.mark.slow
def test_a_step_gets_the_result_of_an_earlier_step_as_its_input(attempt, run_here):
    train = Step.from_json({"name": "train", "values": {"recipe": "no such recipe"}, "fed": {"dataset": ["ingest", ""]}})
    attempt_dir = attempt(Step("ingest", QUICK), train)
    run_here(attempt_dir)
    (line,) = [line for line in log_of(attempt_dir).splitlines() if "-m zsbir.train" in line]
    assert f"--dataset={attempt_dir.read_end().made['ingest']}" in line


def test_sigterm_lets_the_command_end_and_calls_it_preempted(attempt, started):
    attempt_dir = attempt(Step("ingest", LONG))
    process = started(attempt_dir)
    command = at_work(attempt_dir, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1
    assert attempt_dir.read_end().cause == "preempted"
    assert not command.is_running()
    assert "interrupted" in log_of(attempt_dir)


def test_a_second_signal_changes_nothing(attempt, started):
    attempt_dir = attempt(Step("ingest", LONG))
    process = started(attempt_dir)
    at_work(attempt_dir, process)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
    process.wait(30)
    assert attempt_dir.read_end().cause == "preempted"
    assert "interrupted" in log_of(attempt_dir)


@pytest.mark.parametrize("reason", ["cancelled", "timed_out"])
def test_an_attempt_that_is_asked_to_stop_ends_for_that_reason(attempt, started, reason):
    attempt_dir = attempt(Step("ingest", LONG), BAD)
    process = started(attempt_dir)
    at_work(attempt_dir, process)
    attempt_dir.request_stop(reason)
    process.wait(30)
    assert attempt_dir.read_end().cause == reason
    assert "zsbir.evaluate" not in log_of(attempt_dir)


def test_an_attempt_that_was_asked_to_stop_before_it_began_does_next_to_nothing(attempt, run_here):
    attempt_dir = attempt(Step("ingest", LONG))
    attempt_dir.request_stop("cancelled")
    assert run_here(attempt_dir) == 1
    assert attempt_dir.read_end().cause == "cancelled"


def test_the_command_dies_with_its_attempt_and_no_end_is_written(attempt, started):
    attempt_dir = attempt(Step("ingest", LONG))
    process = started(attempt_dir)
    command = at_work(attempt_dir, process)
    process.kill()
    process.wait()
    psutil.wait_procs([command], timeout=10)
    assert not command.is_running()
    assert attempt_dir.read_end() is None


def test_a_killed_command_is_lost_and_the_message_names_the_signal(attempt, started):
    attempt_dir = attempt(Step("ingest", LONG))
    process = started(attempt_dir)
    command = at_work(attempt_dir, process)
    eventually(lambda: attempt_dir.status("ingest")["progress"].get("done"))
    command.kill()
    process.wait(30)
    assert attempt_dir.read_end().cause == "lost"
    assert attempt_dir.read_end().message == "killed by SIGKILL"


def test_the_second_process_of_one_attempt_does_nothing(attempt, started, tmp_path):
    attempt_dir = attempt(Step("ingest", LONG))
    first = started(attempt_dir)
    at_work(attempt_dir, first)
    who = attempt_dir.claimed_by()
    assert started(attempt_dir).wait(60) == 1
    assert "another process has begun this attempt" in (tmp_path / "out1").read_text()
    assert attempt_dir.read_end() is None
    assert attempt_dir.claimed_by() == who
    assert first.poll() is None


def test_an_attempt_that_was_given_up_does_not_begin(attempt, run_here):
    attempt_dir = attempt(Step("ingest", QUICK))
    attempt_dir.claim_start("given up by a dispatcher")
    assert run_here(attempt_dir) == 1
    assert (attempt_dir.read_end(), attempt_dir.heartbeat_version(), attempt_dir.log(0)) == (None, None, b"")


@pytest.mark.slow
def test_an_attempt_goes_on_while_storage_is_away_and_writes_its_end_when_it_is_back(attempt, started, tmp_path, monkeypatch):
    attempt_dir = attempt(Step("ingest", {**QUICK, "toy_photos_per_class": 10}), root=str(tmp_path / "root"))
    process = started(attempt_dir)
    at_work(attempt_dir, process)
    jobs = tmp_path / "root" / "jobs"
    jobs.rename(tmp_path / "elsewhere")
    jobs.write_bytes(b"")
    eventually(lambda: not psutil.Process(process.pid).children())  # its work is done
    assert process.poll() is None
    jobs.unlink()
    (tmp_path / "elsewhere").rename(jobs)
    assert process.wait(30) == 0
    assert attempt_dir.read_end().cause == "succeeded"
    assert log_of(attempt_dir).splitlines()[-1] == "succeeded"


def test_an_attempt_that_was_taken_for_lost_ends_at_once_with_its_command(attempt, started):
    """Its heartbeats could not be written for a while, and another attempt may be at work."""
    attempt_dir = attempt(Step("ingest", LONG))
    process = started(attempt_dir)
    command = at_work(attempt_dir, process)
    attempt_dir.write_end(End("lost", "it fell silent"))
    assert process.wait(30) == 1
    psutil.wait_procs([command], timeout=10)
    assert not command.is_running()
    assert attempt_dir.read_end() == End("lost", "it fell silent")


def test_what_mlflow_still_lacks_is_delivered_by_a_later_attempt(attempt, monkeypatch, tmp_path):
    """Its training is done, and MLflow is away: a cluster's CPUs are not kept for the delivery."""
    monkeypatch.setattr(runner, "DELIVERY_TRIES", 1)
    monkeypatch.setattr(runner, "DELIVERY_PAUSE_S", 0.0)
    run = str(tmp_path / "run")
    for name in (MANIFEST, UNDELIVERED):
        open_folder(run).create(name, b"{}")
    steps = [Step("pretrain", QUICK), Step("train", {"recipe": "toy", "dataset": str(tmp_path / "none")})]
    for ended in ("busy", "succeeded"):
        one = runner.Attempt(attempt(*steps))
        for step, made in zip(steps, ("weights", run), strict=True):
            runner._StepCache(one.spec["memo"], step.name, step.argv({}, one.spec["root"])).write(made)
        assert one.run().cause == ended
        open_folder(run).delete([UNDELIVERED])


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_a_full_disk_under_rays_own_log_does_not_stop_the_work(attempt):
    attempt_dir = attempt(Step("ingest", QUICK))
    with FULL.open("wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "services.jobs.runs.runner", attempt_dir.uri],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "ZSBIR_PLAIN_LOG": "1"},
            timeout=120,
            check=False,
        )
    assert process.returncode == 0, process.stderr
    assert attempt_dir.read_end().cause == "succeeded", process.stderr
    assert log_of(attempt_dir).splitlines()[-1] == "succeeded"


def test_a_disk_that_is_full_is_the_cause_also_where_the_command_could_not_note_it(attempt, run_here, tmp_path):
    """The command removes what it has written, and the attempt's own signs find room again."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(tmp_path / "disk", 1))
        except PermissionError as reason:
            pytest.skip(str(reason))
        attempt_dir = attempt(Step("ingest", {**QUICK, "toy_photos_per_class": 40, "toy_px": 128}), root=str(disk / "root"))
        assert run_here(attempt_dir) == 1
        end = attempt_dir.read_end()
        assert end.cause == "disk_full"
        assert "No space left on device" in end.message


def answers(monkeypatch, name):
    """Have each step be a command that ends with an error of this class."""
    code = f"from zsbir.base import cli, errors\ndef f(_): raise errors.{name}('no: .655 against .682')\ncli.main(f)"
    monkeypatch.setattr(Step, "command", lambda _step, _argv: [sys.executable, "-c", code])


def test_a_promotion_that_is_declined_has_succeeded_with_the_gates_words_and_the_report(attempt, run_here, monkeypatch):
    answers(monkeypatch, "Declined")
    attempt_dir = attempt(Step("promote", {"report": "/a/report", "index": "/an/index"}))
    assert run_here(attempt_dir) == 0
    end = attempt_dir.read_end()
    assert (end.cause, end.message, end.result) == ("succeeded", "no: .655 against .682", "/a/report")


@pytest.mark.parametrize(("name", "cause"), [("Unreachable", "unreachable"), ("DiskFull", "disk_full"), ("Busy", "busy")])
def test_the_class_of_an_error_is_known_also_where_the_attempts_folder_takes_no_facts(attempt, run_here, monkeypatch, name, cause):
    answers(monkeypatch, name)
    attempt_dir = attempt(Step("evaluate", {"run": "x"}))
    Path(attempt_dir.uri, "evaluate").write_bytes(b"in the way of the folder of facts")
    assert run_here(attempt_dir) == 1
    assert attempt_dir.read_end().cause == cause


def test_an_attempt_works_the_same_in_object_storage(attempt, run_here, s3_root):
    attempt_dir = attempt(Step("ingest", QUICK), root=s3_root)
    assert run_here(attempt_dir) == 0
    assert attempt_dir.read_end().result.startswith(s3_root)
    assert attempt_dir.status("ingest")["progress"]["label"] == "ingest"


@pytest.mark.parametrize(
    ("code", "error", "tail", "cause"),
    [
        (2, "InputError", "", "user_error"),
        (2, "", "usage", "user_error"),
        (2, "DataError", "", "data_error"),
        (1, "Busy", "", "busy"),
        (1, "Unreachable", "", "unreachable"),
        (1, "DiskFull", "", "disk_full"),
        (2, "FieldError", "", "user_error"),
        (1, "RunError", "", "unknown"),
        (1, "", "", "unknown"),
        (130, "KeyboardInterrupt", "", "preempted"),
        (-signal.SIGTERM, "", "", "preempted"),
        (-signal.SIGKILL, "", "", "lost"),
        (-signal.SIGSEGV, "", "", "unknown"),
        (1, "RunError", "torch.OutOfMemoryError: CUDA out of memory.", "out_of_memory"),
        (1, "OutOfMemoryError", "", "out_of_memory"),
        (1, "PermanentError", "error: training has diverged", "user_error"),
        (1, "MemoryError", "", "out_of_memory"),
        (-signal.SIGKILL, "", "Cannot allocate memory", "out_of_memory"),
    ],
)
def test_a_cause_is_read_from_the_error_its_words_and_the_exit_code(code, error, tail, cause):
    assert cause_of(code, error, tail) == cause


def test_heartbeats_come_often_enough_for_the_dispatcher():
    from services.jobs.runs.settings import DispatcherSettings

    assert DispatcherSettings(root="x").patience_s > attempt_dirs.HEARTBEAT_S * 3
