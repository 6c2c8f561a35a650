"""Trying jobs again over HTTP: what is taken along, what is checked, whose the new jobs are, and that nothing is done twice."""

from __future__ import annotations

import pytest

from services.jobs.http.submissions import Submissions
from services.jobs.queue.limits import Limits, ProjectLimits
from services.jobs.queue.targets import Targets, set_targets

NIGHT = {"kind": "pipeline", "config": {"recipe": "toy"}}
SEEDS = {**NIGHT, "each": {"train.seed": [0, 1, 2]}}


def retry(served, path, token="submitter"):
    return served.client(token).post(f"/api/{path}/retry")


def fail(served, number=1):
    """Let the next jobs of the queue run and fail, and cancel what was to start after their success."""
    for _ in range(number):
        served.end(served.run()[0], "user_error")
    served.store.give_up_dependents(served.lease)


def retries(served):
    return {job.id: job.retry_of for job in served.store.jobs() if job.retry_of}


def some_pictures(folder):
    for each in (folder / kind / name for kind in ("photo", "sketch") for name in "abcdefghij"):
        each.mkdir(parents=True)
        (each / "1.png").write_bytes(b"x")
    return folder


def test_every_further_retry_takes_along_what_was_cancelled_for_the_one_before(served):
    first = served.submit("submitter")
    served.submit("submitter", after=[{"job": first}])
    served.submit("submitter", after=[{"job": 2}])
    fail(served)
    for newest in (1, 4, 7):
        assert retry(served, f"jobs/{newest}").status_code == 201
        assert [job.state for job in served.store.jobs(states=["queued"])] == ["queued"] * 3
        fail(served)
    assert retries(served) == {4: 1, 5: 2, 6: 3, 7: 4, 8: 5, 9: 6, 10: 7, 11: 8, 12: 9}


def test_a_job_is_gone_on_with_once_also_after_its_retry_was_tried_again(served):
    served.client("submitter").post("/api/jobs", json=SEEDS)
    fail(served, 3)
    assert retry(served, "jobs/1").json()["id"] == 4
    fail(served)
    assert retry(served, "jobs/4").json()["id"] == 5
    answer = retry(served, "jobs/1")
    assert (answer.status_code, answer.json()["error"]) == (409, "job 5 goes on with the work of job 1 already")
    served.end(served.run()[0], "succeeded")
    for number in (1, 4):
        answer = retry(served, f"jobs/{number}")
        assert (answer.status_code, answer.json()["error"]) == (409, f"job 5 went on with the work of job {number}, and succeeded")
    assert retries(served) == {4: 1, 5: 4}


@pytest.mark.parametrize("raced", [1, 2, 3])
def test_an_array_is_tried_again_beside_somebody_who_tries_one_of_its_jobs_again(served, monkeypatch, raced):
    served.client("submitter").post("/api/jobs", json=SEEDS)
    fail(served, 3)
    checked = Submissions._retry_request
    others = []

    def meanwhile(self, user, job, limits):
        if not others:
            others.append(job.id)
            others.append(retry(served, f"jobs/{raced}", "operator").json()["id"])
        return checked(self, user, job, limits)

    monkeypatch.setattr(Submissions, "_retry_request", meanwhile)
    answer = retry(served, "arrays/1")
    assert answer.status_code == 201
    assert [job["retry_of"] for job in answer.json()["jobs"]] == [1, 2, 3]
    assert sorted(retries(served).values()) == [1, 2, 3], "each once"
    assert others[1] in [job["id"] for job in answer.json()["jobs"]]


def test_a_retry_does_not_need_the_pictures_that_a_step_has_read(served, tmp_path):
    pictures = some_pictures(tmp_path / "root" / "pictures")
    config = {"recipe": "folder", "ingest": {"layout": "folder", "path": str(pictures), "unseen_frac": 0.3}}
    job = served.submit("submitter", kind="pipeline", config=config)
    fail(served)
    pictures.rename(tmp_path / "away")
    answer = retry(served, f"jobs/{job}")
    assert answer.status_code == 201, answer.text
    assert served.store.job(answer.json()["id"]).config == served.store.job(job).config


def test_a_retry_reads_nothing_that_jobs_may_not_read_any_more(served, tmp_path):
    pictures = some_pictures(tmp_path / "root" / "pictures")
    job = served.submit("submitter", kind="ingest", config={"layout": "folder", "path": str(pictures), "unseen_frac": 0.3})
    fail(served)
    pictures.rename(tmp_path / "secret")
    pictures.symlink_to(tmp_path / "secret")
    answer = retry(served, f"jobs/{job}")
    assert answer.status_code == 422
    assert "outside of what this service reads" in answer.json()["error"]


def test_a_retry_goes_on_without_a_target_that_the_operator_has_removed(served):
    set_targets(served.store, Targets.of({"targets": {"team": {"webhook": "http://h/x"}}}), "op")
    served.client("submitter").post("/api/jobs", json={**SEEDS, "notify": [{"to": "team"}]})
    fail(served, 3)
    set_targets(served.store, Targets(), "op")
    answer = retry(served, "arrays/1")
    assert (answer.status_code, len(answer.json()["jobs"])) == (201, 3)


def test_a_retry_is_held_to_the_limits_as_they_are_now(served):
    job = served.submit("submitter", cpus=4, project="vision")
    fail(served)
    served.store.set_limits(Limits(running=9, cpus=2), "op")
    answer = retry(served, f"jobs/{job}")
    assert (answer.status_code, "ask for less" in answer.json()["error"]) == (422, True)
    served.store.set_limits(Limits(running=9, projects={"other": ProjectLimits(gpus=1)}), "op")
    assert retry(served, f"jobs/{job}").status_code == 403


def test_an_operators_retry_leaves_the_jobs_with_their_owner_and_is_recorded_as_the_operators(served):
    served.client("submitter").post("/api/jobs", json=SEEDS)
    served.submit("submitter", after=[{"job": 1}])
    fail(served, 3)
    assert retry(served, "jobs/1", "operator").json()["owner"] == "submitter"
    assert [job.owner for job in served.store.jobs()] == ["submitter"] * 6
    assert served.store.job(6).retry_of == 4
    for number in (5, 6):
        submitted = [event["actor"] for event in served.store.events(number) if event["what"] == "submitted"]
        assert submitted == ["operator"]
    fail(served)
    assert retry(served, "arrays/1").status_code == 201
    assert retry(served, "arrays/1", "other").status_code in (403, 409)
