"""The executor on an existing Ray cluster: each attempt is a Ray job with the attempt's submission id."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobErrorType, JobStatus, JobSubmissionClient

from services.jobs.queue.states import Cause
from services.jobs.runs.executor import ExecutorStatus, ExecutorUnavailable, Rejected, Status, Task
from services.jobs.runs.ray_messages import cause_of, split_log

TIMEOUT_S = 15.0
STOP_WAIT_S = 60
"""Seconds between SIGINT and SIGKILL for an attempt that Ray is told to stop: the time for a final checkpoint."""

HEAD = "node:__internal_head__"
"""Ray's resource of which a cluster's head has one unit, and no other node any."""
DRIVER_SHARE = 0.001

STATUS: dict[JobStatus, Status] = {
    JobStatus.PENDING: "pending",
    JobStatus.RUNNING: "running",
    JobStatus.SUCCEEDED: "ended",
    JobStatus.FAILED: "ended",
    JobStatus.STOPPED: "ended",
}

CAUSES: dict[JobErrorType | None, Cause | None] = {
    JobErrorType.JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE: "node_lost",  # the head, where Ray pins it, is not there any more
    JobErrorType.JOB_SUPERVISOR_ACTOR_DIED: None,
    JobErrorType.JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE: None,
}
"""What Ray's error types say of the cause. None: the message alone tells. With any other one the attempt is lost."""

Answer = TypeVar("Answer")


class _HttpError(Exception):
    """Ray's dashboard has answered a request with an error."""

    def __init__(self, status: int, text: str):
        super().__init__(f"{status}: {(text.strip().splitlines() or ['no message'])[0][:300]}")
        self.status = status


class _Client(JobSubmissionClient):  # type: ignore[misc]  # ray has no types for mypy
    """Ray's client, with a time limit and HTTP status codes: Ray's own waits forever for a dashboard without a cluster."""

    def _do_request(self, *args: Any, **kwargs: Any) -> Any:
        return super()._do_request(*args, **{"timeout": TIMEOUT_S, **kwargs})

    def _raise_error(self, r: requests.Response) -> NoReturn:
        raise _HttpError(r.status_code, r.text)


class RayJobs:
    """Ray's job API at `address` (http://host:8265). Ray reads its token by itself (RAY_AUTH_TOKEN_PATH)."""

    def __init__(self, address: str):
        self._address = address
        self._client: _Client | None = None

    def start(self, task: Task) -> None:
        """Submit a job; see Executor."""
        env = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **task.env}
        try:
            self._ask(
                lambda client: client.submit_job(
                    entrypoint=shlex.join(task.entrypoint),
                    submission_id=task.submission_id,
                    runtime_env={"env_vars": env},
                    metadata={"name": task.name, "project": task.project, "place": task.attempt_dir},
                    **_entrypoint_resources(task),
                )
            )
        except _HttpError as error:
            # No status code says that Ray has this submission id already.
            if self._details(task.submission_id) is not None:
                return
            if error.status == HTTPStatus.BAD_REQUEST:
                raise Rejected(f"Ray refused: {error}") from error
            raise self._unavailable(error) from error

    def get_status(self, submission_id: str) -> ExecutorStatus:
        """Return a job's status; see Executor."""
        details = self._details(submission_id)
        return status_of(details) if details else ExecutorStatus("unknown")

    def stop(self, submission_id: str) -> None:
        """Stop a job; see Executor."""
        self._ask_if_known(lambda client: client.stop_job(submission_id))

    def _details(self, submission_id: str) -> JobDetails | None:
        return self._ask_if_known(lambda client: client.get_job_info(submission_id))

    def _ask_if_known(self, question: Callable[[_Client], Answer]) -> Answer | None:
        """Return Ray's answer; None where Ray does not know the job.

        A proxy in front of a dashboard that is away answers 404 as well. So Ray's own words must be in it.
        """
        try:
            return self._ask(question)
        except _HttpError as error:
            if error.status == HTTPStatus.NOT_FOUND and "does not exist" in str(error):
                return None
            raise self._unavailable(error) from error

    def _ask(self, question: Callable[[_Client], Answer]) -> Answer:
        """Return Ray's answer. _HttpError for one that is an error, ExecutorUnavailable for none."""
        try:
            if self._client is None:
                self._client = _Client(self._address)
            return question(self._client)
        except (OSError, requests.exceptions.RequestException) as error:
            self._client = None
            raise ExecutorUnavailable(f"Ray at {self._address} does not answer ({type(error).__name__})") from error
        except (RuntimeError, ValueError, AuthenticationError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> ExecutorUnavailable:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        return ExecutorUnavailable(f"Ray at {self._address} cannot answer: {line}")


def _entrypoint_resources(task: Task) -> dict[str, Any]:
    """Return what Ray reserves for the process of an attempt, which decides on which node it runs.

    One that computes by itself reserves all that its job holds, so that it runs where a GPU is. One that drives workers must leave
    them every CPU, or the two would wait for each other on a small machine. It stays on the head, which a lost worker does not take
    along; its share there is only counted.
    """
    if not task.in_one_process:
        return {"entrypoint_resources": {HEAD: DRIVER_SHARE}}
    gpus = task.resources.gpus
    return {"entrypoint_num_cpus": task.resources.cpus, **({"entrypoint_num_gpus": gpus} if gpus else {})}


def status_of(details: JobDetails) -> ExecutorStatus:
    """Return what Ray's own fields say of a job."""
    message, log = split_log(details.message or "")
    cause = CAUSES.get(details.error_type, "lost") or cause_of(message)
    return ExecutorStatus(STATUS[details.status], message, cause, log)
