"""The interface to whatever runs attempts: three calls. What an attempt wrote to storage is believed before what these return.

Implementations: `services.jobs.runs.ray_jobs` (an existing Ray cluster) and `services.jobs.runs.kuberay` (Kubernetes: a RayJob for
each attempt, queued by Kueue, so that the cluster's own scheduler decides when it starts).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from services.jobs.queue.resources import Resources
from services.jobs.queue.states import Cause
from zsbir.base.errors import RunError


class Rejected(RunError):  # noqa: N818 - it says what became of the task
    """The executor will never run the task, however often it is asked."""


Status = Literal["unknown", "pending", "running", "ended"]
"""unknown: the executor never had the submission, or has forgotten it."""


class ExecutorUnavailable(RunError):  # noqa: N818 - it says where the executor is
    """The executor does not answer: nothing is known, and the call may or may not have had an effect."""


@dataclass(frozen=True)
class Task:
    """One attempt, as an executor needs to know it.

    attempt_dir: URI of its folder, which holds its specification. name: what people call the job. workers: data-parallel workers
    besides the driver; 0: the attempt is one process. in_one_process: whether this process itself needs the resources; otherwise
    its workers or trials take them. env: nothing secret; credentials belong to the nodes.
    """

    submission_id: str
    attempt_dir: str
    name: str = ""
    project: str = "default"
    priority: int = 0
    workers: int = 0
    resources: Resources = field(default=Resources(cpus=1))
    in_one_process: bool = False
    env: dict[str, str] = field(default_factory=dict)

    @property
    def entrypoint(self) -> list[str]:
        """The command's words. Always the same module: what a user submits is data to it, never a command."""
        return ["python", "-m", "services.jobs.runs.runner", self.attempt_dir]


@dataclass(frozen=True)
class ExecutorStatus:
    """What the executor says of a submission.

    message: in its own words. log: the end of the process's output, where the executor quotes it. cause: why a submission that has
    ended did so, by the executor's account; "lost" where it does not know.
    """

    status: Status
    message: str = ""
    cause: Cause = "lost"
    log: str = ""


class Executor(Protocol):
    """What the dispatcher asks. Each call raises ExecutorUnavailable where the executor does not answer."""

    def start(self, task: Task) -> None:
        """Run a task. A second call with the same submission id changes nothing.

        Rejected where the executor will never run it.
        """

    def get_status(self, submission_id: str) -> ExecutorStatus:
        """Return what the executor says of a submission."""

    def stop(self, submission_id: str) -> None:
        """Send SIGINT, and SIGKILL a while later. Do nothing for a submission that is unknown or has ended."""
