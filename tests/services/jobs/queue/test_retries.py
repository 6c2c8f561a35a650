"""When a job is tried again: outages by time and with growing pauses, everything else by number."""

from __future__ import annotations

import pytest

from services.jobs.queue.limits import Limits
from services.jobs.queue.records import JobRequest
from services.jobs.queue.retries import OUTAGE_PAUSE_S, OUTAGE_S, WORKED_S, AttemptEnd, retry_after
from services.jobs.queue.store import open_store


def outage(*, cause="unreachable", ran_s=5.0):
    """The ends and pauses of a job that fails at once each time, until it is given up."""
    ends, pauses, now_s = [], [], 1000.0
    while True:
        now_s += ran_s
        ends.append(AttemptEnd(cause, ran_s, now_s))
        retry = retry_after(ends)
        if retry.gives_up:
            return ends, pauses, retry
        pauses.append(retry.pause_s)
        now_s += retry.pause_s


@pytest.mark.parametrize("cause", ["unreachable", "disk_full"])
def test_an_outage_is_waited_for_with_growing_pauses_for_an_hour(cause):
    ends, pauses, retry = outage(cause=cause)
    assert pauses[:5] == [30.0, 60.0, 120.0, 240.0, 480.0]
    assert max(pauses) == OUTAGE_PAUSE_S
    assert OUTAGE_S <= ends[-1].ended_s - ends[0].ended_s < OUTAGE_S + 60
    assert retry.outage_s == ends[-1].ended_s - ends[0].ended_s
    assert len(ends) < 20


def test_the_last_attempt_comes_when_the_hour_is_over_and_not_before():
    ends, _, _ = outage(ran_s=0.0)
    assert ends[-1].ended_s - ends[0].ended_s == OUTAGE_S


def test_an_attempt_that_worked_for_long_shows_that_the_outage_before_it_was_over():
    before = [AttemptEnd("unreachable", 5.0, 1000.0), AttemptEnd("unreachable", 5.0, 4000.0)]
    assert retry_after([*before, AttemptEnd("unreachable", 5.0, 4700.0)]).gives_up
    worked = retry_after([*before, AttemptEnd("unreachable", WORKED_S, 4700.0)])
    assert (worked.gives_up, worked.pause_s) == (False, 30.0)


def test_a_lost_attempt_in_between_neither_ends_the_outage_nor_counts_as_one():
    ends = [AttemptEnd("disk_full", 1.0, 1000.0), AttemptEnd("lost", 1.0, 1100.0), AttemptEnd("unreachable", 1.0, 1200.0)]
    assert retry_after(ends).pause_s == 60.0
    assert retry_after(ends).outage_s == 200.0
    assert retry_after(ends[:2]).pause_s == 1.0


def test_an_error_of_the_command_ends_an_outage():
    ends = [AttemptEnd("unreachable", 1.0, 1000.0), AttemptEnd("unknown", 1.0, 2000.0), AttemptEnd("unreachable", 1.0, 4000.0)]
    assert retry_after(ends).outage_s == 0.0


def test_other_causes_double_their_pauses_up_to_an_hour():
    ends = [AttemptEnd("busy", 1.0, float(number)) for number in range(1, 21)]
    assert [retry_after(ends[:count]).pause_s for count in (1, 2, 3, 20)] == [5.0, 10.0, 20.0, 3600.0]


def test_a_job_waits_for_an_outage_as_queued_and_fails_with_the_cause_and_the_time(tmp_path):
    now = [1e9]
    store = open_store(f"sqlite:///{tmp_path}/jobs.db", clock=lambda: now[0])
    lease = store.take_lease("test", None)
    waiting = store.submit(JobRequest(kind="ingest", config={}))
    states = []
    while True:
        attempt = store.claim(lease, Limits(running=1))
        assert attempt
        assert attempt.job_id == waiting.id
        now[0] += 2
        states.append(store.end(lease, attempt, "unreachable", message="error: nobody answers"))
        job = store.job(waiting.id)
        if job.state != "queued":
            break
        other = store.submit(JobRequest(kind="ingest", config={}, priority=1))
        taken = store.claim(lease, Limits(running=1))
        assert taken
        assert taken.job_id == other.id, "it holds no slot while it waits"
        store.end(lease, taken, "succeeded")
        now[0] = job.not_before_s
    assert states == ["queued"] * (len(states) - 1) + ["failed"]
    assert job.message == "error: nobody answers (tried for 60 minutes)"
    assert len(states) > 8
    store.engine.dispose()


def test_a_store_whose_disk_is_full_says_so_changes_nothing_and_goes_on_when_there_is_room(tmp_path):
    """A real SQLite that may not grow: what a full disk does to it."""
    from sqlalchemy import event

    from services.jobs.queue.store import open_store as opened
    from zsbir.base.errors import DiskFull

    store = opened(f"sqlite:///{tmp_path}/jobs.db")
    store.submit(JobRequest(kind="ingest", config={}))
    may_grow = [False]

    @event.listens_for(store.engine, "begin")
    def limit(database):
        pages = database.exec_driver_sql("PRAGMA page_count").scalar_one()
        database.exec_driver_sql(f"PRAGMA max_page_count = {2**30 if may_grow[0] else pages}")

    large = JobRequest(kind="ingest", config={"layout": "x" * 300_000})
    with pytest.raises(DiskFull, match=r"the disk of the job store .* is full"):
        store.submit(large)
    assert [job.id for job in store.jobs()] == [1]
    may_grow[0] = True
    assert store.submit(large).id == 2
    store.engine.dispose()


def test_attempts_that_each_work_a_quarter_of_an_hour_against_an_outage_are_one_outage():
    """A training goes on without its storage for that long before it gives up."""
    ends, now_s = [], 0.0
    for _ in range(10):
        now_s += 950
        ends.append(AttemptEnd("unreachable", 920.0, now_s))
        found = retry_after(ends)
        if found.gives_up:
            break
        now_s += found.pause_s
    assert found.gives_up
    assert now_s < 2.5 * OUTAGE_S
