"""What the queue's API answers, as JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from services.common.auth import Role
from services.jobs.queue.limits import Limits
from services.jobs.queue.states import Cause, Kind, State, StopReason


class Score(BaseModel):
    """How good what a job made is. step: the optimiser step of the encoder that is kept; null for an evaluation."""

    value: float
    metric: str
    on: Literal["dev", "unseen"]
    step: int | None


class Needed(BaseModel):
    """A job that must have ended before another starts. on: success, or end for any end."""

    job: int
    on: Literal["success", "end"]


class BestJob(BaseModel):
    """The job of an array with the highest score."""

    id: int
    name: str
    seed: int | None
    score: Score


class Array(BaseModel):
    """Jobs that were submitted together.

    id: the number of its first job. ids: its jobs; of one that was tried again, the newest retry. state: the first of running,
    starting, queued, failed, timed_out, cancelled, succeeded that one of its jobs is in. counts: its jobs by state. frac: the mean
    of their shares done. left_s: seconds until the last job ends; null where it is not known. reason: why the first of those that
    wait does.
    """

    id: int
    name: str
    ids: list[int]
    state: State
    counts: dict[State, int]
    frac: float
    left_s: float | None
    reason: str
    best: BestJob | None


class Summary(BaseModel):
    """A job in a list.

    place, reason: its position in the queue, and why it waits. recipe, seed: of its training; "" and null where it does not train.
    score: the best dev score so far, which is the kept encoder's; once a report is there, its score on unseen classes. array_of:
    the number of the first job of its array. array: in a list of entries (`collapse`), the array for which this job stands.
    """

    id: int
    name: str
    kind: Kind
    recipe: str
    seed: int | None
    score: Score | None
    array_of: int | None
    array: Array | None
    after: list[Needed]
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
    """One attempt at a job."""

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
    """One change: who did what, and when."""

    at_s: float
    actor: str
    what: str
    detail: dict[str, Any]


class Step(BaseModel):
    """One command of a job. made: the URI of its result, when it is known."""

    name: str
    module: str
    made: str
    state: Literal["waiting", "running", "done", "found", "failed", "cancelled", "timed_out"]


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


class Jobs(BaseModel):
    """Jobs in the order that was asked for, each as a list shows it."""

    jobs: list[Summary]


class ArrayDetails(Array):
    """An array with its jobs in order, also those that were tried again."""

    jobs: list[Summary]


class NotCancelled(BaseModel):
    """A job that was not cancelled, and why."""

    id: int
    error: str


class Cancelled(BaseModel):
    """The outcome of cancelling many jobs."""

    cancelled: list[int]
    refused: list[NotCancelled]


class Curve(BaseModel):
    """Metrics by optimiser step of one of a job's commands."""

    rows: list[dict[str, float | None]]
    step_name: str


class QueuedJob(BaseModel):
    """A job that waits for its turn. place: its position in the queue, from 1. reason: why it has not started."""

    id: int
    name: str
    kind: Kind
    project: str
    owner: str
    priority: int
    place: int
    reason: str


class Usage(BaseModel):
    """How many attempts are live, and the CPUs and GPUs that they hold together."""

    running: int
    cpus: float
    gpus: float


class Me(BaseModel):
    """The user who asks. auth: whether the service asks for tokens at all. session: whether the request has a session's cookie.

    search_url: address of the search service's page; empty where there is none.
    """

    name: str
    role: Role
    auth: Literal["tokens", "off"]
    session: bool = False
    search_url: str = ""


class LoginCode(BaseModel):
    """A code that lets one browser in. lasts_s: seconds in which it must be used."""

    code: str
    lasts_s: float


class Opened(BaseModel):
    """A session was opened. lasts_s: for how many seconds."""

    lasts_s: float


class Token(BaseModel):
    """A token, without its text. projects: the only ones for which its bearer may submit; null: it names none."""

    id: int
    name: str
    role: Role
    made_s: float
    revoked_s: float | None
    projects: list[str] | None


class Tokens(BaseModel):
    """All tokens that were ever made."""

    tokens: list[Token]


class MadeToken(BaseModel):
    """A new token's text, which is shown only here."""

    token: str


class Dispatcher(BaseModel):
    """The dispatcher. seen_s_ago: seconds since this process saw its last heartbeat; null before the first one."""

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
    """One change, and the job that it was made to, if any."""

    id: int
    job_id: int | None


class Audit(BaseModel):
    """A page of the audit trail: who changed what, the newest change first."""

    events: list[AuditEvent]


class Health(BaseModel):
    """The answer to a health check where the job store can be read; where it cannot, the check fails."""

    ok: Literal[True] = True
