"""Whose turn it is, and why it is not yet the others': one pure function, for the dispatcher's claims and for people who ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from zsbir.base.config import Config

MOST = 1_000_000
"""No cluster has more of anything: what is larger is a slip of the pen."""

ProjectName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class ProjectLimits(Config, strict=True):
    """What one project may use at a time, and altogether."""

    cpus: float | None = Field(None, ge=0, le=MOST, description="CPUs at a time; none: no limit of its own")
    gpus: float | None = Field(None, ge=0, le=MOST, description="GPUs at a time; none: no limit of its own")
    gpu_hours: float | None = Field(None, ge=0, le=MOST, description="GPU-hours altogether; none: no budget")


class Limits(Config, strict=True):
    """What the queue may use at a time."""

    running: int = Field(2, ge=0, le=MOST, description="attempts at a time")
    cpus: float | None = Field(None, ge=0, le=MOST, description="CPUs at a time; none: as many as the attempts take")
    gpus: float | None = Field(None, ge=0, le=MOST, description="GPUs at a time; none: as many as the attempts take")
    projects: dict[ProjectName, ProjectLimits] = Field(
        {}, description="limits of projects, by name", json_schema_extra={"additionalProperties": False}
    )


@dataclass(frozen=True)
class WaitingJob:
    """A queued job, as far as its turn depends on it, or a line shows it."""

    id: int
    project: str
    cpus: float
    gpus: float
    not_before_s: float = 0.0
    kind: str = ""
    owner: str = ""
    priority: int = 0


@dataclass
class Usage:
    """What live attempts hold: jobs by id, CPUs and GPUs; and GPU-hours spent so far, by project."""

    jobs: list[int] = field(default_factory=list)
    cpus: float = 0.0
    gpus: float = 0.0
    gpu_hours: float = 0.0

    def take(self, job: WaitingJob) -> None:
        """Count a job in."""
        self.jobs.append(job.id)
        self.cpus += job.cpus
        self.gpus += job.gpus


@dataclass(frozen=True)
class Turn:
    """What becomes of a queued job now. place: in line, from 1. reason: why it waits; empty where it may start.

    blocks: it waits for room that everybody shares, and so does everybody behind it.
    """

    job: WaitingJob
    place: int
    reason: str = ""
    blocks: bool = False


def turns(
    queue: Sequence[WaitingJob], live: Iterable[WaitingJob], spent: dict[str, float], limits: Limits, *, now_s: float
) -> list[Turn]:
    """The turn of each queued job. queue: by priority, then first come. spent: GPU-hours by project.

    A job that its project's limits hold back is passed over, and so is one that asks for more than there is. One that waits for
    room everybody shares is not: else a large job would wait for ever behind small ones that slip past it (this project's choice).
    """
    everybody = Usage()
    projects: dict[str, Usage] = {}
    for job in live:
        everybody.take(job)
        projects.setdefault(job.project, Usage()).take(job)
    found: list[Turn] = []
    blocked_by = 0
    for place, job in enumerate(queue, start=1):
        mine = projects.setdefault(job.project, Usage())
        mine.gpu_hours = spent.get(job.project, 0.0)
        reason, blocks = _own_reason(job, mine, limits, now_s), False
        if not reason and blocked_by:
            reason = f"job {blocked_by} is first in line, and waits for room"
        elif not reason:
            reason = _shared_reason(job, everybody, limits)
            blocks = bool(reason)
            blocked_by = job.id if blocks else 0
        if not reason:
            everybody.take(job)
            mine.take(job)
        found.append(Turn(job, place, reason, blocks))
    return found


def _own_reason(job: WaitingJob, mine: Usage, limits: Limits, now_s: float) -> str:
    """What holds back this job, or its project, alone."""
    if job.not_before_s > now_s:
        return f"tried again in {job.not_before_s - now_s:.0f} s"
    own = limits.projects.get(job.project, ProjectLimits())
    if own.gpu_hours is not None and job.gpus and mine.gpu_hours >= own.gpu_hours:
        return f"project {job.project} has spent {mine.gpu_hours:.1f} of its {own.gpu_hours:g} GPU-hours"
    for name, limit, used, asked in (("CPUs", own.cpus, mine.cpus, job.cpus), ("GPUs", own.gpus, mine.gpus, job.gpus)):
        if limit is not None and asked > limit:
            return f"asks for {asked:g} {name}, project {job.project} may use {limit:g}"
        if limit is not None and used + asked > limit:
            return f"{used:g} of {limit:g} {name} of project {job.project} are in use by {_named(mine.jobs)}"
    for name, limit, asked in (("CPUs", limits.cpus, job.cpus), ("GPUs", limits.gpus, job.gpus)):
        if limit is not None and asked > limit:
            return f"asks for {asked:g} {name}, the queue may use {limit:g}"
    return ""


def _shared_reason(job: WaitingJob, used: Usage, limits: Limits) -> str:
    """What holds back everybody."""
    if len(used.jobs) >= limits.running:
        return f"{len(used.jobs)} of {limits.running} jobs are running: {_named(used.jobs)}"
    for name, limit, taken, asked in (("CPUs", limits.cpus, used.cpus, job.cpus), ("GPUs", limits.gpus, used.gpus, job.gpus)):
        if limit is not None and taken + asked > limit:
            return f"asks for {asked:g} {name}; {taken:g} of {limit:g} are in use by {_named(used.jobs)}"
    return ""


def _named(jobs: Sequence[int]) -> str:
    names = ", ".join(str(job) for job in jobs[:3]) + (f" and {len(jobs) - 3} more" if len(jobs) > 3 else "")
    return f"job{'s' if len(jobs) > 1 else ''} {names}" if jobs else "nobody"
