"""One clock for all: what is stored and compared does not depend on the clocks of the machines that do it."""

from __future__ import annotations

import time

import pytest
from servers.postgres import new_database

from services.common.tokens import Tokens
from services.jobs.queue.limits import Limits
from services.jobs.queue.records import JobRequest
from services.jobs.queue.store import open_store

AHEAD_S = 600.0


@pytest.fixture
def shared(postgres):
    """A store of a team, as a process sees it whose clock is right."""
    store = open_store(new_database(postgres))
    yield store
    store.engine.dispose()


@pytest.fixture
def ahead(shared, monkeypatch):
    """The same store, as a process sees it whose clock is ten minutes ahead: from now on that is this process."""
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + AHEAD_S)
    store = open_store(shared.url)
    yield store
    store.engine.dispose()


def test_a_process_whose_clock_is_wrong_stores_and_compares_as_all_others_do(shared, ahead):
    lease = ahead.take_lease("ahead", None)
    job = shared.submit(JobRequest(kind="ingest", config={}, start_by_s=shared.now() + 60, time_limit_s=60))
    assert ahead.give_up_late(lease) == [], "a minute is left"
    attempt = ahead.claim(lease, Limits())
    assert attempt
    ahead.started(lease, attempt)
    started = ahead.attempts(job.id)[0]
    assert 0 <= started.claimed_s - job.submitted_s < 60
    assert 0 <= ahead.now() - started.started_s < 60, "no time limit has passed"
    ahead.end(lease, attempt, "unknown", ran_s=1.0)
    waits_s = ahead.job(job.id).not_before_s - shared.now()
    assert 0 < waits_s <= 15
    assert all(abs(event["at_s"] - shared.now()) < 60 for event in shared.events(job.id))


def test_sessions_and_codes_end_by_the_stores_clock(shared, ahead):
    tokens = Tokens(ahead)
    token = tokens.bearer(tokens.make("ann", "viewer", "test"))
    secret = Tokens(shared).open_session(tokens.make_login(token))
    assert tokens.session(secret) == token


def test_the_store_of_one_machine_has_that_machines_clock(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/jobs.db")
    assert abs(store.now() - time.time()) < 5
    store.engine.dispose()


def claimed(tmp_path):
    """A store with a claimed attempt, its lease, and the time of its clock, which tests move."""
    now = [1e9]
    store = open_store(f"sqlite:///{tmp_path}/jobs.db", clock=lambda: now[0])
    lease = store.take_lease("test", None)
    store.submit(JobRequest(kind="ingest", config={}))
    attempt = store.claim(lease, Limits())
    return store, lease, attempt, now


@pytest.mark.parametrize("wrong_s", [-3600.0, 0.0, 3600.0])
def test_an_attempt_on_a_node_with_a_wrong_clock_counts_for_as_long_as_it_ran(tmp_path, wrong_s):
    store, lease, attempt, now = claimed(tmp_path)
    now[0] += 100
    store.started(lease, attempt)
    now[0] += 5000  # the dispatcher was away
    store.end(lease, attempt, "succeeded", began_s=1e9 + 100 + wrong_s, ended_s=1e9 + 400 + wrong_s, ran_s=300.0)
    (ended,) = store.attempts(attempt.job_id)
    assert ended.ended_s - ended.started_s == 300
    store.engine.dispose()


@pytest.mark.parametrize("wrong_s", [-3600.0, 0.0, 3600.0])
def test_the_same_where_nobody_saw_it_start(tmp_path, wrong_s):
    store, lease, attempt, now = claimed(tmp_path)
    now[0] += 5000
    store.end(lease, attempt, "succeeded", began_s=1e9 + 100 + wrong_s, ended_s=1e9 + 400 + wrong_s, ran_s=300.0)
    (ended,) = store.attempts(attempt.job_id)
    assert ended.ended_s - ended.started_s == 300
    assert attempt.claimed_s <= ended.started_s <= ended.ended_s <= now[0]
    store.engine.dispose()
