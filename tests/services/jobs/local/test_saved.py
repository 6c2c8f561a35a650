"""What `down` says of jobs that were running: read from what their attempts left in storage."""

from __future__ import annotations

import json

import pytest

from services.jobs.local.saved import saved_line
from services.jobs.runs.attempt_dir import AttemptDir, End, attempt_dir_of
from zsbir.base.draft import draft
from zsbir.base.files import write_atomic
from zsbir.base.layout import checkpoints_uri
from zsbir.base.storage import join

ON = "; it goes on with the next `up`"


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "root")


@pytest.fixture
def attempt(root) -> AttemptDir:
    """An attempt at job 3, a pipeline that trains."""
    attempt_dir = attempt_dir_of(root, "zsbir-test-3-a1")
    attempt_dir.write_spec({"job": 3, "steps": [{"name": "teacher"}, {"name": "train"}]})
    return attempt_dir


def trains(attempt: AttemptDir, run: str) -> None:
    attempt._folder.sub("train").replace("driver.json", json.dumps({"facts": {"run": run}}).encode())


def checkpoint(run: str, step: int) -> str:
    uri = join(checkpoints_uri(run), f"step-{step:06d}")
    with draft(uri, "checkpoint", f"step-{step:06d}", quiet=True) as work:
        write_atomic(work.file("progress.json"), b"{}")
        work.commit(digest="0" * 64, counts={"step": step})
    return uri


def test_a_training_has_saved_its_newest_checkpoint(root, attempt):
    run = join(root, "runs", "toy-0123")
    trains(attempt, run)
    assert saved_line(attempt, root) == f"job 3 (teacher, train) had no checkpoint yet of {run}{ON}"
    checkpoint(run, 40)
    newest = checkpoint(run, 120)
    attempt.write_end(End("preempted", "checkpoint of step 120 saved"))
    assert saved_line(attempt, root) == f"job 3 (teacher, train) has saved step 120: {newest}{ON}"


def test_of_what_saves_no_checkpoints_the_finished_steps_are_named(root, attempt):
    assert saved_line(attempt, root) == f"job 3 (teacher, train) had no training under way; done: nothing yet{ON}"
    attempt.write_results({"teacher": join(root, "knowledge", "a", "b")})
    assert saved_line(attempt, root) == f"job 3 (teacher, train) had no training under way; done: teacher{ON}"


def test_a_finished_training_is_not_under_way(root, attempt):
    run = join(root, "runs", "toy-0123")
    trains(attempt, run)
    checkpoint(run, 40)
    attempt.write_results({"teacher": "t", "train": run})
    assert saved_line(attempt, root) == f"job 3 (teacher, train) had no training under way; done: teacher, train{ON}"


@pytest.mark.parametrize(
    ("end", "line"),
    [
        (End("succeeded", result="r"), "job 3 (teacher, train) finished meanwhile: r"),
        (End("user_error", "lr is too large"), "job 3 (teacher, train) ended meanwhile (user_error): lr is too large"),
    ],
)
def test_a_job_that_ended_by_itself_does_not_go_on(root, attempt, end, line):
    attempt.write_end(end)
    assert saved_line(attempt, root) == line


@pytest.mark.parametrize("run", ["/etc", "/etc/runs", "/elsewhere/runs/..", "s3://other/runs/a/b/c", "runs", 7, ["runs/x"]])
def test_an_address_that_is_none_of_a_run_is_not_opened(root, attempt, run):
    trains(attempt, run)
    line = saved_line(attempt, root)
    assert "goes on with the next `up`" in line
    assert "has saved step" not in line


def test_what_cannot_be_read_is_said_and_stops_nothing(root):
    attempt_dir = attempt_dir_of(root, "zsbir-test-4-a1")
    assert saved_line(attempt_dir, root).startswith(f"{attempt_dir.uri}: cannot tell what it has saved (")
    attempt_dir._folder.replace("spec.json", b"[]")
    assert "its job goes on" in saved_line(attempt_dir, root)


def test_a_job_is_called_by_its_name(root, attempt):
    attempt._folder.replace("spec.json", json.dumps({**attempt.spec(), "name": "two seeds\x1b[31m"}).encode())
    assert saved_line(attempt, root).startswith(r"job 3 (two seeds\x1b[31m) had no training under way")
