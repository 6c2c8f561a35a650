"""What the dispatcher reads and writes: under its lease, so that one that was replaced meanwhile changes nothing (StaleLease)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Text,
    cast,
    exists,
    func,
    insert,
    select,
    update,
)

from services.common.database import storable
from services.jobs.queue.limits import Limits
from services.jobs.queue.needs import hopeless_jobs
from services.jobs.queue.order import next_job
from services.jobs.queue.reading import GIVEN_UP_AFTER
from services.jobs.queue.records import Attempt, Job, Lease
from services.jobs.queue.retries import OutagePolicy, retry_after
from services.jobs.queue.states import TERMINAL, Cause, State, StopReason, next_state
from services.jobs.queue.tables import ATTEMPTS, EVENTS, JOBS, LEASE, META
from services.jobs.queue.transactions import LEASE_NAME, Transactions

TOO_LATE = "did not start by its deadline"
MODELS_RESOLVED = "models resolved"
"""The event that records which artifacts the registered models in a job's configuration stand for."""

NOBODY = ""
"""The holder of a lease that was given up."""

OUTAGES_WAITED = OutagePolicy()


class Dispatching(Transactions):
    """The lease, claims of jobs, and all that happens to an attempt until its job has ended."""

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

    def record_models(self, lease: Lease, attempt: Attempt, models: Mapping[str, str]) -> None:
        """Record as an event what the registered models in a job's configuration stand for; once, by its first attempt."""
        with self._holding_lease(lease) as database:
            self._lock_job(database, attempt.job_id)
            known = (EVENTS.c.job_id == attempt.job_id) & (EVENTS.c.what == MODELS_RESOLVED)
            if not database.execute(select(func.count()).where(known)).scalar_one():
                detail = {storable(name): storable(text) for name, text in models.items()}
                self.note(database, lease.holder, MODELS_RESOLVED, attempt.job_id, detail)

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
