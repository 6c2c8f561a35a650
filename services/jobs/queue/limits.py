"""Whose turn it is and why the others wait, as one pure function: the dispatcher claims by it, and people are answered by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from services.common.auth import ProjectName
from services.jobs.queue.dependencies import waits_for
from services.jobs.queue.resources import LABELS, MOST, ResourceLimits, Resources
from services.jobs.queue.states import State


class ProjectLimits(ResourceLimits, strict=True):
    """What one project may use at a time, and in total."""

    gpu_hours: float | None = Field(None, ge=0, le=MOST, description="GPU-hours in total; none: no budget")


class Limits(ResourceLimits, strict=True):
    """What the queue may use at a time."""

    running: int = Field(2, ge=0, le=MOST, description="attempts at a time")
    projects: dict[ProjectName, ProjectLimits] = Field(
        {}, description="limits of projects, by name", json_schema_extra={"additionalProperties": False}
    )

    def count_gpus(self, project: str) -> bool:
        """Return whether the GPUs of a project's jobs are limited, by the queue or by the project."""
        own = self.projects.get(project, ProjectLimits())
        return any(limit is not None for limit in (self.gpus, own.gpus, own.gpu_hours))


@dataclass(frozen=True, kw_only=True)
class WaitingJob(Resources):
    """A queued job, as far as its turn depends on it or a list of the queue shows it."""

    id: int
    project: str
    not_before_s: float = 0.0
    kind: str = ""
    owner: str = ""
    priority: int = 0
    name: str = ""
    after: Sequence[Mapping[str, Any]] = ()


@dataclass
class Usage:
    """The jobs that hold resources, what they hold together by the resource's field name, and GPU-hours spent so far."""

    jobs: list[int] = field(default_factory=list)
    held: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LABELS, 0.0))
    gpu_hours: float = 0.0

    def add(self, job: WaitingJob) -> None:
        """Add a job, and the resources that it holds, to this usage."""
        self.jobs.append(job.id)
        for name in LABELS:
            self.held[name] += job.amount(name)

    def names(self) -> str:
        """Return the first few jobs as messages name them."""
        more = f" and {len(self.jobs) - 3} more" if len(self.jobs) > 3 else ""
        return f"job{'s' if len(self.jobs) > 1 else ''} {', '.join(map(str, self.jobs[:3]))}{more}" if self.jobs else "nobody"


@dataclass(frozen=True)
class Turn:
    """What becomes of a queued job now. position: in the queue, from 1. reason: why it waits; empty where it may start.

    blocks: it waits for resources that everybody shares, and so does every job behind it.
    """

    job: WaitingJob
    position: int
    reason: str = ""
    blocks: bool = False


def turns(
    queue: Sequence[WaitingJob],
    live: Iterable[WaitingJob],
    spent: dict[str, float],
    limits: Limits,
    *,
    now_s: float,
    states: Mapping[int, State] | None = None,
) -> list[Turn]:
    """Return the turn of each queued job. queue: by priority, then first come. spent: GPU-hours by project.

    states: those of the jobs that others wait for, as `services.jobs.queue.needs.states_of` reads them.

    A job that waits for the end of another one is passed over, and so is one that its project's limits hold back, or that asks for
    more than there is. A job that waits for shared resources is not passed over: otherwise a large job would wait forever behind
    small ones (this project's choice).
    """
    everybody = Usage()
    projects: dict[str, Usage] = {}
    for job in live:
        everybody.add(job)
        projects.setdefault(job.project, Usage()).add(job)
    found: list[Turn] = []
    blocked_by = 0
    for position, job in enumerate(queue, start=1):
        own = projects.setdefault(job.project, Usage())
        own.gpu_hours = spent.get(job.project, 0.0)
        reason, blocks = waits_for(job.after, states or {}) or _own_reason(job, own, limits, now_s), False
        if not reason and blocked_by:
            reason = f"job {blocked_by} is first in line, and waits for room"
        elif not reason:
            reason = _shared_reason(job, everybody, limits)
            blocks = bool(reason)
            blocked_by = job.id if blocks else 0
        if not reason:
            everybody.add(job)
            own.add(job)
        found.append(Turn(job, position, reason, blocks))
    return found


def _own_reason(job: WaitingJob, own: Usage, limits: Limits, now_s: float) -> str:
    """Return what holds back this job or its project, and nobody else; empty for nothing."""
    if job.not_before_s > now_s:
        return f"tried again in {job.not_before_s - now_s:.0f} s"
    if reason := beyond_limits(job, job.project, limits):
        return reason
    project = limits.projects.get(job.project, ProjectLimits())
    if project.gpu_hours is not None and job.gpus and own.gpu_hours >= project.gpu_hours:
        return f"project {job.project} has spent {own.gpu_hours:.1f} of its {project.gpu_hours:g} GPU-hours"
    for name, limit in project.limits().items():
        asked, held = job.amount(name), own.held[name]
        if held + asked > limit:
            return f"{held:g} of {limit:g} {LABELS[name]} of project {job.project} are in use by {own.names()}"
    return ""


def beyond_limits(resources: Resources, project: str, limits: Limits) -> str:
    """Return why a job of a project can never start under these limits, whatever else runs; empty where it can."""
    own = limits.projects.get(project, ProjectLimits()).limits()
    for whose, allowed in ((f"project {project}", own), ("the queue", limits.limits())):
        for name, limit in allowed.items():
            if resources.amount(name) > limit:
                return f"asks for {resources.amount(name):g} {LABELS[name]}, {whose} may use {limit:g}"
    return ""


def _shared_reason(job: WaitingJob, everybody: Usage, limits: Limits) -> str:
    """Return what holds back this job and everybody behind it; empty for nothing."""
    if len(everybody.jobs) >= limits.running:
        return f"{len(everybody.jobs)} of {limits.running} jobs are running: {everybody.names()}"
    for name, limit in limits.limits().items():
        asked, held = job.amount(name), everybody.held[name]
        if held + asked > limit:
            return f"asks for {asked:g} {LABELS[name]}; {held:g} of {limit:g} are in use by {everybody.names()}"
    return ""
