"""What goes into the store and comes out of it: a job request, and rows as values."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from pydantic import Field, field_validator
from sqlalchemy import Row

from services.common.auth import ProjectName
from services.jobs.queue.dependencies import MOST_NEEDED, After, distinct
from services.jobs.queue.resources import ResourceRequest, Resources
from services.jobs.queue.states import Cause, Kind, State, StopReason

MOST_NAME = 100
"""Characters of a job's name."""

LATEST_S = 1e11
"""The largest point in time and the longest duration that are taken, in seconds: 3000 years."""


class JobRequest(ResourceRequest):
    """A job as it is submitted."""

    kind: Kind = Field(description="what is to be done")
    config: dict[str, Any] = Field({}, description="its arguments, by the schema of its kind")
    project: ProjectName = Field("default", description="whose limits and budget it counts for")
    owner: str = Field("local", min_length=1, max_length=100, description="who submits it")
    priority: int = Field(0, ge=-100, le=100, description="higher ones first")
    start_by_s: float | None = Field(
        None, ge=0, le=LATEST_S, description="seconds since 1970 by which it must have started, else it is given up"
    )
    time_limit_s: float | None = Field(None, gt=0, le=LATEST_S, description="seconds that an attempt may run")
    idempotency_key: str | None = Field(
        None, min_length=1, max_length=200, description="the same key of the same owner: the same job"
    )
    retry_of: int | None = Field(None, description="the job whose work this one goes on with")
    name: str = Field("", max_length=MOST_NAME, description="what people call it")
    array_of: int | None = Field(None, description="the first job of the array that it belongs to")
    after: list[After] = Field([], max_length=MOST_NEEDED, description="the jobs that must have ended before it starts")
    notify: list[Any] = Field([], max_length=100, description="who is told of its end")

    @field_validator("after")
    @classmethod
    def _once(cls, after: list[After]) -> list[After]:
        return distinct(after)


class _FromRow:
    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """Return the value of a row; columns without a field of that name are left out."""
        return cls(**{field.name: row._mapping[field.name] for field in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Job(Resources, _FromRow):
    """A job as the store's table of jobs holds it."""

    id: int
    kind: Kind
    config: dict[str, Any]
    project: str
    owner: str
    priority: int
    state: State
    message: str
    cancelling: bool
    result: str
    progress: dict[str, Any]
    idempotency_key: str | None
    retry_of: int | None
    submitted_s: float
    not_before_s: float
    start_by_s: float | None
    time_limit_s: float | None
    ended_s: float | None
    name: str
    array_of: int | None
    after: list[dict[str, Any]]
    notify: list[Any]
    notified_s: float | None


@dataclass(frozen=True)
class Attempt(_FromRow):
    """An attempt at a job as the store's table of attempts holds it."""

    id: int
    job_id: int
    number: int
    submission_id: str
    claimed_s: float
    started_s: float | None
    ended_s: float | None
    cause: Cause | None
    message: str
    resumed_from: str
    stop_reason: StopReason | None
    stop_asked_s: float | None


@dataclass(frozen=True)
class Lease:
    """The right to dispatch, until another process takes a lease of a higher epoch."""

    holder: str
    epoch: int
    beats: int = 0
