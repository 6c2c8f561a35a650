"""Arrays, names and dependencies over HTTP: what people submit together, list as one and let wait for each other."""

from __future__ import annotations

import pytest

from services.jobs.queue.arrays import MOST_JOBS
from services.jobs.queue.limits import Limits

NIGHT = {"kind": "pipeline", "config": {"recipe": "toy"}}
SEEDS = {**NIGHT, "each": {"train.seed": [0, 1, 2]}}
DEV = {"value": 0.5, "metric": "map_all", "on": "dev", "step": 10}


def submit(served, token="operator", **words):
    answer = served.client(token).post("/api/jobs", json=words)
    assert answer.status_code == 201, answer.text
    return answer.json()


def get(served, path, **params):
    answer = served.client("viewer").get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(served, **words):
    answer = served.client("operator").post("/api/jobs", json=words)
    assert answer.status_code in (400, 422), answer.text
    return answer.json()["error"]


def one_at_a_time(served):
    served.store.set_limits(Limits(running=1), "test")


def test_seeds_are_one_submission_and_one_entry_that_opens(served):
    first = submit(served, **SEEDS)
    assert (first["id"], first["array_of"], first["name"], first["seed"], first["recipe"]) == (1, 1, "toy seed=0", 0, "toy")
    assert first["array"]["ids"] == [1, 2, 3]
    assert first["array"]["counts"] == {"queued": 3}
    [entry] = get(served, "/api/jobs", collapse=True)["jobs"]
    assert (entry["array"]["id"], entry["array"]["name"], entry["array"]["state"]) == (1, "toy", "queued")
    opened = get(served, "/api/arrays/1")
    assert [(job["id"], job["seed"], job["name"]) for job in opened["jobs"]] == [
        (1, 0, "toy seed=0"),
        (2, 1, "toy seed=1"),
        (3, 2, "toy seed=2"),
    ]
    assert [job["id"] for job in get(served, "/api/jobs", array=1)["jobs"]] == [3, 2, 1]
    assert [job["array"] for job in get(served, "/api/jobs")["jobs"]] == [None] * 3


def test_values_of_several_fields_make_every_combination_and_a_name_stays_in_front(served):
    submit(served, **NIGHT, name="night", each={"train.margin_cross": [0.1, 0.2], "train.seed": [0, 1]})
    jobs = get(served, "/api/arrays/1")
    assert jobs["name"] == "night"
    assert [job["name"] for job in jobs["jobs"]] == [
        f"night margin_cross={margin} seed={seed}" for margin in (0.1, 0.2) for seed in (0, 1)
    ]
    config = get(served, "/api/jobs/4")["config"]["train"]
    assert config == {"recipe": "toy", "margin_cross": 0.2, "seed": 1}


@pytest.mark.parametrize(
    ("each", "line"),
    [
        ({"train.seed": [1, 1]}, "train.seed needs different values, got 1, 1"),
        ({"train.seed": list(range(MOST_JOBS // 2)), "train.lr": [0.1, 0.2, 0.3]}, "an array has at most 200"),
        ({"seed": [0, 1]}, "unknown step 'seed'"),
        ({"train.sed": [0, 1]}, "train: unknown field 'sed'; did you mean 'seed'"),
        ({"train.seed": [0, -1]}, "seed"),
    ],
)
def test_an_array_of_which_one_job_cannot_be_is_refused_as_a_whole(served, each, line):
    assert line in refused(served, **NIGHT, each=each)
    assert get(served, "/api/jobs")["jobs"] == []


def test_a_key_stands_for_the_whole_array(served):
    client = served.client("submitter")
    answers = [client.post("/api/jobs", json=SEEDS, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    assert len(get(served, "/api/jobs")["jobs"]) == 3
    other = {**SEEDS, "each": {"train.seed": [0, 1, 3]}}
    assert client.post("/api/jobs", json=other, headers={"Idempotency-Key": "k"}).status_code == 409


def test_pages_of_entries_have_each_array_once_where_its_newest_job_is(served):
    submit(served, **SEEDS)
    submit(served, kind="ingest", config={"layout": "toy"})
    submit(served, **SEEDS)
    first = get(served, "/api/jobs", collapse=True, limit=2)
    assert [job["id"] for job in first["jobs"]] == [7, 4]
    second = get(served, "/api/jobs", collapse=True, limit=2, before=first["next"])
    assert [job["array"]["ids"] for job in second["jobs"]] == [[1, 2, 3]]
    assert second["next"] is None


def test_a_filter_finds_an_array_by_any_of_its_jobs_and_shows_the_whole(served):
    submit(served, **SEEDS)
    served.client("operator").post("/api/jobs/2/cancel")
    [entry] = get(served, "/api/jobs", collapse=True, state="cancelled")["jobs"]
    assert (entry["id"], entry["array"]["counts"], entry["array"]["state"]) == (2, {"queued": 2, "cancelled": 1}, "queued")


def test_an_array_is_cancelled_and_tried_again_as_one_and_stays_one(served):
    submit(served, "submitter", **SEEDS)
    assert served.client("other").post("/api/arrays/1/cancel").json()["cancelled"] == []
    attempt, _ = served.run()
    served.end(attempt, "succeeded", result="somewhere")
    assert served.client("submitter").post("/api/arrays/1/cancel").json() == {"cancelled": [2, 3], "refused": []}
    again = served.client("submitter").post("/api/arrays/1/retry")
    assert again.status_code == 201
    assert [(job["id"], job["retry_of"], job["array_of"]) for job in again.json()["jobs"]] == [(4, 2, 1), (5, 3, 1)]
    [entry] = get(served, "/api/jobs", collapse=True)["jobs"]
    assert (entry["array"]["ids"], entry["array"]["counts"]) == ([1, 4, 5], {"queued": 2, "succeeded": 1})
    assert served.client("submitter").post("/api/arrays/1/retry").status_code == 409


def test_the_best_of_an_array_has_its_seed_and_an_unseen_score_counts_more_than_a_dev_score(served):
    submit(served, **SEEDS)
    scores = [DEV, {**DEV, "value": 0.7}, {"value": 0.4, "metric": "map_all", "on": "unseen", "step": None}]
    attempts = [served.run()[0] for _ in scores]
    for attempt, score in zip(attempts[:2], scores[:2], strict=True):
        served.store.report(served.lease, attempt, {"score": score, "frac": 0.5, "left_s": 60.0})
    array = get(served, "/api/arrays/1")
    assert (array["best"]["seed"], array["best"]["score"], array["frac"]) == (1, scores[1], pytest.approx(1 / 3))
    served.store.report(served.lease, attempts[2], {"score": scores[2], "left_s": 90.0})
    array = get(served, "/api/arrays/1")
    assert (array["best"]["id"], array["left_s"]) == (3, 90.0)


@pytest.mark.parametrize("score", [5, {"value": "x"}, {**DEV, "value": 1e400}, {**DEV, "on": "moon"}, {"on": "dev"}, [DEV]])
def test_a_score_that_makes_no_sense_is_none(served, score):
    submit(served, **NIGHT)
    attempt, _ = served.run()
    served.store.report(served.lease, attempt, {"score": score})
    assert get(served, "/api/jobs/1")["score"] is None


def test_a_name_is_one_line_of_printable_characters(served):
    assert "name" in refused(served, **NIGHT, name="a\nb")
    assert "name" in refused(served, **NIGHT, name="x" * 101)
    assert submit(served, **NIGHT, name="  two   words ")["name"] == "two words"
    assert submit(served, **NIGHT, name="r\u202etl")["name"] == "r\\u202etl"


# --- dependencies


def after(job, on="success"):
    return {"after": [{"job": job, "on": on}]}


def test_a_job_that_is_named_twice_is_waited_for_once_and_success_includes_the_end(served):
    submit(served, **NIGHT)
    submit(served, **NIGHT)
    needed = [{"job": 2, "on": "end"}, *after(1)["after"], {"job": 2}, *after(1, "end")["after"], *after(1)["after"]]
    made = submit(served, **NIGHT, after=needed)
    assert made["after"] == [{"job": 2, "on": "success"}, {"job": 1, "on": "success"}]
    assert made["reason"] == "after jobs 2, 1"


def test_a_job_says_after_which_it_starts_and_holds_nobody_back(served):
    one_at_a_time(served)
    submit(served, **NIGHT, priority=-1)
    second = submit(served, **NIGHT, **after(1))
    assert (second["reason"], second["after"]) == ("after job 1", [{"job": 1, "on": "success"}])
    attempt, _ = served.run()
    assert attempt.job_id == 1
    served.end(attempt, "succeeded", result="x")
    assert get(served, "/api/jobs/2")["reason"] == ""
    assert served.run()[0].job_id == 2


def test_without_the_success_it_needs_a_job_is_cancelled_and_so_are_those_behind_it(served):
    submit(served, **NIGHT)
    submit(served, **NIGHT, **after(1))
    submit(served, **NIGHT, **after(2))
    submit(served, **NIGHT, **after(2, "end"))
    attempt, _ = served.run()
    served.end(attempt, "user_error", message="error: no such folder")
    assert get(served, "/api/jobs/2")["reason"] == "job 1 failed, and this was to start after its success"
    assert served.store.claim(served.lease, Limits(running=9)) is None
    assert served.store.give_up_dependents(served.lease) == [2, 3]
    states = {job["id"]: (job["state"], job["message"]) for job in get(served, "/api/jobs")["jobs"]}
    assert states[2] == ("cancelled", "job 1 failed, and this was to start after its success")
    assert states[3] == ("cancelled", "job 2 was cancelled, and this was to start after its success")
    assert states[4][0] == "queued"
    assert served.run()[0].job_id == 4


def test_a_retry_takes_along_what_was_cancelled_for_the_failed_job(served):
    submit(served, "submitter", **NIGHT)
    submit(served, "submitter", **NIGHT, **after(1))
    submit(served, "submitter", **NIGHT, **after(2))
    submit(served, "other", **NIGHT, **after(1))
    attempt, _ = served.run()
    served.end(attempt, "user_error")
    served.store.give_up_dependents(served.lease)
    answer = served.client("submitter").post("/api/jobs/1/retry")
    assert answer.json()["retry_of"] == 1
    jobs = {job["id"]: job for job in get(served, "/api/jobs")["jobs"]}
    assert {number: jobs[number]["retry_of"] for number in (5, 6, 7)} == {5: 1, 6: 2, 7: 3}
    assert 8 not in jobs, "another user's job is theirs to try again"
    assert (jobs[6]["reason"], jobs[7]["reason"]) == ("after job 1", "after job 2")
    for number in (5, 6, 7):
        attempt, _ = served.run()
        assert attempt.job_id == number
        served.end(attempt, "succeeded", result="x")


def test_a_failed_job_that_is_tried_again_at_once_keeps_those_that_wait_for_it(served):
    submit(served, **NIGHT)
    submit(served, **NIGHT, **after(1))
    attempt, _ = served.run()
    served.end(attempt, "user_error")
    served.client("operator").post("/api/jobs/1/retry")
    assert served.store.give_up_dependents(served.lease) == []
    assert get(served, "/api/jobs/2")["reason"] == "after job 1"


def test_jobs_that_do_not_exist_yet_cannot_be_waited_for(served):
    assert refused(served, **NIGHT, **after(1)) == "after: there is no job 1; see python -m services.jobs list"
    assert "after" in refused(served, **NIGHT, **after(0))
    assert "after" in refused(served, **NIGHT, **after(1, "luck"))
