"""When a job is tried again after an attempt that failed, as pure functions of how its attempts have ended.

Most causes are tried a number of times (`services.jobs.queue.states.RETRY_LIMITS`). Outages, of a network or a full disk, are no
fault of the job's and end by themselves: they are waited for by time, with growing pauses in which the job holds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.jobs.queue.states import Cause

BACKOFF_S: Mapping[Cause, float] = {
    "lost": 1.0,
    "node_lost": 1.0,
    "busy": 5.0,
    "out_of_memory": 15.0,
    "unknown": 15.0,
}
"""Seconds before a job is tried again after an attempt ended by each cause; they double with each further one."""

LONGEST_PAUSE_S = 3600.0

OUTAGES: frozenset[Cause] = frozenset({"unreachable", "disk_full"})

OUTAGE_S = 3600.0
FIRST_PAUSE_S = 30.0
OUTAGE_PAUSE_S = 600.0

WORKED_S = 1800.0
"""Seconds of work after which an attempt shows that an outage was over: if it ends by one, that is another.

Longer than a command of this project goes on without its storage: a training works for a quarter of an hour before it gives up.
"""


@dataclass(frozen=True)
class OutagePolicy:
    """How an outage is waited for, in seconds.

    first_pause_s: before the first new attempt; each further pause is twice as long, up to longest_pause_s, which is how long a job
    may go on waiting after the outage is over. give_up_s: from the first attempt that it ended to the last one that it may end.
    """

    first_pause_s: float = FIRST_PAUSE_S
    longest_pause_s: float = OUTAGE_PAUSE_S
    give_up_s: float = OUTAGE_S


@dataclass(frozen=True)
class AttemptEnd:
    """How one attempt ended. ran_s: how long it ran. ended_s: seconds since 1970 by the store's clock."""

    cause: Cause
    ran_s: float
    ended_s: float


@dataclass(frozen=True)
class Retry:
    """What follows from the last end. pause_s: before the next attempt. gives_up: the outage has lasted too long, outage_s."""

    pause_s: float
    gives_up: bool = False
    outage_s: float = 0.0


def retry_after(ends: Sequence[AttemptEnd], outages: OutagePolicy = OutagePolicy()) -> Retry:
    """Return what follows from the last of a job's ends, given all of them in order."""
    last = ends[-1]
    if last.cause not in OUTAGES:
        count = sum(each.cause == last.cause for each in ends)
        return Retry(min(LONGEST_PAUSE_S, _doubled(BACKOFF_S.get(last.cause, 0.0), count)))
    series = _outage(ends)
    lasted_s = last.ended_s - series[0].ended_s
    left_s = outages.give_up_s - lasted_s
    if left_s <= 0:
        return Retry(0.0, gives_up=True, outage_s=lasted_s)
    return Retry(min(outages.longest_pause_s, left_s, _doubled(outages.first_pause_s, len(series))), outage_s=lasted_s)


def _outage(ends: Sequence[AttemptEnd]) -> list[AttemptEnd]:
    """Return the ends by the outage that is under way, the first one first.

    Both causes are one outage where they alternate. An attempt that its cluster preempts or loses meanwhile does not end the
    outage, and is not a part of it.
    """
    series: list[AttemptEnd] = []
    for each in reversed(ends):
        if each.cause in OUTAGES:
            series.append(each)
        elif each.cause not in ("preempted", "node_lost", "lost", "busy"):
            break
        if each.ran_s >= WORKED_S:
            break
    return series[::-1]


def _doubled(first_s: float, count: int) -> float:
    return float(first_s * 2 ** min(count - 1, 20))
