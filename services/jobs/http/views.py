"""What the service answers, as plain values: a job with all that belongs to it, the queue as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from services.jobs.queue.arrays import Array
from services.jobs.queue.limits import Limits, Turn, Usage
from services.jobs.queue.records import Attempt, Job

StepState = Literal["waiting", "running", "done", "found", "failed", "cancelled", "timed_out"]
"""found: its result was there already, and nothing was made. cancelled, timed_out: the job ended so while it was at this step."""


@dataclass(frozen=True)
class Score:
    """How good what a job made is. metric: such as map_all. on: the dev classes, or the unseen ones of an evaluation.

    step: the optimiser step of the encoder that is kept; None for an evaluation.
    """

    value: float
    metric: str
    on: Literal["dev", "unseen"]
    step: int | None


@dataclass(frozen=True)
class ArrayView:
    """An array and where it stands. best: the job of the highest score, and that score. reason: why its first waiting job waits."""

    array: Array
    best: tuple[Job, Score] | None
    frac: float
    left_s: float | None
    reason: str


@dataclass(frozen=True)
class JobView:
    """A job and where it stands. position, reason: its place in the queue from 1, and why it waits; None and "" if it does not.

    attempts: how many there were. started_s: when the first of them started, in seconds since 1970. recipe, seed: of its training;
    "" and None where it does not train. array: in a list of entries, the array that this job stands for.
    """

    job: Job
    attempts: int
    started_s: float | None
    position: int | None
    reason: str
    recipe: str = ""
    seed: int | None = None
    score: Score | None = None
    array: ArrayView | None = None


@dataclass(frozen=True)
class JobPage:
    """Some jobs, the newest first, and the `before` of the next page, if there is one."""

    jobs: Sequence[JobView]
    next: int | None


@dataclass(frozen=True)
class StepView:
    """One command of a job. made: the URI of its result; empty as long as it is not known."""

    name: str
    module: str
    made: str
    state: StepState


@dataclass(frozen=True)
class JobDetails:
    """All that is known of a job. links: addresses in MLflow, by name. pictures: their names, for `picture`."""

    view: JobView
    attempts: Sequence[Attempt]
    events: Sequence[Mapping[str, Any]]
    steps: Sequence[StepView]
    links: Mapping[str, str]
    pictures: Sequence[str]


@dataclass(frozen=True)
class LogPart:
    """A piece of an attempt's log. next: the offset behind it. end: there will be no more. attempt: 0 if there was none yet."""

    text: str
    next: int
    end: bool
    attempt: int


@dataclass(frozen=True)
class Curve:
    """Metrics by optimiser step of one of a job's commands; no rows where there are none yet."""

    rows: Sequence[Mapping[str, float | None]]
    step_name: str


@dataclass(frozen=True)
class Cancellations:
    """The outcome of cancelling many jobs: the ids of those cancelled, and the error of each other one by its id."""

    cancelled: Sequence[int]
    refused: Mapping[int, str]


@dataclass(frozen=True)
class QueueView:
    """The queue as a whole. counts: jobs by state. turns: the queued jobs in order."""

    limits: Limits
    usage: Usage
    counts: Mapping[str, int]
    turns: Sequence[Turn]
