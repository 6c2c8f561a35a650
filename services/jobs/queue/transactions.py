"""What every change of the job store is made of: transactions, its clock, the lease, locked rows, and notes of who did what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    select,
    update,
)

from services.common.database import Database, now_in
from services.common.tokens import write_note
from services.jobs.queue.records import Attempt, Job, Lease
from services.jobs.queue.retries import AttemptEnd
from services.jobs.queue.states import TERMINAL, TRANSITIONS, State
from services.jobs.queue.tables import ATTEMPTS, JOBS, LEASE
from zsbir.base.errors import InputError, RunError

LEASE_NAME = "dispatcher"


class StaleLease(RunError):  # noqa: N818 - it says what the lease is
    """Another dispatcher has taken over, and nothing was changed."""


class Transactions:
    """Transactions in the database of the jobs, their attempts and the dispatcher's lease.

    clock: seconds since 1970, for tests. None: the one clock that all of the store's users share: PostgreSQL's own; with SQLite,
    whose users are processes of one machine, that machine's.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] | None = None):
        self.url, self._clock = url, clock
        self._database = Database(url)
        self.engine, self.reading, self.writing = self._database.engine, self._database.reading, self._database.writing

    def now(self) -> float:
        """Return the time by the store's clock, in seconds since 1970."""
        with self.reading() as database:
            return self.time_in(database)

    def time_in(self, database: Connection) -> float:
        """Return the time by the store's clock, in seconds since 1970, within a transaction.

        Not the time at which the transaction began: it may have waited for another writer since.
        """
        if self._clock is not None:
            return self._clock()
        return now_in(database)

    @contextmanager
    def _holding_lease(self, lease: Lease) -> Iterator[Connection]:
        """Open a transaction that locks the lease's row: no other dispatcher can take over, or write, meanwhile."""
        with self.writing() as database:
            own = (LEASE.c.name == LEASE_NAME) & (LEASE.c.epoch == lease.epoch) & (LEASE.c.holder == lease.holder)
            if database.execute(select(LEASE.c.epoch).where(own).with_for_update()).one_or_none() is None:
                raise StaleLease(f"another dispatcher has taken over from {lease.holder} (epoch {lease.epoch})")
            yield database

    def _lock_job(self, database: Connection, job_id: int) -> Job:
        return self._fetch_job(database, select(JOBS).where(JOBS.c.id == job_id).with_for_update(), job_id)

    def _fetch_job(self, database: Connection, query: Select[Any], job_id: int) -> Job:
        row = database.execute(query).one_or_none()
        if row is None:
            raise InputError(f"there is no job {job_id}; see python -m services.jobs list")
        return Job.of(row)

    def _set_state(self, database: Connection, job: Job, state: State, **changes: Any) -> None:
        """Change a job's state. Nothing else does."""
        assert state in TRANSITIONS[job.state], f"job {job.id}: {job.state} to {state}"
        ended = {"ended_s": self.time_in(database)} if state in TERMINAL else {}
        same = (JOBS.c.id == job.id) & (JOBS.c.state == job.state)
        done = database.execute(update(JOBS).where(same).values(state=state, **{**ended, **changes}))
        assert done.rowcount == 1, f"job {job.id} was {job.state} when it was locked, and is not now"

    def _fetch_attempt(self, database: Connection, attempt: Attempt) -> Attempt:
        return Attempt.of(database.execute(select(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id)).one())

    def _ends(self, database: Connection, job_id: int) -> list[AttemptEnd]:
        """Return how a job's attempts have ended, the first one first."""
        own = (ATTEMPTS.c.job_id == job_id) & ATTEMPTS.c.ended_s.is_not(None)
        rows = database.execute(select(ATTEMPTS).where(own).order_by(ATTEMPTS.c.number))
        return [AttemptEnd(row.cause, row.ended_s - (row.started_s or row.ended_s), row.ended_s) for row in rows]

    def note(self, database: Connection, actor: str, what: str, job_id: int | None, detail: Mapping[str, Any]) -> None:
        """Record who did what, in the transaction that does it."""
        write_note(database, at_s=self.time_in(database), actor=actor, what=what, job_id=job_id, detail=detail)
