"""Stores of earlier versions migrate with their rows, on SQLite and on a real PostgreSQL, and back where nothing is in the way."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from services.jobs.queue.records import JobRequest
from services.jobs.queue.schema import downgrade, upgrade
from services.jobs.queue.states import KINDS
from services.jobs.queue.store import Store, open_store
from zsbir.base.errors import InputError

ROWS = (
    """insert into jobs (kind, config, project, owner, priority, cpus, gpus, state, message, cancelling, result, progress,
       idempotency_key, retry_of, submitted_s, not_before_s, ended_s) values
       ('train', '{"recipe": "toy"}', 'vision', 'ann', 5, 2, 0, 'failed', 'error: no', false, '',
        '{"frac": 0.5}', 'k', null, 1, 1, 9)""",
    """insert into jobs (kind, config, project, owner, priority, cpus, gpus, state, message, cancelling, result, progress,
       idempotency_key, retry_of, submitted_s, not_before_s) values
       ('train', '{"recipe": "toy"}', 'vision', 'ann', 5, 2, 0, 'queued', '', false, '', '{}', null, 1, 2, 2)""",
    """insert into attempts (job_id, number, submission_id, claimed_s, ended_s, cause, message, resumed_from, untidy) values
       (1, 1, 'zsbir-x-1-a1', 3, 9, 'user_error', 'error: no', '', false)""",
    "insert into events (at_s, job_id, actor, what, detail) values (1, 1, 'ann', 'submitted', '{}')",
)
"""What a store of versions 0001 and 0002 may hold: a job that failed, and its retry."""


@pytest.fixture
def old(url, request):
    """A store of an earlier version, with rows."""
    store = Store(url)
    upgrade(store.engine, request.param)
    with store.engine.begin() as database:
        for row in ROWS:
            database.execute(text(row))
    yield store
    store.engine.dispose()


@pytest.mark.parametrize("old", ["0001", "0002"], indirect=True)
def test_an_old_store_is_opened_with_its_rows(old, url):
    store = open_store(url)
    first, second = store.job(1), store.job(2)
    assert (first.state, first.message, first.config, first.progress) == ("failed", "error: no", {"recipe": "toy"}, {"frac": 0.5})
    assert (second.retry_of, second.state) == (1, "queued")
    assert {(job.name, job.array_of, *job.after, *job.notify, job.notified_s) for job in (first, second)} == {("", None, None)}
    assert [attempt.submission_id for attempt in store.attempts(1)] == ["zsbir-x-1-a1"]
    assert store.submit(JobRequest(kind="train", config={"recipe": "toy"})).id == 3
    store.engine.dispose()


@pytest.mark.parametrize("old", ["0002"], indirect=True)
def test_an_old_store_takes_the_kinds_that_came_later_and_no_others(old):
    with pytest.raises(IntegrityError), old.engine.begin() as database:
        database.execute(text("update jobs set kind = 'command' where id = 1"))
    upgrade(old.engine)
    for kind in KINDS:
        with old.engine.begin() as database:
            database.execute(text(f"update jobs set kind = '{kind}' where id = 1"))
    with pytest.raises(IntegrityError), old.engine.begin() as database:
        database.execute(text("update jobs set kind = 'nonsense' where id = 1"))
    if old.engine.dialect.name == "sqlite":
        with old.engine.connect() as database:
            assert database.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"


@pytest.mark.parametrize("old", ["0002"], indirect=True)
def test_a_key_of_an_old_store_still_stands_for_its_job(old, url):
    store = open_store(url)
    same = {"kind": "train", "config": {"recipe": "toy"}, "project": "vision", "owner": "ann", "priority": 5, "cpus": 2}
    assert store.submit(JobRequest(**same, name="toy", idempotency_key="k")).id == 1
    store.engine.dispose()


@pytest.mark.parametrize("old", ["0002"], indirect=True)
def test_a_store_goes_back_to_the_version_before_unless_it_has_newer_kinds(old):
    upgrade(old.engine)
    with old.engine.begin() as database:
        database.execute(text("update jobs set kind = 'promote' where id = 1"))
    with pytest.raises(RuntimeError, match="1 jobs are of a kind that the earlier version does not know"):
        downgrade(old.engine, "0002")
    with old.engine.begin() as database:
        database.execute(text("update jobs set kind = 'train' where id = 1"))
    downgrade(old.engine, "0002")
    with old.engine.connect() as database:
        assert database.execute(text("select state from jobs order by id")).scalars().all() == ["failed", "queued"]
    with pytest.raises(IntegrityError), old.engine.begin() as database:
        database.execute(text("update jobs set kind = 'promote' where id = 1"))


@pytest.mark.parametrize("old", ["0003"], indirect=True)
def test_an_old_store_takes_searchers_and_goes_back_unless_it_has_one(old):
    token = "insert into tokens (name, role, sha256, made_s) values ('ann', 'searcher', 'x', 1)"
    with pytest.raises(IntegrityError), old.engine.begin() as database:
        database.execute(text(token))
    upgrade(old.engine)
    with old.engine.begin() as database:
        database.execute(text(token))
    with pytest.raises(RuntimeError, match="1 tokens are of a role"):
        downgrade(old.engine, "0003")
    with old.engine.begin() as database:
        database.execute(text("delete from tokens"))
    downgrade(old.engine, "0003")
    with pytest.raises(IntegrityError), old.engine.begin() as database:
        database.execute(text(token))


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(url):
    store = open_store(url)
    store.submit(JobRequest(kind="train", config={"recipe": "toy"}))
    with store.engine.begin() as database:
        database.execute(text("update alembic_version set version_num = '9999'"))
        database.execute(text("create table later (id integer)"))
    with pytest.raises(InputError, match=r"newer version \(schema 9999; this one knows 0.*nothing was changed: run that version"):
        open_store(url)
    with store.engine.connect() as database:
        assert database.execute(text("select version_num from alembic_version")).scalars().all() == ["9999"]
        assert database.execute(text("select count(*) from later")).scalar_one() == 0
        assert database.execute(text("select count(*) from jobs")).scalar_one() == 1
    store.engine.dispose()
