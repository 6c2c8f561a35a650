"""What the job store promises, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from servers.postgres import new_database
from sqlalchemy import insert, inspect, text
from sqlalchemy.exc import IntegrityError

from services.common import database as databases
from services.jobs.queue.dispatching import MODELS_RESOLVED, NOBODY
from services.jobs.queue.limits import Limits, ProjectLimits
from services.jobs.queue.order import LOOK_AHEAD
from services.jobs.queue.records import JobRequest, Lease
from services.jobs.queue.retries import OUTAGES
from services.jobs.queue.schema import downgrade, upgrade
from services.jobs.queue.states import KINDS, RETRY_LIMITS, STATES
from services.jobs.queue.store import Store, open_store
from services.jobs.queue.tables import JOBS, METADATA
from services.jobs.queue.transactions import StaleLease
from zsbir.base.errors import InputError, RunError

MANY = Limits(running=10**6)


class Clock:
    """Time that tests move."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    return new_database(request.getfixturevalue("postgres"))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(url, clock):
    opened = open_store(url, clock=clock)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def lease(store):
    return store.take_lease("one", None)


def submit(store, **changes):
    return store.submit(JobRequest(**{"kind": "train", "config": {"recipe": "toy"}, **changes}))


def running(store, lease, **changes):
    """A job whose attempt runs, with it."""
    submit(store, **changes)
    attempt = store.claim(lease, MANY)
    assert store.started(lease, attempt)
    return attempt


def test_a_job_comes_back_as_it_was_submitted(store):
    config = {"recipe": "toy", "lr": 1e-3, "name": "é ' ; drop table jobs; --", "nested": [1, None, {"a": True}]}
    job = submit(store, config=config, project="vision", owner="ann", priority=7, gpus=1)
    assert store.job(job.id) == job
    assert (job.state, job.config, job.project, job.owner, job.priority, job.gpus) == ("queued", config, "vision", "ann", 7, 1)
    assert [event["what"] for event in store.events(job.id)] == ["submitted"]


def test_higher_priority_first_then_first_come(store, lease):
    ids = [submit(store, priority=priority).id for priority in (1, 5, 3, 5)]
    claimed = [store.claim(lease, MANY).job_id for _ in ids]
    assert claimed == [ids[1], ids[3], ids[2], ids[0]]
    assert store.claim(lease, MANY) is None


def test_one_key_of_one_owner_is_one_job_however_often_it_is_submitted(store):
    first = submit(store, owner="ann", idempotency_key="k")
    assert submit(store, owner="ann", idempotency_key="k").id == first.id
    assert submit(store, owner="bob", idempotency_key="k").id != first.id
    with pytest.raises(InputError, match="stands for job 1, which is another one"):
        submit(store, owner="ann", idempotency_key="k", config={"recipe": "sketchy_ext"})


def test_many_submissions_with_one_key_at_once_make_one_job(store, stores):
    processes = stores(4)
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda number: submit(processes[number % 4], owner="ann", idempotency_key="k").id, range(16)))
    assert len(ids) == 1
    assert store.counts() == {"queued": 1}


def test_a_life_from_submission_to_result(store, lease, clock):
    attempt = running(store, lease)
    job = store.job(attempt.job_id)
    assert (job.state, attempt.number) == ("running", 1)
    assert attempt.submission_id.endswith(f"-{job.id}-a1")
    assert store.report(lease, attempt, {"step": 5, "of": 10})
    clock.now_s += 60
    assert store.end(lease, attempt, "succeeded", result="artifacts/runs/toy-1") == "succeeded"
    job = store.job(job.id)
    assert (job.result, job.progress, job.ended_s) == ("artifacts/runs/toy-1", {"step": 5, "of": 10}, clock.now_s)
    assert store.live() == []
    assert [event["what"] for event in store.events(job.id)] == ["submitted", "attempt begun", "attempt ended"]


def test_what_the_models_of_a_job_stand_for_is_recorded_once(store, lease, clock):
    first = running(store, lease)
    store.record_models(lease, first, {"run models:/zsbir@champion": "version 1\0"})
    store.end(lease, first, "preempted")
    second = store.claim(lease, MANY)
    store.record_models(lease, second, {"run models:/zsbir@champion": "version 2"})
    recorded = [event["detail"] for event in store.events(first.job_id) if event["what"] == MODELS_RESOLVED]
    assert recorded == [{"run models:/zsbir@champion": "version 1"}]
    with pytest.raises(StaleLease):
        store.record_models(replace(lease, epoch=lease.epoch - 1), second, {"run": "x"})


@pytest.mark.parametrize("cause", sorted(set(RETRY_LIMITS) - OUTAGES))
def test_an_attempt_is_tried_again_as_often_as_its_cause_allows(store, lease, clock, cause):
    job = submit(store)
    for number in range(1, RETRY_LIMITS[cause] + 2):
        attempt = store.claim(lease, MANY)
        assert attempt.number == number
        state = store.end(lease, attempt, cause, message=f"{cause} {number}")
        assert state == ("queued" if number <= RETRY_LIMITS[cause] else "failed")
        clock.now_s += 3600
    assert store.claim(lease, MANY) is None
    assert store.job(job.id).message == f"{cause} {RETRY_LIMITS[cause] + 1}"
    assert [attempt.cause for attempt in store.attempts(job.id)] == [cause] * (RETRY_LIMITS[cause] + 1)


def test_a_retry_waits_longer_each_time_but_preemption_waits_for_nothing(store, lease, clock):
    submit(store)
    waits = []
    for cause in ("lost", "lost", "lost", "preempted"):
        attempt = store.claim(lease, MANY)
        store.end(lease, attempt, cause)
        waits.append(store.job(attempt.job_id).not_before_s - clock.now_s)
        clock.now_s += waits[-1]
    assert waits == [1, 2, 4, 0]


def test_a_queued_job_is_cancelled_at_once_and_a_live_one_by_its_end(store, lease):
    queued, live = submit(store), None
    assert store.cancel(queued.id, "ann").state == "cancelled"
    live = running(store, lease)
    assert store.cancel(live.job_id, "ann").cancelling
    assert store.job(live.job_id).state == "running"
    assert store.end(lease, live, "cancelled", message="checkpoint of step 40 saved") == "cancelled"
    assert store.cancel(live.job_id, "bob").state == "cancelled"
    assert [event["actor"] for event in store.events(live.job_id)] == ["local", "one", "ann", "one"]


def test_a_cancelled_job_never_starts_again_and_never_succeeds(store, lease):
    attempt = running(store, lease)
    store.cancel(attempt.job_id, "ann")
    assert store.end(lease, attempt, "preempted") == "cancelled"
    assert store.end(lease, attempt, "succeeded", result="x") is None
    assert store.job(attempt.job_id).state == "cancelled"
    assert store.claim(lease, MANY) is None


def test_what_has_ended_takes_no_more_reports(store, lease):
    attempt = running(store, lease)
    store.end(lease, attempt, "succeeded", result="x")
    before = store.job(attempt.job_id)
    assert not store.report(lease, attempt, {"step": 99})
    assert not store.started(lease, attempt)
    assert store.end(lease, attempt, "unknown") is None
    assert store.job(attempt.job_id) == before


def test_a_job_that_misses_its_deadline_is_given_up_and_one_that_has_run_is_not(store, lease, clock):
    late, early = submit(store, start_by_s=clock.now_s + 10), submit(store, start_by_s=clock.now_s + 10, priority=9)
    attempt = store.claim(lease, MANY)
    assert attempt.job_id == early.id
    store.started(lease, attempt)
    store.end(lease, attempt, "preempted")
    clock.now_s += 11
    assert store.give_up_late(lease) == [late.id]
    assert (store.job(late.id).state, store.job(early.id).state) == ("timed_out", "queued")


@pytest.mark.parametrize(("late_s", "given_up"), [(-1, False), (0, False), (1, True)])
def test_a_deadline_is_missed_when_it_is_past(store, lease, clock, late_s, given_up):
    job = submit(store, start_by_s=clock.now_s)
    clock.now_s += late_s
    assert store.give_up_late(lease) == [job.id] * given_up


@pytest.mark.parametrize(("early_s", "claimed"), [(1, False), (0, True)])
def test_a_job_is_tried_again_when_its_rest_is_over(store, lease, clock, early_s, claimed):
    job = submit(store)
    store.end(lease, store.claim(lease, MANY), "lost")
    clock.now_s = store.job(job.id).not_before_s - early_s
    assert (store.claim(lease, MANY) is not None) == claimed


def test_a_rest_is_an_hour_at_most(store, lease, clock):
    submit(store)
    for number in range(13):
        attempt = store.claim(lease, MANY)
        store.end(lease, attempt, "lost")
        rest_s = store.job(attempt.job_id).not_before_s - clock.now_s
        assert rest_s == min(3600, 2**number)
        clock.now_s += rest_s


def test_waits_are_counted_up_to_their_bounds(store, lease, clock):
    for wait_s in (1, 5, 6):
        submit(store)
        clock.now_s += wait_s
        store.end(lease, store.claim(lease, MANY), "succeeded", result="x")
    assert store.waits((1, 5, 10)) == ([1, 2, 3, 3], 12.0)


def test_an_attempts_times_stay_within_it(store, lease, clock):
    """What began when it was claimed, and ended at this moment, is taken as it is."""
    submit(store)
    attempt = store.claim(lease, MANY)
    clock.now_s += 60
    store.end(lease, attempt, "preempted", began_s=attempt.claimed_s, ended_s=clock.now_s)
    (ended,) = store.attempts(attempt.job_id)
    assert (ended.started_s, ended.ended_s) == (attempt.claimed_s, clock.now_s)


def test_pages_begin_behind_the_last_one_seen(store):
    ids = [submit(store).id for _ in range(3)]
    assert [job.id for job in store.jobs(before=ids[1])] == [ids[0]]
    newest, older = (event["id"] for event in store.audit(limit=2))
    assert store.audit(before=newest, limit=1)[0]["id"] == older


def test_limits_hold_and_say_why(store, lease):
    limits = Limits(running=9, projects={"vision": ProjectLimits(cpus=2)})
    for _ in range(3):
        submit(store, project="vision")
    assert [store.claim(lease, limits) is not None for _ in range(3)] == [True, True, False]
    assert [turn.reason for turn in store.turns(limits)] == ["2 of 2 CPUs of project vision are in use by jobs 1, 2"]


def test_gpu_hours_are_counted_and_end_a_budget(store, lease, clock):
    limits = Limits(running=9, projects={"vision": ProjectLimits(gpu_hours=1)})
    submit(store, project="vision", gpus=2)
    attempt = store.claim(lease, limits)
    clock.now_s += 1800  # in a cluster's own queue, where it holds nothing
    store.started(lease, attempt)
    clock.now_s += 1800
    store.end(lease, attempt, "succeeded", result="x")
    submit(store, project="vision", gpus=2)
    assert store.claim(lease, limits) is None
    assert store.turns(limits)[0].reason == "project vision has spent 1.0 of its 1 GPU-hours"


def test_hours_in_which_no_dispatcher_ran_are_not_spent(store, lease, clock):
    """The machine was off: the attempt's own last sign says when its GPUs were free. What never started has spent nothing."""
    attempt = running(store, lease, gpus=2)
    clock.now_s += 3 * 3600
    store.end(lease, attempt, "lost", ended_s=clock.now_s - 3 * 3600 + 600)
    (ended,) = store.attempts(attempt.job_id)
    assert ended.ended_s - ended.started_s == 600
    clock.now_s += 10
    waiting = store.claim(lease, MANY)
    clock.now_s += 3 * 3600
    spent = "project default has spent 0.3 of its 0.2 GPU-hours"
    submit(store, gpus=2)
    (turn,) = store.turns(Limits(running=9, projects={"default": ProjectLimits(gpu_hours=0.2)}))
    assert turn.reason == spent
    store.end(lease, waiting, "succeeded", began_s=clock.now_s - 60, ended_s=clock.now_s - 30)
    last = store.attempts(attempt.job_id)[-1]
    assert last.ended_s - last.started_s == 30
    assert store.job(attempt.job_id).ended_s == last.ended_s


@pytest.mark.parametrize(("began_s", "ended_s"), [(0.0, 1.0), (2e9, 2e9), (2e9, 1.0)])
def test_a_clock_that_is_wrong_moves_no_end_out_of_its_attempt(store, lease, clock, began_s, ended_s):
    submit(store)
    attempt = store.claim(lease, MANY)
    clock.now_s += 60
    store.end(lease, attempt, "preempted", began_s=began_s, ended_s=ended_s)
    (ended,) = store.attempts(attempt.job_id)
    assert attempt.claimed_s <= (ended.started_s or attempt.claimed_s) <= ended.ended_s <= clock.now_s


def insert_jobs(store, number, **changes):
    """Many queued jobs at once, as rows: submitting each would take a transaction each."""
    first = vars(submit(store, **changes))
    row = {name: value for name, value in first.items() if name != "id"}
    with store.writing() as database:
        database.execute(insert(JOBS), [row] * (number - 1))


@pytest.mark.parametrize("held_back", [LOOK_AHEAD - 1, LOOK_AHEAD, LOOK_AHEAD + 1])
def test_a_thousand_that_are_held_back_hide_nobody(store, lease, held_back):
    limits = Limits(running=9, projects={"vision": ProjectLimits(cpus=0)})
    insert_jobs(store, held_back, project="vision")
    other = submit(store, project="audio")
    assert store.claim(lease, limits).job_id == other.id
    assert store.claim(lease, limits) is None


def test_values_that_no_database_takes_are_left_out(store, lease):
    attempt = running(store, lease)
    metrics = {"loss": float("nan"), "grad_norm": float("inf"), "dev": [1.0, float("-inf")]}
    assert store.report(lease, attempt, {"label": "tr\0ain", "metrics": metrics})
    assert store.job(attempt.job_id).progress == {
        "label": "train",
        "metrics": {"loss": None, "grad_norm": None, "dev": [1.0, None]},
    }
    assert store.end(lease, attempt, "user_error", message="what\0 it said") == "failed"
    assert store.job(attempt.job_id).message == "what it said"


@pytest.fixture
def stores(url, clock, store):
    """A function that opens the same database as further processes do, which share no lock with each other."""
    opened = []

    def open_more(number):
        opened.extend(Store(url, clock=clock) for _ in range(number))
        return opened

    yield open_more
    for each in opened:
        each.engine.dispose()


def test_a_claim_and_a_cancellation_at_once_are_one_after_the_other(store, lease, stores):
    """Also being given up for lateness; the second transaction finds what the first has done."""
    rounds = 16
    (people,) = stores(1)
    for number in range(rounds):
        job = submit(store, start_by_s=1.0 if number % 2 else None)
        both = threading.Barrier(2)

        def cancel(job=job, both=both):
            both.wait()
            return people.cancel(job.id, "ann")

        with ThreadPoolExecutor(1) as pool:
            cancelled = pool.submit(cancel)
            both.wait()
            attempt = None if number % 2 else store.claim(lease, MANY)
            late = store.give_up_late(lease) if number % 2 else []
            cancelled.result()
        now = store.job(job.id)
        if attempt is not None:
            assert (now.state, now.cancelling) == ("starting", True)
            assert store.end(lease, attempt, "cancelled") == "cancelled"
        else:
            assert now.state == ("timed_out" if late else "cancelled")


def test_of_several_first_dispatchers_one_has_the_lease(url):
    stores, all_at_once = [open_store(url) for _ in range(8)], threading.Barrier(8)

    def take(each):
        each.limits()  # connected before the race
        all_at_once.wait()
        return each.take_lease("somebody", None)

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, stores))
    assert sum(lease is not None for lease in taken) == 1
    for each in stores:
        each.engine.dispose()


def test_a_lease_is_taken_only_as_it_was_last_seen(store):
    first = store.take_lease("one", None)
    assert store.take_lease("two", None) is None
    seen = store.seen_lease()
    store.heartbeat(first)
    assert store.take_lease("two", seen) is None, "it beat meanwhile: its holder lives"
    seen = store.seen_lease()
    for wrong in (replace(seen, epoch=seen.epoch + 1), replace(seen, epoch=seen.epoch - 1), replace(seen, beats=seen.beats + 1)):
        assert store.take_lease("two", wrong) is None
    second = store.take_lease("two", seen)
    assert second.epoch == first.epoch + 1
    assert store.take_lease("three", seen) is None, "it was taken meanwhile"


def test_a_stale_lease_changes_nothing(store):
    stale = store.take_lease("one", None)
    attempt = running(store, stale)
    submit(store, start_by_s=0)
    store.take_lease("two", store.seen_lease())
    before = (store.jobs(), store.attempts(attempt.job_id))
    for action in (
        lambda: store.heartbeat(stale),
        lambda: store.claim(stale, MANY),
        lambda: store.started(stale, attempt),
        lambda: store.report(stale, attempt, {"step": 1}),
        lambda: store.end(stale, attempt, "succeeded", result="x"),
        lambda: store.give_up_late(stale),
        lambda: store.release(stale),
        lambda: store.ask_stop(stale, attempt, "cancelled"),
        lambda: store.mark_cleaned(stale, attempt),
        lambda: store.heartbeat(replace(stale, epoch=stale.epoch + 2)),
        lambda: store.heartbeat(replace(stale, epoch=stale.epoch + 1)),
        lambda: store.heartbeat(replace(stale, epoch=stale.epoch - 1)),
        lambda: store.heartbeat(Lease("two", stale.epoch)),
    ):
        with pytest.raises(StaleLease):
            action()
    assert (store.jobs(), store.attempts(attempt.job_id)) == before


@pytest.mark.parametrize(("claimers", "total"), [(16, 60), pytest.param(32, 1000, marks=pytest.mark.long)])
def test_many_claimers_claim_each_job_once(store, lease, stores, claimers, total):
    """In four processes, of which each has several threads."""
    insert_jobs(store, total)
    claimed, lock, processes = [], threading.Lock(), stores(4)

    def work(number):
        while attempt := processes[number % 4].claim(lease, MANY):
            with lock:
                claimed.append(attempt.job_id)

    with ThreadPoolExecutor(claimers) as pool:
        list(pool.map(work, range(claimers)))
    assert sorted(claimed) == sorted(job.id for job in store.jobs(limit=total))
    assert store.counts() == {"starting": total}
    assert Counter(attempt.number for _, attempt in store.live()) == {1: total}


def test_a_thread_that_waits_for_another_one_too_long_is_told_so(store, monkeypatch):
    monkeypatch.setattr(databases, "WAIT_S", 0.05)
    with store.writing(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(submit, store)
        with pytest.raises(RunError, match="asked by too many at once; nothing was changed"):
            waiting.result()
    assert store.counts() == {}
    submit(store)


def test_readers_wait_for_no_writer(store):
    submit(store)
    with store.writing() as database:
        database.execute(text("update jobs set priority = 9"))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(store.job, 1).result().priority == 0


def test_what_fails_in_a_transaction_lets_the_next_writer_in(store):
    with pytest.raises(ZeroDivisionError), store.writing():
        1 / 0  # noqa: B018
    submit(store)


def _claim_and_die(url: str, holder: str, epoch: int) -> None:
    store = Store(url)
    inner = store._set_state

    def die(*_args, **_changes):
        inner(*_args, **_changes)
        os.kill(os.getpid(), signal.SIGKILL)  # after the last write of the claim, before its commit

    store._set_state = die
    store.claim(Lease(holder, epoch), MANY)


def test_a_claimer_killed_before_its_commit_has_claimed_nothing(store, url, lease):
    job = submit(store)
    process = multiprocessing.get_context("spawn").Process(target=_claim_and_die, args=(url, lease.holder, lease.epoch))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert store.job(job.id).state == "queued"
    assert store.attempts(job.id) == []
    assert store.claim(lease, MANY).job_id == job.id


def test_the_database_itself_allows_one_live_attempt_of_a_job(store, lease):
    attempt = running(store, lease)
    with pytest.raises(IntegrityError), store.engine.begin() as database:
        database.execute(
            text(
                "insert into attempts (job_id, number, submission_id, claimed_s, message, resumed_from)"
                f" values ({attempt.job_id}, 2, 'x', 0, '', '')"
            )
        )


def test_the_database_takes_every_kind_and_state_and_no_other(store):
    ids = {kind: submit(store, kind=kind).id for kind in KINDS}
    change = "update jobs set {} = '{}' where id = " + str(ids["train"])
    for state in STATES:
        with store.engine.begin() as database:
            database.execute(text(change.format("state", state)))
    for column in ("kind", "state"):
        with pytest.raises(IntegrityError), store.engine.begin() as database:
            database.execute(text(change.format(column, "nonsense")))


def test_jobs_are_listed_newest_first_in_pages_and_by_what_they_are(store):
    ids = [submit(store, owner="ann" if number % 2 else "bob").id for number in range(7)]
    store.cancel(ids[0], "ann")
    first = store.jobs(limit=3)
    assert [job.id for job in first] == ids[:-4:-1]
    assert [job.id for job in store.jobs(before=first[-1].id, limit=3)] == ids[3:0:-1]
    assert {job.owner for job in store.jobs(owner="ann")} == {"ann"}
    assert [job.id for job in store.jobs(states=["cancelled"])] == [ids[0]]
    with pytest.raises(InputError, match="there is no job 999"):
        store.job(999)


def test_the_migrations_make_what_the_code_expects_and_take_it_away(store):
    with store.engine.connect() as database:
        assert compare_metadata(MigrationContext.configure(database, opts={"compare_type": True}), METADATA) == []
    upgrade(store.engine)
    downgrade(store.engine)
    assert set(inspect(store.engine).get_table_names()) <= {"alembic_version", "sqlite_sequence"}
    upgrade(store.engine)
    assert submit(store).id == 1


def test_several_open_a_new_store_at_once(url):
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: open_store(url), range(8)))
    assert submit(stores[0]).id == 1
    assert [found.job(1).state for found in stores] == ["queued"] * 8
    for found in stores:
        found.engine.dispose()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("nonsense", InputError),
        ("mysql://host/x", InputError),
        ("sqlite://", InputError),
        ("postgresql://nobody:secret@127.0.0.1:1/x", RunError),
        ("postgresql://db:secret/x", InputError),
        ("sqlite:////proc/self/status", RunError),
        (f"sqlite:///{__file__}", RunError),
    ],
)
def test_a_store_that_cannot_be_opened_is_one_error_line_without_the_password(wrong, error):
    with pytest.raises(error) as caught:
        open_store(wrong)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_lease_that_is_taken_over_counts_on_and_begins_without_a_heartbeat(store, lease):
    store.heartbeat(lease)
    store.heartbeat(lease)
    assert store.seen_lease() == Lease("one", 1, beats=2)
    assert store.take_lease("two", store.seen_lease()) == Lease("two", 2)
    assert store.seen_lease() == Lease("two", 2, beats=0)


def test_a_lease_that_was_given_up_is_nobodys_and_differs_from_what_was_seen_before(store, lease):
    seen = store.seen_lease()
    store.release(lease)
    assert store.seen_lease() == Lease(NOBODY, 1, beats=1)
    assert store.take_lease("two", seen) is None


def test_limits_are_as_they_were_set_last_and_the_first_ones_stay_where_some_are_set(store):
    store.set_limits(Limits(running=3, cpus=8), "ann", only_first=True)
    store.set_limits(Limits(running=9), "ann", only_first=True)
    assert store.limits() == Limits(running=3, cpus=8)
    store.set_limits(Limits(running=9), "ann")
    assert store.limits() == Limits(running=9)


def test_an_attempt_that_begins_clears_what_the_one_before_left_as_message(store, lease, clock):
    submit(store)
    store.end(lease, store.claim(lease, MANY), "lost", message="its worker was killed")
    clock.now_s += 3600
    assert store.job(store.claim(lease, MANY).job_id).message == ""


def test_ended_jobs_with_somebody_to_tell_are_found_until_they_were_told(store, lease):
    quiet, told, live = submit(store), submit(store, notify=[{"to": "team", "on": "end"}]), submit(store, notify=[{"to": "team"}])
    assert store.unnotified(0, 10) == ([], told.id)
    for _ in (quiet, told):
        store.end(lease, store.claim(lease, MANY), "succeeded")
    found, first = store.unnotified(0, 10)
    assert ([job.id for job in found], first) == ([told.id], told.id)
    store.mark_notified(lease, told.id, ["team"], {"boss": "it is away"})
    assert store.job(told.id).notified_s is not None
    assert [event["what"] for event in store.events(told.id)][-2:] == ["told", "not told"]
    assert store.unnotified(first, 10) == ([], live.id)
    store.cancel(live.id, "ann")
    assert [job.id for job in store.unnotified(live.id, 10)[0]] == [live.id]
    store.mark_notified(lease, live.id, ["team"], {})
    assert store.unnotified(0, 10) == ([], live.id + 1)
