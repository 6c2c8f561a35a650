"""What users ask of the queue, as values. The API reads bodies and queries into them; the service takes them, from anywhere.

They say what is valid, not what the user may do.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from services.common.auth import ProjectName, Role
from services.jobs.queue.arrays import MOST_JOBS
from services.jobs.queue.dependencies import MOST_NEEDED, After
from services.jobs.queue.records import LATEST_S, MOST_NAME
from services.jobs.queue.resources import MOST
from services.jobs.queue.states import Kind, State
from services.jobs.queue.targets import MOST_TARGETS, Notify
from zsbir.base.config import Config

LARGEST_ID = 2**31 - 1
Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]
FieldPath = Annotated[str, Field(max_length=200, pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?$")]
Values = Annotated[list[str | bool | int | float | None], Field(min_length=1, max_length=MOST_JOBS)]
UnfinishedState = Literal["queued", "starting", "running"]


class Submission(Config, strict=True):
    """A job as a user submits it."""

    kind: Kind = Field(description="what is to be done")
    config: dict[str, Any] = Field({}, description="its arguments, by the schema of its kind: see /api/kinds")
    project: ProjectName = Field("default", description="whose limits and budget it counts for")
    priority: int = Field(0, ge=-100, le=100, description="higher ones first")
    cpus: float | None = Field(None, ge=0, le=MOST, description="CPUs that it holds; none: what its configuration takes")
    gpus: float | None = Field(None, ge=0, le=MOST, description="GPUs that it holds; none: what its configuration takes")
    start_by_s: float | None = Field(None, ge=0, le=LATEST_S, description="seconds since 1970 by which it must have started")
    start_within_s: float | None = Field(None, ge=0, le=LATEST_S, description="the same as seconds from now, by the store's clock")
    time_limit_s: float | None = Field(None, gt=0, le=LATEST_S, description="seconds that an attempt may run")
    name: str = Field(
        "",
        max_length=MOST_NAME,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="what people call it; none: the recipe and what differs",
    )
    each: dict[FieldPath, Values] = Field(
        {},
        max_length=10,
        description="an array: values of fields by their paths (seed; train.seed in a pipeline); every combination is a job",
    )
    after: list[After] = Field([], max_length=MOST_NEEDED, description="jobs that must have ended before it starts")
    notify: list[Notify] = Field([], max_length=MOST_TARGETS, description="targets that are told of its end")


class NewToken(Config, strict=True):
    """The request for a new API token: whose it is, their role, and the projects it is bound to."""

    name: str = Field(min_length=1, max_length=100, description="whose it is: the owner of what they submit")
    role: Role = Field("submitter", description="what the user may do")
    projects: list[ProjectName] = Field(
        [], max_length=100, description="the only projects for which they may submit; none: any, until limits name some"
    )


class LoginCode(Config, strict=True):
    """A code that a browser was given to open a session with."""

    code: str = Field(min_length=1, max_length=200)


class Selection(Config, strict=True):
    """Jobs to cancel: those with these ids, or all unfinished ones of a project, in some states, of an owner."""

    ids: list[Id] = Field([], max_length=1000)
    project: str = Field("", pattern=r"^([a-z0-9][a-z0-9_-]{0,62})?$")
    states: list[UnfinishedState] = Field([], max_length=10)
    owner: str = Field("", max_length=100)


class Filter(Config):
    """Which jobs to list, the newest first. before: an id, for the next page."""

    state: list[State] = Field([], max_length=10)
    kind: Kind | None = None
    project: str = Field("", pattern=r"^([a-z0-9][a-z0-9_-]{0,62})?$")
    owner: str = Field("", max_length=100, pattern=r"^[^\x00]*$")
    before: Id | None = None
    array: Id | None = Field(None, description="only the jobs of this array: the number of its first job")
    collapse: bool = Field(False, description="one entry for each array: its newest job that matches, with `array` in it")
    limit: int = Field(100, ge=1, le=500)
