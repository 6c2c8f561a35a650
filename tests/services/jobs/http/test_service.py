"""The job service without HTTP: values in, values out, and who may do what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.auth import User
from services.common.errors import Conflict, Forbidden, NotFound
from services.jobs.http.requests import Filter, Selection, Submission
from services.jobs.http.service import JobService
from services.jobs.queue.limits import Limits
from services.jobs.queue.store import Store, open_store
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.errors import InputError, RunError

ANN, BOB, EVE, ROOT = User("ann", "submitter"), User("bob", "submitter"), User("eve", "viewer"), User("root", "operator")
TOY = Submission(kind="ingest", config={"layout": "toy"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'jobs.db'}")
    yield store
    store.engine.dispose()


@pytest.fixture
def service(store: Store, tmp_path: Path) -> JobService:
    return JobService(store, str(tmp_path / "root"), AllowedPaths([str(tmp_path / "root")]))


def test_a_submitted_job_comes_back_as_a_value_with_its_position(service: JobService) -> None:
    view, is_new = service.submit(ANN, TOY, "key")
    assert (view.job.owner, view.job.cpus, view.position, view.attempts, is_new) == ("ann", 1.0, 1, 0, True)
    again, is_new = service.submit(ANN, TOY, "key")
    assert (again.job, is_new) == (view.job, False)
    details = service.explain(view.job.id)
    assert details.view == view
    assert [(step.name, step.state) for step in details.steps] == [("ingest", "waiting")]
    assert (details.attempts, details.pictures) == ([], [])
    assert details.links == {"mlflow_run": "", "mlflow_runs": ""}
    assert [event["what"] for event in details.events] == ["submitted"]


def test_roles_and_owners_are_checked_by_the_service_itself(service: JobService) -> None:
    job = service.submit(ANN, TOY)[0].job
    with pytest.raises(Forbidden, match="this needs a token of a submitter"):
        service.submit(EVE, TOY)
    with pytest.raises(Forbidden, match="belongs to 'ann'"):
        service.cancel(BOB, job.id)
    with pytest.raises(Forbidden, match="this needs a token of an operator"):
        service.set_limits(ANN, Limits())
    with pytest.raises(Conflict, match="is queued"):
        service.retry(ANN, job.id)
    assert service.cancel(ROOT, job.id).job.state == "cancelled"
    assert service.retry(ANN, job.id).job.retry_of == job.id
    with pytest.raises(NotFound, match="no job 77"):
        service.explain(77)


def test_many_jobs_are_cancelled_and_each_refusal_is_named(service: JobService) -> None:
    ids = [service.submit(user, TOY)[0].job.id for user in (ANN, BOB)]
    done = service.cancel_many(ANN, Selection(ids=[*ids, 77]))
    assert (done.cancelled, sorted(done.refused)) == ([ids[0]], [ids[1], 77])
    with pytest.raises(InputError, match="say which jobs"):
        service.cancel_many(ANN, Selection())


def test_the_queue_and_its_pages_are_values(service: JobService) -> None:
    ids = [service.submit(ANN, TOY)[0].job.id for _ in range(3)]
    page = service.jobs(Filter(limit=2))
    assert ([view.job.id for view in page.jobs], page.next) == ([ids[2], ids[1]], ids[1])
    queue = service.queue()
    assert [turn.job.id for turn in queue.turns] == ids
    assert (queue.counts, queue.usage.jobs) == ({"queued": 3}, [])
    assert service.log(ids[0]).attempt == 0
    assert service.audit(limit=1)[0]["job_id"] == ids[2]


def test_a_store_that_does_not_answer_is_named_without_its_address(service: JobService, store: Store, tmp_path: Path) -> None:
    service.check_store()
    store.engine.dispose()
    tmp_path.rename(tmp_path.with_name("gone"))
    with pytest.raises(RunError, match=r"^the job store does not answer$"):
        service.check_store()
    tmp_path.with_name("gone").rename(tmp_path)
