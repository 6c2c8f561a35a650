"""The job store: a database in which every change is one transaction that either obeys the rules or changes nothing.

SQLite by default, PostgreSQL for a team; both serialise writers, and both pass the same tests. The dispatcher writes under its
lease: a dispatcher that was replaced meanwhile changes nothing, and gets a StaleLease.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import (
    Connection,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError, IntegrityError

from services.common.database import first_line
from services.jobs.queue.dispatching import Dispatching
from services.jobs.queue.limits import Limits
from services.jobs.queue.needs import require_known
from services.jobs.queue.reading import Reading
from services.jobs.queue.records import Job, JobRequest
from services.jobs.queue.resources import LABELS
from services.jobs.queue.schema import upgrade
from services.jobs.queue.states import LIVE, TERMINAL
from services.jobs.queue.tables import JOBS, META
from zsbir.base.errors import InputError, RunError

SAME_JOB = ("kind", "config", "project", "priority", "after", *LABELS)
"""Fields in which two requests of one idempotency key must agree."""


def _same(job: Job, request: JobRequest, name: str) -> bool:
    asked = [each.model_dump() for each in request.after] if name == "after" else getattr(request, name)
    return bool(getattr(job, name) == asked)


class KeyTaken(InputError):  # noqa: N818 - it says what the key is
    """The idempotency key stands for another job."""


class Store(Reading, Dispatching):
    """Jobs, attempts, limits and the dispatcher's lease in one database.

    clock: seconds since 1970, for tests. None: the one clock that all of the store's users share: PostgreSQL's own; with SQLite,
    whose users are processes of one machine, that machine's.
    """

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

    def set_limits(self, limits: Limits, actor: str, *, only_first: bool = False) -> None:
        """Set the limits for all later claims; what runs already goes on. only_first: only where none were set before."""
        with self.writing() as database:
            if only_first and database.execute(select(META.c.value).where(META.c.name == "limits")).one_or_none():
                return
            database.execute(delete(META).where(META.c.name == "limits"))
            database.execute(insert(META).values(name="limits", value=limits.model_dump_json()))
            self.note(database, actor, "limits set", None, limits.model_dump(mode="json"))


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
