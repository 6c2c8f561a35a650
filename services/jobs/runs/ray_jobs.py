"""The executor on a Ray cluster that is there: each attempt is a Ray job of the attempt's submission id."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import requests
from ray.job_submission import JobStatus, JobSubmissionClient

from services.jobs.runs.executor import ExecutorStatus, ExecutorUnavailable, Rejected, Status, Task

TIMEOUT_S = 15.0
STOP_WAIT_S = 60
"""Seconds between SIGINT and SIGKILL for an attempt that Ray is told to stop: the time for a final checkpoint."""

UNKNOWN = "does not exist"

STATUS: dict[JobStatus, Status] = {
    JobStatus.PENDING: "pending",
    JobStatus.RUNNING: "running",
    JobStatus.SUCCEEDED: "ended",
    JobStatus.FAILED: "ended",
    JobStatus.STOPPED: "ended",
}


class _Client(JobSubmissionClient):  # type: ignore[misc]  # ray has no types for mypy
    """Ray's own client waits for ever for a dashboard that has lost its cluster."""

    def _do_request(self, *args: Any, **kwargs: Any) -> Any:
        return super()._do_request(*args, **{"timeout": TIMEOUT_S, **kwargs})


class RayJobs:
    """Ray's job API at `address` (http://host:8265). A token for it is read by Ray itself (RAY_AUTH_TOKEN_PATH)."""

    def __init__(self, address: str):
        self._address = address
        self._client: _Client | None = None

    def start(self, task: Task) -> None:
        """See Executor. Without a claim on CPUs: the workers that the entrypoint waits for hold them."""
        wanted = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **task.env}
        self._ask(
            lambda client: client.submit_job(
                entrypoint=shlex.join(task.entrypoint),
                submission_id=task.submission_id,
                runtime_env={"env_vars": wanted},
                metadata={"project": task.project, "place": task.place},
            ),
            fine="already exists",
        )

    def look(self, submission_id: str) -> ExecutorStatus:
        """See Executor."""
        info = self._ask(lambda client: client.get_job_info(submission_id), fine=UNKNOWN)
        return ExecutorStatus(STATUS[info.status], info.message or "") if info else ExecutorStatus("unknown")

    def stop(self, submission_id: str) -> None:
        """See Executor."""
        self._ask(lambda client: client.stop_job(submission_id), fine=UNKNOWN)

    def _ask(self, question: Callable[[_Client], Any], fine: str) -> Any:
        """The answer; None for the error that is fine. Refused where Ray refuses, Away for all else that is no answer."""
        try:
            if self._client is None:
                self._client = _Client(self._address)
            return question(self._client)
        except (RuntimeError, ValueError) as error:
            line = _first_line(error)
            if fine in line:
                return None
            if "status code 400" in line:
                raise Rejected(f"Ray refused: {line}") from error
            raise ExecutorUnavailable(f"Ray at {self._address} is not itself: {line}") from error
        except (OSError, requests.exceptions.RequestException) as error:
            self._client = None
            raise ExecutorUnavailable(f"Ray at {self._address} does not answer ({type(error).__name__})") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
