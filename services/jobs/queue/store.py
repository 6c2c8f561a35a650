"""The job store: a database in which every change is one transaction that either obeys the rules or changes nothing.

SQLite by default, PostgreSQL for a team; both serialise writers, and both pass the same tests. The dispatcher writes under its
lease: a dispatcher that was replaced meanwhile changes nothing, and gets a StaleLease.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Text,
    and_,
    cast,
    delete,
    exists,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.exc import DatabaseError, IntegrityError

from services.jobs.queue.arrays import Array, newest_of_each, read_arrays
from services.jobs.queue.database import Database, first_line, storable
from services.jobs.queue.limits import Limits, Turn
from services.jobs.queue.needs import hopeless_jobs, require_known
from services.jobs.queue.order import next_job, waiting_turns
from services.jobs.queue.records import Attempt, Job, JobRequest, Lease
from services.jobs.queue.resources import LABELS
from services.jobs.queue.retries import AttemptEnd, OutagePolicy, retry_after
from services.jobs.queue.schema import upgrade
from services.jobs.queue.states import LIVE, TERMINAL, TRANSITIONS, Cause, State, StopReason, next_state
from services.jobs.queue.tables import ATTEMPTS, EVENTS, JOBS, LEASE, META
from zsbir.base.errors import InputError, RunError

LEASE_NAME = "dispatcher"
TOO_LATE = "did not start by its deadline"
GIVEN_UP_AFTER = "given up after another job"
NOBODY = ""
"""The holder of a lease that was given up."""

SAME_JOB = ("kind", "config", "project", "priority", "after", *LABELS)
"""Fields in which two requests of one idempotency key must agree."""


def _same(job: Job, request: JobRequest, name: str) -> bool:
    asked = [each.model_dump() for each in request.after] if name == "after" else getattr(request, name)
    return bool(getattr(job, name) == asked)


OUTAGES_WAITED = OutagePolicy()


class StaleLease(RunError):  # noqa: N818 - it says what the lease is
    """Another dispatcher has taken over, and nothing was changed."""


class KeyTaken(InputError):  # noqa: N818 - it says what the key is
    """The idempotency key stands for another job."""


class Store:
    """Jobs, attempts, limits and the dispatcher's lease in one database.

    clock: seconds since 1970, for tests. None: the one clock that all of the store's users share: PostgreSQL's own; with SQLite,
    whose users are processes of one machine, that machine's.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] | None = None):
        self.url, self._clock = url, clock
        self._database = Database(url)
        self.engine, self.reading, self.writing = self._database.engine, self._database.reading, self._database.writing

    # --- for people

    def submit(self, request: JobRequest) -> Job:
        """Return a new job, or the job that was submitted with this idempotency key. KeyTaken where that job is a different one."""
        return self.submit_or_find([request])[0][0]

    def submit_or_find(self, requests: Sequence[JobRequest]) -> tuple[list[Job], bool]:
        """Return new jobs, all or none of them, or those that were submitted with the first one's idempotency key; and which it is.

        Several are an array. InputError where a job that one of them is to start after does not exist.
        """
        try:
            with self.writing() as database:
                found = self._find_by_key(database, requests)
                return (found, False) if found else (self._insert_all(database, requests), True)
        except IntegrityError:  # another process came first with the same key
            with self.writing() as database:
                found = self._find_by_key(database, requests)
            assert found
            return found, False

    def _find_by_key(self, database: Connection, requests: Sequence[JobRequest]) -> list[Job]:
        """Return the jobs of an earlier submission with the same key; none where there was none."""
        first = self._find_first_by_key(database, requests[0])
        if first is None:
            return []
        if first.retry_of is not None or (len(requests) == 1 and first.array_of is None):
            return [first]
        query = select(JOBS).where((JOBS.c.array_of == first.id) & JOBS.c.retry_of.is_(None)).order_by(JOBS.c.id)
        found = [Job.of(row) for row in database.execute(query)]
        same = len(found) == len(requests) and all(
            all(_same(job, request, name) for name in SAME_JOB) for job, request in zip(found, requests, strict=True)
        )
        if not same:
            raise KeyTaken(f"the idempotency key {requests[0].idempotency_key!r} stands for other jobs, from job {first.id} on")
        return found

    def _find_first_by_key(self, database: Connection, request: JobRequest) -> Job | None:
        if request.idempotency_key is None:
            return None
        same = (JOBS.c.owner == request.owner) & (JOBS.c.idempotency_key == request.idempotency_key)
        row = database.execute(select(JOBS).where(same)).one_or_none()
        if row is None:
            return None
        job = Job.of(row)
        if not all(_same(job, request, name) for name in SAME_JOB):
            raise KeyTaken(f"the idempotency key {request.idempotency_key!r} stands for job {job.id}, which is another one")
        return job

    def _insert_all(self, database: Connection, requests: Sequence[JobRequest]) -> list[Job]:
        require_known(database, [each for request in requests for each in request.after])
        jobs = [self._insert(database, request) for request in requests]
        if len(jobs) > 1 and requests[0].retry_of is None:
            array = JOBS.c.id.in_([job.id for job in jobs])
            database.execute(update(JOBS).where(array).values(array_of=jobs[0].id))
            jobs = [replace(job, array_of=jobs[0].id) for job in jobs]
        return jobs

    def _insert(self, database: Connection, request: JobRequest) -> Job:
        values = {**request.model_dump(), "state": "queued", "cancelling": False, "progress": {}}
        now = self.time_in(database)
        made = insert(JOBS).values(**values, submitted_s=now, not_before_s=now).returning(JOBS)
        job = Job.of(database.execute(made).one())
        self.note(database, request.owner, "submitted", job.id, {"kind": job.kind, "priority": job.priority})
        return job

    def cancel(self, job_id: int, actor: str) -> Job:
        """Cancel a queued job now, and a live one by way of the dispatcher; leave one that has ended as it is. Return the job."""
        with self.writing() as database:
            job = self._lock_job(database, job_id)
            if job.state == "queued":
                self._set_state(database, job, "cancelled", message=f"cancelled by {actor}")
            elif job.state in LIVE and not job.cancelling:
                database.execute(update(JOBS).where(JOBS.c.id == job_id).values(cancelling=True))
            if job.state not in TERMINAL:
                self.note(database, actor, "cancel asked for", job_id, {})
            return self._lock_job(database, job_id)

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

    def set_limits(self, limits: Limits, actor: str, *, only_first: bool = False) -> None:
        """Set the limits for all later claims; what runs already goes on. only_first: only where none were set before."""
        with self.writing() as database:
            if only_first and database.execute(select(META.c.value).where(META.c.name == "limits")).one_or_none():
                return
            database.execute(delete(META).where(META.c.name == "limits"))
            database.execute(insert(META).values(name="limits", value=limits.model_dump_json()))
            self.note(database, actor, "limits set", None, limits.model_dump(mode="json"))

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

    # --- for the dispatcher

    def seen_lease(self) -> Lease | None:
        """Return the lease as it is now. Whether its holder is alive, each process judges by its own clock."""
        with self.reading() as database:
            row = database.execute(select(LEASE).where(LEASE.c.name == LEASE_NAME)).one_or_none()
        return Lease(row.holder, row.epoch, row.beats) if row else None

    def take_lease(self, holder: str, seen: Lease | None) -> Lease | None:
        """Take the lease if it is still as it was seen. seen: None where nobody had it. Return None where its holder is alive."""
        with self.writing() as database:
            if seen is None:
                taken_before = database.execute(select(LEASE.c.name).where(LEASE.c.name == LEASE_NAME)).one_or_none()
                if taken_before is not None:
                    return None
                database.execute(insert(LEASE).values(name=LEASE_NAME, holder=holder, epoch=1, beats=0))
                return Lease(holder, 1)
            same = (LEASE.c.name == LEASE_NAME) & (LEASE.c.epoch == seen.epoch) & (LEASE.c.beats == seen.beats)
            taken = database.execute(update(LEASE).where(same).values(holder=holder, epoch=seen.epoch + 1, beats=0))
            return Lease(holder, seen.epoch + 1) if taken.rowcount else None

    def heartbeat(self, lease: Lease) -> None:
        """Show that the holder is alive. StaleLease when another process has the lease."""
        with self._holding_lease(lease) as database:
            database.execute(update(LEASE).where(LEASE.c.name == LEASE_NAME).values(beats=LEASE.c.beats + 1))

    def release(self, lease: Lease) -> None:
        """Give the lease up, so that the next process need not wait."""
        with self._holding_lease(lease) as database:
            database.execute(update(LEASE).where(LEASE.c.name == LEASE_NAME).values(holder=NOBODY, beats=LEASE.c.beats + 1))

    def claim(self, lease: Lease, limits: Limits) -> Attempt | None:
        """Return a new attempt at the job whose turn it is, within the limits; None where no job may start."""
        with self._holding_lease(lease) as database:
            first = next_job(database, limits, self.time_in(database))
            if first is None:
                return None
            job = self._lock_job(database, first.id)
            number = 1 + database.execute(select(func.count()).where(ATTEMPTS.c.job_id == job.id)).scalar_one()
            store_id = database.execute(select(META.c.value).where(META.c.name == "store_id")).scalar_one()
            values = {"job_id": job.id, "number": number, "submission_id": f"zsbir-{store_id}-{job.id}-a{number}"}
            row = database.execute(
                insert(ATTEMPTS).values(**values, claimed_s=self.time_in(database), untidy=False).returning(ATTEMPTS)
            ).one()
            self._set_state(database, job, "starting", message="")
            self.note(database, lease.holder, "attempt begun", job.id, {"number": number})
            return Attempt.of(row)

    def live(self) -> list[tuple[Job, Attempt]]:
        """Return each job that has an attempt under way, with the attempt."""
        query = select(ATTEMPTS.c.job_id, ATTEMPTS.c.id).where(ATTEMPTS.c.ended_s.is_(None)).order_by(ATTEMPTS.c.job_id)
        with self.reading() as database:
            found = [(row.job_id, row.id) for row in database.execute(query)]
            return [
                (
                    Job.of(database.execute(select(JOBS).where(JOBS.c.id == job)).one()),
                    Attempt.of(database.execute(select(ATTEMPTS).where(ATTEMPTS.c.id == attempt)).one()),
                )
                for job, attempt in found
            ]

    def started(self, lease: Lease, attempt: Attempt) -> bool:
        """Record that the attempt runs. Return False, with nothing changed, where it has ended meanwhile."""
        with self._holding_lease(lease) as database:
            job = self._lock_job(database, attempt.job_id)
            if self._fetch_attempt(database, attempt).ended_s is not None:
                return False
            if job.state == "starting":
                database.execute(update(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id).values(started_s=self.time_in(database)))
                self._set_state(database, job, "running")
            return True

    def report(self, lease: Lease, attempt: Attempt, progress: Mapping[str, Any], *, resumed_from: str = "") -> bool:
        """Record how far the attempt is, and where it resumed. Return False, with nothing changed, where it has ended meanwhile."""
        with self._holding_lease(lease) as database:
            if self._fetch_attempt(database, attempt).ended_s is not None:
                return False
            database.execute(update(JOBS).where(JOBS.c.id == attempt.job_id).values(progress=storable(dict(progress))))
            if resumed_from and resumed_from != attempt.resumed_from:
                database.execute(update(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id).values(resumed_from=resumed_from))
            return True

    def end(
        self,
        lease: Lease,
        attempt: Attempt,
        cause: Cause,
        *,
        message: str = "",
        result: str = "",
        ran_s: float | None = None,
        began_s: float | None = None,
        ended_s: float | None = None,
        outages: OutagePolicy = OUTAGES_WAITED,
    ) -> State | None:
        """Record that the attempt has ended. Return the job's next state; None, with nothing changed, where it had ended before.

        ran_s: how long it ran, by its own account: a dispatcher may notice the end hours later. began_s, ended_s: seconds since
        1970 by the clock of its node, which may be wrong: believed as far as they can be true, for attempts of earlier versions.
        outages: how long the job waits for a network or a disk.
        """
        with self._holding_lease(lease) as database:
            job, attempt = self._lock_job(database, attempt.job_id), self._fetch_attempt(database, attempt)
            if attempt.ended_s is not None:
                return None
            now, message = self.time_in(database), storable(message)
            started_s = attempt.started_s or (began_s and min(max(began_s, attempt.claimed_s), now))
            if ran_s is not None:
                latest_s = max(attempt.claimed_s, now - ran_s)
                started_s = attempt.started_s or min(max(began_s or 0.0, attempt.claimed_s), latest_s)
                ended_s = started_s + max(ran_s, 0.0)
            ended_s = min(max(ended_s or now, started_s or attempt.claimed_s), now)
            values = {"started_s": started_s, "ended_s": ended_s, "cause": cause, "message": message, "untidy": True}
            database.execute(update(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id).values(**values))
            ends = self._ends(database, job.id)
            retry = retry_after(ends, outages)
            state = next_state(cause, Counter(end.cause for end in ends), cancelling=job.cancelling, gives_up=retry.gives_up)
            if retry.gives_up and state == "failed":
                message = storable(f"{message} (tried for {retry.outage_s / 60:.0f} minutes)")
            changes: dict[str, Any] = {"not_before_s": now + retry.pause_s} if state == "queued" else {}
            changes |= {"ended_s": ended_s} if state in TERMINAL else {}
            self._set_state(
                database, job, state, message=message, **changes, **({"result": result} if state == "succeeded" else {})
            )
            detail = {"number": attempt.number, "cause": cause, "message": message}
            self.note(database, lease.holder, "attempt ended", job.id, detail)
            return state

    def unnotified(self, from_id: int, limit: int) -> tuple[list[Job], int]:
        """Return ended jobs, from an id on, whose targets have not all been told; and from which id on to ask next time.

        Jobs before that id have nobody to tell, so that the question stays cheap however many jobs there were.
        """
        waiting = JOBS.c.notified_s.is_(None) & (cast(JOBS.c.notify, Text) != "[]") & (JOBS.c.id >= from_id)
        with self.reading() as database:
            newest = database.execute(select(func.max(JOBS.c.id))).scalar_one() or 0
            first = database.execute(select(func.min(JOBS.c.id)).where(waiting)).scalar_one()
            ended = select(JOBS).where(waiting & JOBS.c.state.in_(sorted(TERMINAL))).order_by(JOBS.c.id).limit(limit)
            return [Job.of(row) for row in database.execute(ended)], newest + 1 if first is None else first

    def mark_notified(self, lease: Lease, job_id: int, told: Sequence[str], failed: Mapping[str, str]) -> None:
        """Record that no target of an ended job is left to tell. failed: why each of the others was not told."""
        with self._holding_lease(lease) as database:
            database.execute(update(JOBS).where(JOBS.c.id == job_id).values(notified_s=self.time_in(database)))
            if told:
                self.note(database, lease.holder, "told", job_id, {"targets": ", ".join(told)})
            for name, reason in failed.items():
                self.note(database, lease.holder, "not told", job_id, {"target": name, "why": reason})

    def ask_stop(self, lease: Lease, attempt: Attempt, reason: StopReason) -> Attempt:
        """Record since when and why an attempt is to save its work and end; the first reason stays. Return the attempt."""
        with self._holding_lease(lease) as database:
            once = (ATTEMPTS.c.id == attempt.id) & ATTEMPTS.c.ended_s.is_(None) & ATTEMPTS.c.stop_reason.is_(None)
            done = database.execute(update(ATTEMPTS).where(once).values(stop_reason=reason, stop_asked_s=self.time_in(database)))
            if done.rowcount:
                detail = {"number": attempt.number, "reason": reason}
                self.note(database, lease.holder, "attempt asked to end", attempt.job_id, detail)
            return self._fetch_attempt(database, attempt)

    def uncleaned(self, limit: int = 20) -> list[tuple[Job, Attempt]]:
        """Return ended attempts whose MLflow runs may still be open, with their jobs, the oldest first."""
        query = select(ATTEMPTS).where(ATTEMPTS.c.untidy & ATTEMPTS.c.ended_s.is_not(None)).order_by(ATTEMPTS.c.id).limit(limit)
        with self.reading() as database:
            found = [Attempt.of(row) for row in database.execute(query)]
            return [(self._fetch_job(database, select(JOBS).where(JOBS.c.id == each.job_id), each.job_id), each) for each in found]

    def mark_cleaned(self, lease: Lease, attempt: Attempt) -> None:
        """Record that the attempt's MLflow runs are closed."""
        with self._holding_lease(lease) as database:
            database.execute(update(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id).values(untidy=False))

    def give_up_late(self, lease: Lease) -> list[int]:
        """End queued jobs that have missed the deadline for their first start. Return their ids."""
        with self._holding_lease(lease) as database:
            # A job that has run before has kept its deadline, and only waits to go on.
            has_run = exists().where((ATTEMPTS.c.job_id == JOBS.c.id) & ATTEMPTS.c.started_s.is_not(None))
            is_late = (JOBS.c.state == "queued") & (JOBS.c.start_by_s < self.time_in(database)) & ~has_run
            found = [Job.of(row) for row in database.execute(select(JOBS).where(is_late).order_by(JOBS.c.id))]
            for job in found:
                self._set_state(database, job, "timed_out", message=TOO_LATE)
                self.note(database, lease.holder, "given up", job.id, {})
            return [job.id for job in found]

    def give_up_dependents(self, lease: Lease) -> list[int]:
        """Cancel queued jobs that were to start after the success of a job which has ended without; and those that wait for them.

        Return their ids.
        """
        found: list[int] = []
        with self._holding_lease(lease) as database:
            while given_up := hopeless_jobs(database):
                for job_id, needed, message in given_up:
                    self._set_state(database, self._lock_job(database, job_id), "cancelled", message=message)
                    self.note(database, lease.holder, GIVEN_UP_AFTER, job_id, {"job": needed})
                found += [job_id for job_id, _, _ in given_up]
        return found

    def given_up_after(self, job_id: int) -> list[int]:
        """Return the jobs that were cancelled because a job did not succeed, those that were cancelled for them included."""
        found: list[int] = []
        with self.reading() as database:
            ended = (EVENTS.c.what == GIVEN_UP_AFTER) & (EVENTS.c.job_id > job_id)
            rows = database.execute(select(EVENTS.c.job_id, EVENTS.c.detail).where(ended).order_by(EVENTS.c.job_id))
            for row in rows:
                if row.detail.get("job") in (job_id, *found):
                    found.append(row.job_id)
        return found

    # --- inside

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
        if database.dialect.name == "postgresql":
            return float(database.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
        return time.time()

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
        values = {"at_s": self.time_in(database), "job_id": job_id, "actor": actor, "what": what, "detail": dict(detail)}
        database.execute(insert(EVENTS).values(**values))


def open_store(url: str, *, clock: Callable[[], float] | None = None) -> Store:
    """Open the store at a database URL, and migrate its tables to the newest revision.

    InputError for text that is not a URL, or a database that is not supported; RunError where the database does not answer.
    """
    store = Store(url, clock=clock)
    try:
        upgrade(store.engine)
    except DatabaseError as error:
        raise RunError(f"the job store at {store._database.shown_url} does not answer ({first_line(error)})") from error
    return store
