"""Arrays: jobs that were submitted together and are listed as one. Read from the database, and put together for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, FromClause, Select, exists, select

from services.jobs.queue.states import State
from services.jobs.queue.tables import JOBS

MOST_JOBS = 200
"""How many jobs one array may have when it is submitted."""

IN_ORDER: tuple[State, ...] = ("running", "starting", "queued", "failed", "timed_out", "cancelled", "succeeded")
"""The state of an array is the first of these that one of its jobs is in."""


@dataclass(frozen=True)
class Member:
    """A job of an array, as far as a list shows it."""

    id: int
    array_of: int
    name: str
    state: State
    retry_of: int | None
    progress: Mapping[str, Any]
    submitted_s: float
    ended_s: float | None


@dataclass(frozen=True)
class Array:
    """An array. members: its jobs in order; where one was tried again, only the newest retry.

    id: the number of its first job.
    """

    id: int
    name: str
    members: Sequence[Member]

    @property
    def states(self) -> dict[State, int]:
        """How many of its jobs are in each state."""
        counts = Counter(member.state for member in self.members)
        return {state: counts[state] for state in IN_ORDER if state in counts}

    @property
    def state(self) -> State:
        """The state of the whole: the first one of `IN_ORDER` that one of its jobs is in."""
        return next(iter(self.states))


def array_of(members: Iterable[Member]) -> Array:
    """Return the array of these jobs. members: all of them, at least one, in any order."""
    ordered = sorted(members, key=lambda member: member.id)
    retries = {member.retry_of: member for member in ordered if member.retry_of is not None}
    ids = {member.id for member in ordered}
    newest = [member for member in ordered if member.retry_of not in ids]
    while any(member.id in retries for member in newest):
        newest = [retries.get(member.id, member) for member in newest]
    newest = sorted(newest, key=lambda member: member.id)
    return Array(ordered[0].array_of, common_name([member.name for member in newest]), newest)


def common_name(names: Sequence[str]) -> str:
    """Return the words that all names have, in their order: what an array of them is called.

    >>> common_name(["toy seed=0 lr=0.1", "toy seed=1 lr=0.1"])
    'toy lr=0.1'
    """
    shared = set.intersection(*(set(name.split()) for name in names)) if names else set()
    return " ".join(word for word in names[0].split() if word in shared) if names else ""


def read_arrays(database: Connection, ids: Iterable[int]) -> dict[int, Array]:
    """Return the arrays of these ids; those that do not exist are left out."""
    wanted = sorted(set(ids))
    columns = [JOBS.c[name] for name in Member.__dataclass_fields__]
    found: dict[int, list[Member]] = {}
    for row in database.execute(select(*columns).where(JOBS.c.array_of.in_(wanted)).order_by(JOBS.c.id)) if wanted else ():
        found.setdefault(row.array_of, []).append(Member(**row._mapping))
    return {array_id: array_of(members) for array_id, members in found.items()}


def newest_of_each(query: Select[Any], matches: Callable[[FromClause], Any]) -> Select[Any]:
    """Return the query for jobs without those that have a newer one in their array which matches as well.

    matches: the condition that the query itself has, for a table of jobs under any name.
    """
    newer = JOBS.alias("newer")
    is_newer = (newer.c.array_of == JOBS.c.array_of) & (newer.c.id > JOBS.c.id) & matches(newer)
    return query.where(JOBS.c.array_of.is_(None) | ~exists().where(is_newer))
