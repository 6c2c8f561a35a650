"""What people send to the queue and what it answers, as JSON: the API's models. They say what is valid, not what may be done."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from services.jobs.queue.limits import Limits
from services.jobs.queue.states import Cause, Kind, Role, State, StopReason
from zsbir.base.config import Config

LARGEST_ID = 2**31 - 1
MOST = 10**6
"""CPUs or GPUs that a job can ask for: more is a slip, and sums of them stay finite."""

LATEST_S = 1e11
Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]
UnfinishedState = Literal["queued", "starting", "running"]


class Submission(Config):
    """A job as it is asked for."""

    kind: Kind = Field(description="what is to be done")
    config: dict[str, Any] = Field({}, description="its arguments, by the schema of its kind: see /api/kinds")
    project: str = Field("default", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="whose limits and budget it counts for")
    priority: int = Field(0, ge=-100, le=100, description="higher ones first")
    cpus: float | None = Field(None, ge=0, le=MOST, description="CPUs that it holds; none: what its configuration takes")
    gpus: float | None = Field(None, ge=0, le=MOST, description="GPUs that it holds; none: what its configuration takes")
    start_by_s: float | None = Field(None, ge=0, le=LATEST_S, description="seconds since 1970 by which it must have started")
    time_limit_s: float | None = Field(None, gt=0, le=LATEST_S, description="seconds that an attempt may run")


class Selection(Config):
    """Jobs to cancel: these ids, or all that have not ended of a project, of some states, of an owner."""

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
    limit: int = Field(100, ge=1, le=500)


class Summary(BaseModel):
    """A job in a list. place, reason: where it stands in line, and why it waits."""

    id: int
    kind: Kind
    project: str
    owner: str
    priority: int
    state: State
    message: str
    cancelling: bool
    result: str
    progress: dict[str, Any]
    cpus: float
    gpus: float
    retry_of: int | None
    submitted_s: float
    not_before_s: float
    start_by_s: float | None
    time_limit_s: float | None
    started_s: float | None
    ended_s: float | None
    place: int | None
    reason: str
    attempts: int


class AttemptMade(BaseModel):
    """One try."""

    number: int
    submission_id: str
    claimed_s: float
    started_s: float | None
    ended_s: float | None
    cause: Cause | None
    message: str
    resumed_from: str
    stop_reason: StopReason | None


class Event(BaseModel):
    """Who did what."""

    at_s: float
    actor: str
    what: str
    detail: dict[str, Any]


class Step(BaseModel):
    """One command of a job. made: the URI of its result, when it is known."""

    name: str
    module: str
    made: str
    state: Literal["waiting", "running", "done", "failed"]


class Picture(BaseModel):
    """An image of what a job made."""

    name: str
    title: str
    url: str


class Explained(Summary):
    """All that is known of a job."""

    config: dict[str, Any]
    attempts_made: list[AttemptMade]
    events: list[Event]
    steps: list[Step]
    links: dict[str, str]
    pictures: list[Picture]


class Page(BaseModel):
    """Some jobs, and the `before` of the next page, if there is one."""

    jobs: list[Summary]
    next: int | None


class NotCancelled(BaseModel):
    """A job that was not cancelled, and why."""

    id: int
    error: str


class Cancelled(BaseModel):
    """What became of a bulk cancellation."""

    cancelled: list[int]
    refused: list[NotCancelled]


class Curve(BaseModel):
    """Metrics by optimiser step of one of a job's commands."""

    rows: list[dict[str, float | None]]
    step_name: str


class QueuedJob(BaseModel):
    """A queued job."""

    id: int
    kind: Kind
    project: str
    owner: str
    priority: int
    place: int
    reason: str


class Usage(BaseModel):
    """What live attempts hold."""

    running: int
    cpus: float
    gpus: float


class Error(BaseModel):
    """What was wrong, with which value, and the way out."""

    error: str


class Me(BaseModel):
    """Who asks."""

    name: str
    role: Role
    auth: Literal["tokens", "off"]


class Dispatcher(BaseModel):
    """Who dispatches. seen_s_ago: since its beats moved before the eyes of this process; null when they have not yet."""

    holder: str
    epoch: int
    alive: bool
    seen_s_ago: float | None


class Queue(BaseModel):
    """The queue as a whole."""

    limits: Limits
    usage: Usage
    counts: dict[State, int]
    line: list[QueuedJob]
    dispatcher: Dispatcher


class AuditEvent(Event):
    """Who did what, to which job if to one."""

    id: int
    job_id: int | None


class Audit(BaseModel):
    """The newest events first."""

    events: list[AuditEvent]


class Health(BaseModel):
    """The store answers."""

    ok: Literal[True] = True
