"""The job store's promises hold in any order of events: a random walk over everything that can be done to a store.

Dispatchers start, are replaced without knowing it, and go on writing; clocks jump; attempts end twice, late, and by every cause.
"""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule, run_state_machine_as_test
from servers.postgres import new_database

from services.jobs.queue.limits import Limits
from services.jobs.queue.records import JobRequest
from services.jobs.queue.states import LIVE, RETRY_LIMITS, STOP_REASONS, TERMINAL
from services.jobs.queue.store import open_store
from services.jobs.queue.transactions import StaleLease
from zsbir.base.errors import InputError

RUNNING = 3
LIMITS = Limits(running=RUNNING)
CAUSES = ("succeeded", "cancelled", "timed_out", *RETRY_LIMITS)


class Jobs(RuleBasedStateMachine):
    """The store under test, beside what must never be unlearned."""

    url = ""
    leases, attempts = Bundle("leases"), Bundle("attempts")

    def __init__(self):
        super().__init__()
        self.now_s = 1e6
        self.store = open_store(self.fresh_url(), clock=lambda: self.now_s)
        self.ended: dict[int, str] = {}
        self.cancelled: set[int] = set()
        self.reasons: dict[int, str | None] = {}
        self.holder: object = None

    def fresh_url(self):
        raise NotImplementedError

    @rule(priority=st.integers(-2, 2), key=st.sampled_from([None, "a", "b"]), late=st.booleans())
    def submit(self, priority, key, late):
        self.store.submit(
            JobRequest(
                kind="train",
                priority=priority,
                idempotency_key=key and f"{key}{priority}",
                start_by_s=self.now_s + 30 if late else None,
            )
        )

    @rule(size=st.integers(1, 3), needed=st.integers(1, 8), on=st.sampled_from(["success", "end"]))
    def submit_after(self, size, needed, on):
        """A job or an array that starts after another job; where that one does not exist, nothing is submitted."""
        before = sum(self.store.counts().values())
        requests = [JobRequest(kind="train", after=[{"job": needed, "on": on}]) for _ in range(size)]
        try:
            jobs, _ = self.store.submit_or_find(requests)
        except InputError:
            assert needed > before
            assert sum(self.store.counts().values()) == before
            return
        assert needed <= before
        assert [job.array_of for job in jobs] == ([None] if size == 1 else [jobs[0].id] * size)

    @rule(number=st.integers(1, 8))
    def retry(self, number):
        """Each job that ended without success is gone on with once: asked again, its retry is the one that there is."""
        jobs = {job.id: job for job in self.store.jobs(limit=1000)}
        if number in jobs and jobs[number].state in TERMINAL - {"succeeded"}:
            before = [job.id for job in jobs.values() if job.retry_of == number]
            after = [dict(each) for each in jobs[number].after]
            made = self.store.submit(JobRequest(kind="train", after=after, retry_of=number, array_of=jobs[number].array_of))
            assert [job.id for job in self.store.jobs(retry_of=number)] == (before or [made.id])

    @rule(lease=leases)
    def give_up_dependents(self, lease):
        """What was to start after a success that cannot come is cancelled, and with it all that was to start after that."""
        given_up = self.guarded(lease, lambda: self.store.give_up_dependents(lease))
        if given_up is not None:
            states = self.newest_states()
            for job in self.store.jobs(states=["queued"], limit=1000):
                lost = [each for each in job.after if each["on"] == "success" and states[each["job"]] in TERMINAL - {"succeeded"}]
                assert not lost, "a job that can never start was left in the queue"
            assert all(self.store.job(number).state == "cancelled" for number in given_up)

    def newest_states(self):
        """The state of each job's newest retry, by plain loops."""
        jobs = {job.id: job for job in self.store.jobs(limit=1000)}

        def newest(number):
            later = [job.id for job in jobs.values() if job.retry_of == number]
            return newest(max(later)) if later else number

        return {number: jobs[newest(number)].state for number in jobs}

    @rule(target=leases, name=st.sampled_from(["x", "y"]))
    def take_over(self, name):
        """A dispatcher starts, for which the one before looks dead; that one is not told."""
        taken = self.store.take_lease(name, self.store.seen_lease())
        assert taken is not None
        self.holder = taken
        return taken

    @rule(target=attempts, lease=leases)
    def claim(self, lease):
        attempt = self.guarded(lease, lambda: self.store.claim(lease, LIMITS))
        if attempt is None:
            return multiple()
        states = self.newest_states()
        for each in self.store.job(attempt.job_id).after:
            assert states[each["job"]] in TERMINAL, "it started before what it was to start after had ended"
            assert each["on"] == "end" or states[each["job"]] == "succeeded"
        return attempt

    @rule(lease=leases, attempt=attempts)
    def start(self, lease, attempt):
        self.guarded(lease, lambda: self.store.started(lease, attempt))

    @rule(lease=leases, attempt=attempts, step=st.integers(0, 9))
    def report(self, lease, attempt, step):
        self.guarded(lease, lambda: self.store.report(lease, attempt, {"step": step}))

    @rule(lease=leases, attempt=attempts, cause=st.sampled_from(CAUSES))
    def end(self, lease, attempt, cause):
        """Also of attempts that have ended, by dispatchers that read the news late."""
        self.guarded(lease, lambda: self.store.end(lease, attempt, cause, result="made" if cause == "succeeded" else ""))

    @rule(lease=leases, attempt=attempts, reason=st.sampled_from(STOP_REASONS))
    def ask_stop(self, lease, attempt, reason):
        """The first reason stays, and only of one that lives."""
        asked = self.guarded(lease, lambda: self.store.ask_stop(lease, attempt, reason))
        if asked:
            before = self.reasons.get(attempt.id)
            assert asked.stop_reason == (before or (reason if asked.ended_s is None else asked.stop_reason))
            self.reasons[attempt.id] = asked.stop_reason

    @rule(lease=leases)
    def give_up_the_lease(self, lease):
        if lease == self.holder:
            self.guarded(lease, lambda: self.store.release(lease))
            self.holder = None

    @rule(lease=leases)
    def look_after(self, lease):
        """What has ended is looked after once."""
        for _, attempt in self.store.uncleaned():
            self.guarded(lease, lambda attempt=attempt: self.store.mark_cleaned(lease, attempt))

    @rule(lease=leases)
    def give_up_late(self, lease):
        self.guarded(lease, lambda: self.store.give_up_late(lease))

    @rule(number=st.integers(1, 8))
    def cancel(self, number):
        if number <= sum(self.store.counts().values()):
            before = self.store.job(number)
            self.store.cancel(number, "ann")
            if before.state == "queued":
                self.cancelled.add(number)

    @rule(lease=consumes(leases))
    def dispatcher_dies(self, lease):
        """Nobody hears of it."""

    @rule(seconds=st.sampled_from([-4000.0, -1.0, 1.0, 60.0, 4000.0]))
    def clock_jumps(self, seconds):
        self.now_s += seconds

    def guarded(self, lease, action):
        """What the dispatcher in office does is done; what another one does changes nothing."""
        before = self.snapshot()
        try:
            result = action()
        except StaleLease:
            assert lease != self.holder
            assert self.snapshot() == before
            return None
        assert lease == self.holder
        return result

    def snapshot(self):
        jobs = self.store.jobs(limit=1000)
        return jobs, [self.store.attempts(job.id) for job in jobs]

    @invariant()
    def the_promises_hold(self):
        for job, attempts in zip(*self.snapshot(), strict=True):
            live = [attempt for attempt in attempts if attempt.ended_s is None]
            assert len(live) == (job.state in LIVE), "one live attempt while it is live, else none"
            assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
            for cause, forgiven in RETRY_LIMITS.items():
                assert sum(attempt.cause == cause for attempt in attempts) <= forgiven + 1
            if job.id in self.ended:
                assert job.state == self.ended[job.id], "a terminal state changed"
            if job.state in TERMINAL:
                self.ended[job.id] = job.state
            if job.id in self.cancelled:
                assert job.state == "cancelled"
            assert (job.state == "succeeded") == any(attempt.cause == "succeeded" for attempt in attempts) == bool(job.result)
        assert sum(self.store.counts().get(state, 0) for state in LIVE) <= RUNNING

    def teardown(self):
        self.store.engine.dispose()


WALKS = settings(stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
EVERYDAY, FULL = 4, 60
"""How many walks: in every run of the tests, and in the long one."""


@pytest.mark.parametrize("walks", [EVERYDAY, pytest.param(FULL, marks=pytest.mark.long)])
def test_on_sqlite(walks):
    with tempfile.TemporaryDirectory() as folder:

        class OnSqlite(Jobs):
            def fresh_url(self):
                return f"sqlite:///{Path(folder) / uuid.uuid4().hex}.db"

        run_state_machine_as_test(OnSqlite, settings=settings(WALKS, max_examples=walks))


@pytest.mark.parametrize("walks", [EVERYDAY // 4, pytest.param(FULL // 4, marks=pytest.mark.long)])
def test_on_postgres(postgres, walks):
    """Fewer walks, since each has a database of its own."""

    class OnPostgres(Jobs):
        def fresh_url(self):
            return new_database(postgres)

    run_state_machine_as_test(OnPostgres, settings=settings(WALKS, max_examples=walks))
