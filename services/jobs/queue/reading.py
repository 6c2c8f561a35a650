"""What people and the service read of the job store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    func,
    select,
    true,
)

from services.jobs.queue.arrays import Array, newest_of_each, read_arrays
from services.jobs.queue.limits import Limits, Turn
from services.jobs.queue.order import waiting_turns
from services.jobs.queue.records import Attempt, Job
from services.jobs.queue.states import State
from services.jobs.queue.tables import ATTEMPTS, EVENTS, JOBS, META
from services.jobs.queue.transactions import Transactions

GIVEN_UP_AFTER = "given up after another job"
"""The event of a job that was cancelled because another one ended without success."""


class Reading(Transactions):
    """Jobs, attempts, events, limits and counts, as they are now."""

    def job(self, job_id: int) -> Job:
        """Return a job. InputError where there is none of this id."""
        with self.reading() as database:
            return self._fetch_job(database, select(JOBS).where(JOBS.c.id == job_id), job_id)

    def jobs(
        self,
        *,
        ids: Sequence[int] = (),
        states: Sequence[State] = (),
        kind: str = "",
        project: str = "",
        owner: str = "",
        retry_of: int | None = None,
        array_of: int | None = None,
        before: int | None = None,
        limit: int = 100,
        one_of_each_array: bool = False,
    ) -> list[Job]:
        """Return jobs that match all that is given, the newest first. before: an id, for the next page.

        one_of_each_array: of an array, only the newest job that matches.
        """

        def matches(jobs: FromClause) -> ColumnElement[bool]:
            wanted = (
                (ids, jobs.c.id.in_(ids)),
                (states, jobs.c.state.in_(states)),
                (kind, jobs.c.kind == kind),
                (project, jobs.c.project == project),
                (owner, jobs.c.owner == owner),
                (retry_of, jobs.c.retry_of == retry_of),
                (array_of, jobs.c.array_of == array_of),
            )
            return and_(true(), *[clause for given, clause in wanted if given])

        query = select(JOBS).where(matches(JOBS)).order_by(JOBS.c.id.desc()).limit(limit)
        query = query.where(JOBS.c.id < before) if before else query
        query = newest_of_each(query, matches) if one_of_each_array else query
        with self.reading() as database:
            return [Job.of(row) for row in database.execute(query)]

    def retry_chain(self, job_id: int) -> list[Job]:
        """Return the jobs that go on with each other's work, the first one first.

        InputError where there is no job of this id. Of two retries of one job, as earlier versions made them, the later one counts.
        """
        with self.reading() as database:
            first = self._fetch_job(database, select(JOBS).where(JOBS.c.id == job_id), job_id)
            while first.retry_of is not None:
                first = self._fetch_job(database, select(JOBS).where(JOBS.c.id == first.retry_of), first.retry_of)
            chain = [first]
            while newer := self._retry_of(database, chain[-1].id):
                chain.append(newer)
            return chain

    def _retry_of(self, database: Connection, job_id: int) -> Job | None:
        """Return the job that goes on with the work of another one, if there is one."""
        query = select(JOBS).where(JOBS.c.retry_of == job_id).order_by(JOBS.c.id.desc()).limit(1)
        row = database.execute(query).one_or_none()
        return Job.of(row) if row else None

    def arrays(self, ids: Sequence[int]) -> dict[int, Array]:
        """Return the arrays of these ids, the ids of their first jobs; those that do not exist are left out."""
        with self.reading() as database:
            return read_arrays(database, ids)

    def attempts(self, job_id: int) -> list[Attempt]:
        """Return a job's attempts, the first one first."""
        query = select(ATTEMPTS).where(ATTEMPTS.c.job_id == job_id).order_by(ATTEMPTS.c.number)
        with self.reading() as database:
            return [Attempt.of(row) for row in database.execute(query)]

    def attempt_counts(self, job_ids: Sequence[int]) -> dict[int, tuple[int, float | None]]:
        """Return how many attempts each job has, and when the first one started. Jobs without attempts are left out."""
        query = select(ATTEMPTS.c.job_id, func.count(), func.min(ATTEMPTS.c.started_s)).group_by(ATTEMPTS.c.job_id)
        with self.reading() as database:
            return {row[0]: (row[1], row[2]) for row in database.execute(query.where(ATTEMPTS.c.job_id.in_(job_ids)))}

    def events(self, job_id: int) -> list[dict[str, Any]]:
        """Return who did what to a job, in order."""
        return self._events(select(EVENTS).where(EVENTS.c.job_id == job_id).order_by(EVENTS.c.id))

    def audit(self, *, before: int | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Return who did what to anything, the newest first. before: an id, for the next page."""
        query = select(EVENTS).order_by(EVENTS.c.id.desc()).limit(limit)
        return self._events(query.where(EVENTS.c.id < before) if before else query)

    def _events(self, query: Select[Any]) -> list[dict[str, Any]]:
        with self.reading() as database:
            return [dict(row._mapping) for row in database.execute(query)]

    def counts(self) -> dict[str, int]:
        """Return the number of jobs in each state."""
        with self.reading() as database:
            rows = database.execute(select(JOBS.c.state, func.count()).group_by(JOBS.c.state))
            return {row[0]: row[1] for row in rows}

    def limits(self) -> Limits:
        """Return what the queue may use; the defaults where no limits were set."""
        with self.reading() as database:
            found = database.execute(select(META.c.value).where(META.c.name == "limits")).scalar_one_or_none()
        return Limits.of(json.loads(found), where="limits") if found else Limits()

    def causes(self) -> dict[str, int]:
        """Return the number of ended attempts by cause."""
        query = select(ATTEMPTS.c.cause, func.count()).where(ATTEMPTS.c.ended_s.is_not(None)).group_by(ATTEMPTS.c.cause)
        with self.reading() as database:
            return {row[0]: row[1] for row in database.execute(query)}

    def waits(self, bounds_s: Sequence[float]) -> tuple[list[int], float]:
        """Return how long jobs waited for their first attempt: counts up to each bound and of all; and the sum in seconds."""
        waited = ATTEMPTS.c.claimed_s - JOBS.c.submitted_s
        counts = [func.count().filter(waited <= bound) for bound in bounds_s]
        query = select(*counts, func.count(), func.coalesce(func.sum(waited), 0.0)).select_from(ATTEMPTS.join(JOBS))
        with self.reading() as database:
            row = database.execute(query.where(ATTEMPTS.c.number == 1)).one()
        return [int(count) for count in row[:-1]], float(row[-1])

    def turns(self, limits: Limits) -> list[Turn]:
        """Return the queue in its order, and why each job waits."""
        with self.reading() as database:
            return waiting_turns(database, limits, self.time_in(database))

    def given_up_after(self, job_ids: Sequence[int]) -> list[int]:
        """Return the jobs that were cancelled because one of these did not succeed, those that were cancelled for them included.

        A job that waits for another one names it as it was submitted, whichever retry of it failed: so ask for a whole chain.
        """
        found: list[int] = []
        with self.reading() as database:
            ended = (EVENTS.c.what == GIVEN_UP_AFTER) & (EVENTS.c.job_id > min(job_ids))
            rows = database.execute(select(EVENTS.c.job_id, EVENTS.c.detail).where(ended).order_by(EVENTS.c.job_id))
            for row in rows:
                if row.detail.get("job") in (*job_ids, *found):
                    found.append(row.job_id)
        return found
