"""The queue as a team has it: PostgreSQL behind it, all of its files in object storage, asked over HTTP with tokens."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from servers.job_queue import job_queue
from servers.mlflow_server import mlflow_server
from servers.postgres import new_database

from services.common.tokens import Tokens
from services.jobs.http.api import create_app
from services.jobs.http.state import ApiSettings
from zsbir.base.artifact import Artifact, exists
from zsbir.base.storage import join, open_folder

pytestmark = pytest.mark.slow

TINY = {"image_px": 32, "classes_per_batch": 4, "per_class": 2, "eval_every_steps": 1000, "log_every_steps": 2}
SIZES = {"toy_photos_per_class": 6, "toy_sketches_per_class": 6, "toy_px": 48}
PIPELINE = {
    "ingest": {"layout": "toy", **SIZES},
    "pretrain": {"image_px": 32, "photos_per_class": 4, "epochs": 1},
    "teacher": {"backbone": "resnet18", "image_px": 32},
    "evaluate": {},
    "index": {},
}


class Ann:
    """Somebody who may submit, at the service's address."""

    def __init__(self, http: httpx.Client, queue):
        self.http, self.queue = http, queue

    def submit(self, **job):
        answer = self.http.post("/api/jobs", json=job)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def get(self, path):
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer

    def ended(self, job_id):
        self.queue.ended(job_id)
        return self.get(f"/api/jobs/{job_id}").json()


@pytest.fixture
def ann(head, s3_root, postgres, weights, tmp_path):
    served = tmp_path / "mlflow"
    served.mkdir()
    url = new_database(postgres)
    storage = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with (
        mlflow_server(f"sqlite:///{served}/mlflow.db", served) as tracking,
        job_queue(s3_root, head | storage, tmp_path, tracking, url=url) as queue,
    ):
        app = create_app(ApiSettings(store=url, root=s3_root, places=(str(Path(weights).parent),), mlflow_url=tracking))
        token = Tokens(queue.store).make("ann", "submitter", "test")
        with TestClient(app, base_url="http://127.0.0.1", headers={"Authorization": f"Bearer {token}"}) as http:
            yield Ann(http, queue)


def test_a_pipeline_over_object_storage_is_told_whole(ann, s3_root):
    job_id = ann.submit(kind="pipeline", config={**PIPELINE, "train": {"recipe": "toy", **TINY, "steps": 4}})
    job = ann.ended(job_id)
    assert (job["state"], job["message"]) == ("succeeded", "")
    assert [(step["name"], step["state"]) for step in job["steps"]] == [
        (name, "done") for name in ("ingest", "pretrain", "teacher", "train", "evaluate", "index")
    ]
    made = {step["name"]: step["made"] for step in job["steps"]}
    assert job["result"] == made["index"]
    assert all(uri.startswith(s3_root) for uri in made.values())
    assert Artifact(made["train"], "run").manifest.counts["steps"] == 4
    assert [row["step"] for row in ann.get(f"/api/jobs/{job_id}/curve").json()["rows"]] == [1, 2, 4]
    log = ann.get(f"/api/jobs/{job_id}/log")
    assert log.headers["X-Log-End"] == "true"
    assert made["index"] in log.text
    assert log.text[-200:] == ann.get(f"/api/jobs/{job_id}/log?offset=-200").text
    pictures = {picture["name"]: ann.get(picture["url"]).content for picture in job["pictures"]}
    assert {"train-curves.png", "evaluate-grid.png"} <= pictures.keys()
    assert all(data.startswith(b"\x89PNG") for data in pictures.values())
    page = httpx.get(job["links"]["mlflow_run"])
    assert page.status_code == 200


@pytest.mark.long
def test_what_is_cancelled_goes_on_from_its_checkpoint_in_object_storage(ann, s3_root, weights):
    dataset = ann.ended(ann.submit(kind="ingest", config=PIPELINE["ingest"]))["result"]
    endless = {"recipe": "toy", **TINY, "dataset": dataset, "weight_preservation": 0, "weights": weights, "steps": 400}
    endless |= {"checkpoint_every_steps": 100_000}
    first = ann.submit(kind="train", config=endless)
    ann.queue.at_step(first, 3)
    assert ann.http.post(f"/api/jobs/{first}/cancel").json()["cancelling"]
    cancelled = ann.ended(first)
    assert cancelled["state"] == "cancelled"
    run = ann.queue.newest(first).status("train")["facts"]["run"]
    assert run.startswith(s3_root)
    assert not exists(run)
    (left,) = [name for name in open_folder(join(run, "checkpoints")).names() if name.startswith("step-")]
    step = int(left.removeprefix("step-"))
    assert step >= 3
    again = ann.http.post(f"/api/jobs/{first}/retry").json()["id"]
    ann.queue.at_step(again, step + 1)
    ann.http.post(f"/api/jobs/{again}/cancel")
    assert ann.ended(again)["attempts_made"][0]["resumed_from"] == f"step {step}"
