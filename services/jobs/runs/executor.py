"""The seam to whatever runs jobs: three calls, and no word of it is trusted more than what an attempt left in storage.

Implementations: `services.jobs.runs.ray_jobs` (a Ray cluster that is there), `services.jobs.runs.kuberay` (Kubernetes: a RayJob each, queued
by Kueue, so that a cluster's own scheduler decides where it has one).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from zsbir.base.errors import RunError


class Rejected(RunError):  # noqa: N818 - it says what became of the task
    """The executor will not run it, however often it is asked."""


Status = Literal["unknown", "pending", "running", "ended"]
"""unknown: it has never heard of it, or has forgotten."""


class ExecutorUnavailable(RunError):  # noqa: N818 - it says where the executor is
    """The executor does not answer: nothing is known, and nothing was done for sure."""


@dataclass(frozen=True)
class Task:
    """One attempt, as an executor needs to know it.

    place: URI of its folder, where its specification lies. workers: data-parallel ones besides the driver; 0: it is one process.
    env: nothing secret; credentials belong to the nodes.
    """

    submission_id: str
    place: str
    project: str = "default"
    priority: int = 0
    workers: int = 0
    cpus: float = 1
    gpus: float = 0
    env: dict[str, str] = field(default_factory=dict)

    @property
    def entrypoint(self) -> list[str]:
        """Always the same module: what a user submits is data to it, never a command."""
        return ["python", "-m", "services.jobs.runs.runner", self.place]


@dataclass(frozen=True)
class ExecutorStatus:
    """What the executor says of a submission. message: in its own words."""

    status: Status
    message: str = ""


class Executor(Protocol):
    """Each call raises Away where the executor does not answer."""

    def start(self, task: Task) -> None:
        """Run it, unless it was started before: calling it again with the same submission id changes nothing.

        Refused where it will never run it.
        """

    def look(self, submission_id: str) -> ExecutorStatus:
        """How it is."""

    def stop(self, submission_id: str) -> None:
        """Ask it to end by SIGINT, and end it a while later. Nothing happens to one that is unknown, or has ended."""
