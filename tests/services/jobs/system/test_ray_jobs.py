"""The executor over a real Ray: what the stand-in of the unit tests is held to."""

from __future__ import annotations

import time

import pytest

from services.jobs.runs.executor import ExecutorStatus, Task
from services.jobs.runs.ray_jobs import RayJobs


def ended(executor, submission_id, timeout_s=120):
    end = time.monotonic() + timeout_s
    while (found := executor.get_status(submission_id)).status != "ended":
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found


@pytest.mark.slow
def test_a_job_is_unknown_then_started_once_then_ended_with_rays_words_and_its_log(head, tmp_path):
    executor = RayJobs(head["RAY_API_SERVER_ADDRESS"])
    task = Task(submission_id="zsbir-test-1-a1", attempt_dir=str(tmp_path / "none"))
    assert executor.get_status(task.submission_id) == ExecutorStatus("unknown")
    executor.stop(task.submission_id)
    executor.start(task)
    executor.start(task)
    found = ended(executor, task.submission_id)
    assert (found.message, found.cause) == ("Job entrypoint command failed with exit code 1", "lost")
    assert "FileNotFoundError" in found.log, "there is no specification"
    executor.start(task)
    assert executor.get_status(task.submission_id) == found
