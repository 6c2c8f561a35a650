"""What a job counts for: a user who is not operator cannot have it count for less than it will use."""

from __future__ import annotations

import pytest

from services.jobs.http.quotas import held_resources
from services.jobs.http.requests import Submission
from services.jobs.queue.limits import Limits, ProjectLimits
from services.jobs.queue.records import JobRequest
from services.jobs.runs.dispatcher import Dispatcher
from services.jobs.runs.settings import DispatcherSettings
from services.jobs.runs.steps import least_of

TOY = {"layout": "toy"}


def submit(served, token, config=None, **fields):
    return served.client(token).post("/api/jobs", json={"kind": "ingest", "config": {**TOY, **(config or {})}, **fields})


@pytest.mark.parametrize(
    ("config", "fields", "uses"),
    [
        ({}, {"cpus": 0.0}, "asks for 0 CPUs, but uses 1"),
        ({"num_workers": 4}, {"cpus": 1}, "asks for 1 CPUs, but uses 4"),
        ({"threads": 8}, {"cpus": 2}, "asks for 2 CPUs, but uses 8"),
        ({"num_workers": 2, "threads": 3}, {"cpus": 5}, "asks for 5 CPUs, but uses 6"),
        ({}, {"gpus": 0.01}, "asks for 0.01 GPUs, but uses all of each"),
    ],
)
def test_a_submitter_cannot_declare_less_than_the_job_uses(served, config, fields, uses):
    served.store.set_limits(Limits(gpus=4), "test")
    refused = submit(served, "submitter", config, **fields)
    assert refused.status_code == 422
    assert uses in refused.json()["error"]
    assert submit(served, "operator", config, **fields).status_code == 201


def test_what_is_not_declared_is_what_the_job_uses(served):
    assert submit(served, "submitter", {"threads": 6}).json()["cpus"] == 6
    assert submit(served, "submitter").json()["cpus"] == 1
    assert submit(served, "submitter", cpus=8).json()["cpus"] == 8


@pytest.mark.parametrize(
    ("kind", "config", "cpus", "gpus"),
    [
        ("train", {"num_workers": 4, "cpus_per_worker": 0.01, "gpus_per_worker": 0.001}, 4, 4),
        ("train", {"num_workers": 2, "cpus_per_worker": 3, "decode_threads": 2}, 6, 0),
        ("sweep", {"at_once": 3, "num_workers": 2, "gpus_per_worker": 1}, 6, 6),
        ("pipeline", {"ingest": {"threads": 5}, "train": {"num_workers": 2, "gpus_per_worker": 0.5}}, 5, 2),
    ],
)
def test_shares_of_a_processor_count_as_whole_ones(kind, config, cpus, gpus):
    least = least_of(kind, config)
    assert (least.cpus, least.gpus) == (cpus, gpus)


def test_where_gpus_are_limited_one_process_holds_one_or_sees_none(served, tmp_path):
    """Nothing else keeps a process from a GPU that it sees."""
    store = served.store

    def held(project, **fields):
        user = served.app.state.users.user_of(served.tokens["submitter"])
        asked = Submission.of({"kind": "pretrain", "config": {}, "project": project, **fields})
        return held_resources(user, asked, {}, store.limits())["gpus"]

    assert held("default") == 0, "nobody counts GPUs"
    store.set_limits(Limits(projects={"vision": ProjectLimits(gpu_hours=5)}), "test")
    assert [held("default"), held("vision"), held("vision", gpus=0.0)] == [0, 1, 0]
    dispatcher = Dispatcher(store, None, DispatcherSettings(root=str(tmp_path)))
    for project, gpus, hidden in (("vision", 0, True), ("vision", 1, False), ("default", 0, False)):
        job = store.submit(JobRequest.of({"kind": "pretrain", "config": {}, "project": project, "gpus": gpus}))
        assert (dispatcher._confinement(job).get("CUDA_VISIBLE_DEVICES") == "") == hidden
