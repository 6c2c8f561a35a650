"""The truth about jobs: a database in which every change is one transaction that either obeys the rules or changes nothing.

SQLite by default, PostgreSQL for a team; both serialise writers, and both pass the same tests. What the dispatcher writes carries
its lease: a dispatcher that was replaced meanwhile changes nothing, and is told so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Select, delete, exists, func, insert, select, update
from sqlalchemy.exc import DatabaseError, IntegrityError

from services.jobs.queue.database import Database, plain, reason_of
from services.jobs.queue.limits import Limits, Turn
from services.jobs.queue.order import next_job, waiting_jobs
from services.jobs.queue.records import Attempt, Job, JobRequest, Lease
from services.jobs.queue.schema import upgrade
from services.jobs.queue.states import LIVE, MOVES, TERMINAL, Cause, State, StopReason, after
from services.jobs.queue.tables import ATTEMPTS, EVENTS, JOBS, LEASE, META
from zsbir.base.errors import InputError, RunError

LEASE_NAME = "dispatcher"
TOO_LATE = "did not start by its deadline"
NOBODY = ""
"""Holder of a lease that was given up."""

BACKOFF_S: Mapping[Cause, float] = {"lost": 1.0, "node_lost": 1.0, "busy": 5.0, "out_of_memory": 15.0, "unknown": 15.0}
"""Seconds before a job is tried again after an end of that cause; twice as many after each further one, at most an hour."""


class StaleLease(RunError):  # noqa: N818 - it says what the lease is
    """Another dispatcher has taken over: nothing was changed."""


class KeyTaken(InputError):  # noqa: N818 - it says what the key is
    """The idempotency key stands for another job."""


class Store:
    """The queue's database. clock: seconds since 1970, for tests."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time):
        self.url, self._clock = url, clock
        self._database = Database(url)
        self.engine, self.reading, self.writing = self._database.engine, self._database.reading, self._database.writing

    # --- what people do

    def submit(self, request: JobRequest) -> Job:
        """A new job, or the one that its idempotency key stands for. KeyTaken when that one is another job."""
        return self.submitted(request)[0]

    def submitted(self, request: JobRequest) -> tuple[Job, bool]:
        """The same, and whether it is new."""
        try:
            with self.writing() as database:
                found = self._keyed(database, request)
                return (found, False) if found else (self._insert(database, request), True)
        except IntegrityError:  # somebody came first with the same key
            with self.writing() as database:
                found = self._keyed(database, request)
            assert found is not None
            return found, False

    def _keyed(self, database: Connection, request: JobRequest) -> Job | None:
        if request.idempotency_key is None:
            return None
        same = (JOBS.c.owner == request.owner) & (JOBS.c.idempotency_key == request.idempotency_key)
        row = database.execute(select(JOBS).where(same)).one_or_none()
        if row is None:
            return None
        job = Job.of(row)
        if any(getattr(job, name) != getattr(request, name) for name in ("kind", "config", "project", "priority", "cpus", "gpus")):
            raise KeyTaken(f"the idempotency key {request.idempotency_key!r} stands for job {job.id}, which is another one")
        return job

    def _insert(self, database: Connection, request: JobRequest) -> Job:
        values = {**request.model_dump(), "state": "queued", "cancelling": False, "progress": {}}
        now = self._clock()
        made = insert(JOBS).values(**values, submitted_s=now, not_before_s=now).returning(JOBS)
        job = Job.of(database.execute(made).one())
        self.note(database, request.owner, "submitted", job.id, {"kind": job.kind, "priority": job.priority})
        return job

    def cancel(self, job_id: int, actor: str) -> Job:
        """A queued job is cancelled now; a live one is to be, by the dispatcher; one that has ended stays as it is."""
        with self.writing() as database:
            job = self._locked(database, job_id)
            if job.state == "queued":
                self._move(database, job, "cancelled", message=f"cancelled by {actor}")
            elif job.state in LIVE and not job.cancelling:
                database.execute(update(JOBS).where(JOBS.c.id == job_id).values(cancelling=True))
            if job.state not in TERMINAL:
                self.note(database, actor, "cancel asked for", job_id, {})
            return self._locked(database, job_id)

    def job(self, job_id: int) -> Job:
        """InputError where there is none."""
        with self.reading() as database:
            return self._one(database, select(JOBS).where(JOBS.c.id == job_id), job_id)

    def jobs(
        self,
        *,
        ids: Sequence[int] = (),
        states: Sequence[State] = (),
        kind: str = "",
        project: str = "",
        owner: str = "",
        retry_of: int | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """The newest first. before: an id, for the next page."""
        query = select(JOBS).order_by(JOBS.c.id.desc()).limit(limit)
        for wanted, clause in (
            (ids, JOBS.c.id.in_(ids)),
            (states, JOBS.c.state.in_(states)),
            (kind, JOBS.c.kind == kind),
            (project, JOBS.c.project == project),
            (owner, JOBS.c.owner == owner),
            (retry_of, JOBS.c.retry_of == retry_of),
            (before, JOBS.c.id < (before or 0)),
        ):
            query = query.where(clause) if wanted else query
        with self.reading() as database:
            return [Job.of(row) for row in database.execute(query)]

    def attempts(self, job_id: int) -> list[Attempt]:
        """Of a job, the first one first."""
        query = select(ATTEMPTS).where(ATTEMPTS.c.job_id == job_id).order_by(ATTEMPTS.c.number)
        with self.reading() as database:
            return [Attempt.of(row) for row in database.execute(query)]

    def begun(self, job_ids: Sequence[int]) -> dict[int, tuple[int, float | None]]:
        """Of each of these jobs that has some: how many attempts, and when the first one started."""
        query = select(ATTEMPTS.c.job_id, func.count(), func.min(ATTEMPTS.c.started_s)).group_by(ATTEMPTS.c.job_id)
        with self.reading() as database:
            return {row[0]: (row[1], row[2]) for row in database.execute(query.where(ATTEMPTS.c.job_id.in_(job_ids)))}

    def events(self, job_id: int) -> list[dict[str, Any]]:
        """Who did what to a job, in order."""
        return self._events(select(EVENTS).where(EVENTS.c.job_id == job_id).order_by(EVENTS.c.id))

    def audit(self, *, before: int | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Who did what at all, the newest first. before: an id, for the next page."""
        query = select(EVENTS).order_by(EVENTS.c.id.desc()).limit(limit)
        return self._events(query.where(EVENTS.c.id < before) if before else query)

    def _events(self, query: Select[Any]) -> list[dict[str, Any]]:
        with self.reading() as database:
            return [dict(row._mapping) for row in database.execute(query)]

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        with self.reading() as database:
            rows = database.execute(select(JOBS.c.state, func.count()).group_by(JOBS.c.state))
            return {row[0]: row[1] for row in rows}

    def limits(self) -> Limits:
        """What the queue may use; the defaults where nobody has said."""
        with self.reading() as database:
            said = database.execute(select(META.c.value).where(META.c.name == "limits")).scalar_one_or_none()
        return Limits.of(json.loads(said), where="limits") if said else Limits()

    def set_limits(self, limits: Limits, actor: str, *, only_first: bool = False) -> None:
        """From now on; what runs already goes on. only_first: where nobody has said before."""
        with self.writing() as database:
            if only_first and database.execute(select(META.c.value).where(META.c.name == "limits")).one_or_none():
                return
            database.execute(delete(META).where(META.c.name == "limits"))
            database.execute(insert(META).values(name="limits", value=limits.model_dump_json()))
            self.note(database, actor, "limits set", None, limits.model_dump(mode="json"))

    def causes(self) -> dict[str, int]:
        """Ended attempts by the cause of their end."""
        query = select(ATTEMPTS.c.cause, func.count()).where(ATTEMPTS.c.ended_s.is_not(None)).group_by(ATTEMPTS.c.cause)
        with self.reading() as database:
            return {row[0]: row[1] for row in database.execute(query)}

    def waits(self, bounds_s: Sequence[float]) -> tuple[list[int], float]:
        """How long jobs waited for their first attempt: how many up to each bound and all together; and the sum in seconds."""
        waited = ATTEMPTS.c.claimed_s - JOBS.c.submitted_s
        counts = [func.count().filter(waited <= bound) for bound in bounds_s]
        query = select(*counts, func.count(), func.coalesce(func.sum(waited), 0.0)).select_from(ATTEMPTS.join(JOBS))
        with self.reading() as database:
            row = database.execute(query.where(ATTEMPTS.c.number == 1)).one()
        return [int(count) for count in row[:-1]], float(row[-1])

    def turns(self, limits: Limits) -> list[Turn]:
        """The queue in its order, and why each job waits."""
        with self.reading() as database:
            return waiting_jobs(database, limits, self._clock())

    # --- what the dispatcher does

    def seen_lease(self) -> Lease | None:
        """The lease as it stands: who watches it decides by his own clock whether its holder is alive."""
        with self.reading() as database:
            row = database.execute(select(LEASE).where(LEASE.c.name == LEASE_NAME)).one_or_none()
        return Lease(row.holder, row.epoch, row.beats) if row else None

    def take_lease(self, holder: str, seen: Lease | None) -> Lease | None:
        """The lease, if it still is as it was seen (None: nobody's); else None, somebody lives."""
        with self.writing() as database:
            if seen is None:
                there = database.execute(select(LEASE.c.name).where(LEASE.c.name == LEASE_NAME)).one_or_none()
                if there is not None:
                    return None
                database.execute(insert(LEASE).values(name=LEASE_NAME, holder=holder, epoch=1, beats=0))
                return Lease(holder, 1)
            same = (LEASE.c.name == LEASE_NAME) & (LEASE.c.epoch == seen.epoch) & (LEASE.c.beats == seen.beats)
            taken = database.execute(update(LEASE).where(same).values(holder=holder, epoch=seen.epoch + 1, beats=0))
            return Lease(holder, seen.epoch + 1) if taken.rowcount else None

    def heartbeat(self, lease: Lease) -> None:
        """Show that its holder lives. StaleLease when another has it."""
        with self._holding(lease) as database:
            database.execute(update(LEASE).where(LEASE.c.name == LEASE_NAME).values(beats=LEASE.c.beats + 1))

    def release(self, lease: Lease) -> None:
        """Give it up: whoever wants it need not wait."""
        with self._holding(lease) as database:
            database.execute(update(LEASE).where(LEASE.c.name == LEASE_NAME).values(holder=NOBODY, beats=LEASE.c.beats + 1))

    def claim(self, lease: Lease, limits: Limits) -> Attempt | None:
        """A new attempt of the job whose turn it is, within the limits; None where nobody's is."""
        with self._holding(lease) as database:
            first = next_job(database, limits, self._clock())
            if first is None:
                return None
            job = self._locked(database, first.id)
            number = 1 + database.execute(select(func.count()).where(ATTEMPTS.c.job_id == job.id)).scalar_one()
            store_id = database.execute(select(META.c.value).where(META.c.name == "store_id")).scalar_one()
            values = {"job_id": job.id, "number": number, "submission_id": f"zsbir-{store_id}-{job.id}-a{number}"}
            row = database.execute(
                insert(ATTEMPTS).values(**values, claimed_s=self._clock(), untidy=False).returning(ATTEMPTS)
            ).one()
            self._move(database, job, "starting", message="")
            self.note(database, lease.holder, "attempt begun", job.id, {"number": number})
            return Attempt.of(row)

    def live(self) -> list[tuple[Job, Attempt]]:
        """Jobs whose attempt is under way, with it."""
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
        """The attempt runs. False where it has ended meanwhile, and nothing was changed."""
        with self._holding(lease) as database:
            job = self._locked(database, attempt.job_id)
            if self._as_it_is(database, attempt).ended_s is not None:
                return False
            if job.state == "starting":
                database.execute(update(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id).values(started_s=self._clock()))
                self._move(database, job, "running")
            return True

    def report(self, lease: Lease, attempt: Attempt, progress: Mapping[str, Any], *, resumed_from: str = "") -> bool:
        """How far it is, and where it went on from. False where it has ended meanwhile."""
        with self._holding(lease) as database:
            if self._as_it_is(database, attempt).ended_s is not None:
                return False
            database.execute(update(JOBS).where(JOBS.c.id == attempt.job_id).values(progress=plain(dict(progress))))
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
        began_s: float | None = None,
        ended_s: float | None = None,
    ) -> State | None:
        """The attempt has ended; the job's state that follows. None where it had ended before, and nothing was changed.

        began_s, ended_s: seconds since 1970, where its own signs say so: who notices may come hours later.
        """
        with self._holding(lease) as database:
            job, attempt = self._locked(database, attempt.job_id), self._as_it_is(database, attempt)
            if attempt.ended_s is not None:
                return None
            now, message = self._clock(), plain(message)
            started_s = attempt.started_s or (began_s and min(max(began_s, attempt.claimed_s), now))
            ended_s = min(max(ended_s or now, started_s or attempt.claimed_s), now)
            values = {"started_s": started_s, "ended_s": ended_s, "cause": cause, "message": message, "untidy": True}
            database.execute(update(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id).values(**values))
            ends = self._ends(database, job.id)
            state = after(cause, ends, cancelling=job.cancelling)
            wait_s = min(3600.0, BACKOFF_S.get(cause, 0.0) * 2 ** (ends[cause] - 1))
            changes: dict[str, Any] = {"not_before_s": now + wait_s} if state == "queued" else {}
            changes |= {"ended_s": ended_s} if state in TERMINAL else {}
            self._move(database, job, state, message=message, **changes, **({"result": result} if state == "succeeded" else {}))
            detail = {"number": attempt.number, "cause": cause, "message": message}
            self.note(database, lease.holder, "attempt ended", job.id, detail)
            return state

    def ask_stop(self, lease: Lease, attempt: Attempt, reason: StopReason) -> Attempt:
        """Remember since when, and why, an attempt is to save its work and end; the first reason stays."""
        with self._holding(lease) as database:
            once = (ATTEMPTS.c.id == attempt.id) & ATTEMPTS.c.ended_s.is_(None) & ATTEMPTS.c.stop_reason.is_(None)
            done = database.execute(update(ATTEMPTS).where(once).values(stop_reason=reason, stop_asked_s=self._clock()))
            if done.rowcount:
                detail = {"number": attempt.number, "reason": reason}
                self.note(database, lease.holder, "attempt asked to end", attempt.job_id, detail)
            return self._as_it_is(database, attempt)

    def uncleaned(self, limit: int = 20) -> list[tuple[Job, Attempt]]:
        """Ended attempts, oldest first, whose traces elsewhere are not looked after yet, with their jobs."""
        query = select(ATTEMPTS).where(ATTEMPTS.c.untidy & ATTEMPTS.c.ended_s.is_not(None)).order_by(ATTEMPTS.c.id).limit(limit)
        with self.reading() as database:
            found = [Attempt.of(row) for row in database.execute(query)]
            return [(self._one(database, select(JOBS).where(JOBS.c.id == each.job_id), each.job_id), each) for each in found]

    def mark_cleaned(self, lease: Lease, attempt: Attempt) -> None:
        """They are."""
        with self._holding(lease) as database:
            database.execute(update(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id).values(untidy=False))

    def give_up_late(self, lease: Lease) -> list[int]:
        """Queued jobs past the time by which they must have started: given up; their ids."""
        with self._holding(lease) as database:
            # What has run before is no late starter: it waits to go on.
            has_run = exists().where((ATTEMPTS.c.job_id == JOBS.c.id) & ATTEMPTS.c.started_s.is_not(None))
            is_late = (JOBS.c.state == "queued") & (JOBS.c.start_by_s < self._clock()) & ~has_run
            found = [Job.of(row) for row in database.execute(select(JOBS).where(is_late).order_by(JOBS.c.id))]
            for job in found:
                self._move(database, job, "timed_out", message=TOO_LATE)
                self.note(database, lease.holder, "given up", job.id, {})
            return [job.id for job in found]

    # --- how

    def now(self) -> float:
        """Seconds since 1970, by the store's clock."""
        return self._clock()

    @contextmanager
    def _holding(self, lease: Lease) -> Iterator[Connection]:
        """A transaction that holds the lease's row: no other dispatcher can take over, or write, meanwhile."""
        with self.writing() as database:
            mine = (LEASE.c.name == LEASE_NAME) & (LEASE.c.epoch == lease.epoch) & (LEASE.c.holder == lease.holder)
            if database.execute(select(LEASE.c.epoch).where(mine).with_for_update()).one_or_none() is None:
                raise StaleLease(f"another dispatcher has taken over from {lease.holder} (epoch {lease.epoch})")
            yield database

    def _locked(self, database: Connection, job_id: int) -> Job:
        return self._one(database, select(JOBS).where(JOBS.c.id == job_id).with_for_update(), job_id)

    def _one(self, database: Connection, query: Select[Any], job_id: int) -> Job:
        row = database.execute(query).one_or_none()
        if row is None:
            raise InputError(f"there is no job {job_id}; see python -m services.jobs list")
        return Job.of(row)

    def _move(self, database: Connection, job: Job, state: State, **changes: Any) -> None:
        """The only place where a state changes."""
        assert state in MOVES[job.state], f"job {job.id}: {job.state} to {state}"
        ended = {"ended_s": self._clock()} if state in TERMINAL else {}
        same = (JOBS.c.id == job.id) & (JOBS.c.state == job.state)
        done = database.execute(update(JOBS).where(same).values(state=state, **{**ended, **changes}))
        assert done.rowcount == 1, f"job {job.id} was {job.state} under a lock, and is not"

    def _as_it_is(self, database: Connection, attempt: Attempt) -> Attempt:
        return Attempt.of(database.execute(select(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id)).one())

    def _ends(self, database: Connection, job_id: int) -> dict[str, int]:
        rows = database.execute(
            select(ATTEMPTS.c.cause, func.count())
            .where((ATTEMPTS.c.job_id == job_id) & ATTEMPTS.c.ended_s.is_not(None))
            .group_by(ATTEMPTS.c.cause)
        )
        return {row[0]: row[1] for row in rows}

    def note(self, database: Connection, actor: str, what: str, job_id: int | None, detail: Mapping[str, Any]) -> None:
        """Write down who did what, in the transaction that does it."""
        values = {"at_s": self._clock(), "job_id": job_id, "actor": actor, "what": what, "detail": dict(detail)}
        database.execute(insert(EVENTS).values(**values))


def open_store(url: str, *, clock: Callable[[], float] = time.time) -> Store:
    """The store at a database URL, its tables brought up to date. InputError for a URL that is none, RunError when it is away."""
    store = Store(url, clock=clock)
    try:
        upgrade(store.engine)
    except DatabaseError as error:
        raise RunError(f"the job store at {store._database.shown} does not answer ({reason_of(error)})") from error
    return store
