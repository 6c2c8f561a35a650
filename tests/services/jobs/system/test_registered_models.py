"""A job that names the champion, over a real Ray and a real MLflow: it works on the version that was champion when it started."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from pictures import encoded, picture
from servers.job_queue import JobQueue, job_queue
from servers.mlflow_server import mlflow_server

from services.jobs.queue.dispatching import MODELS_RESOLVED
from zsbir import index, promote
from zsbir.base.artifact import Artifact

pytestmark = pytest.mark.slow

CHAMPION = "models:/zsbir@champion"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder) as address:
        yield address


@pytest.fixture(scope="module")
def queue(head, tracking, module_path, pipeline_root):
    """A queue that may read the root in which the models of these tests lie."""
    options = (*JobQueue.options, f"--places={pipeline_root}")
    with job_queue(str(module_path / "root"), head, module_path, tracking, options=options) as queue:
        yield queue


def test_a_job_works_on_the_champion_of_its_start_and_says_which(queue, tracking, fair, good, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    force = ["--force", "--reason", "a test", "--root", queue.root]
    assert promote._parse([fair.report, "--index", fair.index, *force]) == "models:/zsbir/1"
    job = queue.ended(queue.submit("index", {"run": CHAMPION}).id)
    assert job.state == "succeeded", queue.log(job.id)
    assert Artifact(job.result, "index").manifest.inputs["run"]["digest"] == Artifact(fair.run).digest
    assert job.config == {"run": CHAMPION}
    (event,) = [event for event in queue.store.events(job.id) if event["what"] == MODELS_RESOLVED]
    sentence = f"{CHAMPION} is models:/zsbir/1: run {fair.run} (digest {Artifact(fair.run).digest[:16]})"
    assert event["detail"] == {f"run {CHAMPION}": sentence}
    assert sentence in queue.log(job.id)

    assert promote._parse([good.report, "--index", good.index, *force]) == "models:/zsbir/2"
    retry = queue.ended(queue.submit("index", {"run": CHAMPION}, retry_of=job.id).id)
    assert retry.result == job.result, "it goes on with the work of the first"
    later = queue.ended(queue.submit("index", {"run": CHAMPION}).id)
    assert Artifact(later.result, "index").manifest.inputs["run"]["digest"] == Artifact(good.run).digest


def test_a_champion_outside_of_what_jobs_may_read_is_refused(queue, tracking, fair, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    force = ["--force", "--reason", "a test", "--root", queue.root, "--model", "elsewhere"]
    promote._parse([fair.report, "--index", fair.index, *force])
    secret = Path(tmp_path, "runs", Path(fair.run).name)
    secret.parent.mkdir()
    Path(fair.run).rename(secret)
    try:
        MlflowClient(tracking).set_model_version_tag("elsewhere", "1", "zsbir.run_uri", str(secret))
        job = queue.ended(queue.submit("index", {"run": "models:/elsewhere@champion"}).id)
    finally:
        secret.rename(fair.run)
    assert job.state == "failed"
    assert "outside of what this service reads" in job.message
    assert len(queue.store.attempts(job.id)) == 1


def test_a_promotion_keeps_galleries_of_the_champion_that_jobs_may_read_and_no_others(
    queue, tracking, fair, good, monkeypatch, tmp_path, pipeline_root
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    model = {"model": "team", "force": True, "reason": "a test"}
    config = {"report": good.report, "index": good.index, **model}
    for number, folder in enumerate((tmp_path / "team", pipeline_root / "team"), start=1):
        folder.mkdir()
        (folder / "mine.png").write_bytes(encoded(picture(24, 20)))
        grown = index._parse(["add", fair.index, str(folder), "--root", queue.root])
        words = ["--index", grown, "--model", "team", "--force", "--reason", "a test", "--root", queue.root]
        assert promote._parse([fair.report, *words]) == "models:/team/1"
        job = queue.ended(queue.submit("promote", config).id)
        if number == 1:
            assert job.state == "failed", queue.log(job.id)
            assert f"'{folder}' is outside of what this service reads" in job.message
        else:
            assert job.state == "succeeded", queue.log(job.id)
    version = MlflowClient(tracking).get_model_version_by_alias("team", "champion")
    served = Artifact(version.tags["zsbir.index"], "index")
    assert (str(version.version), served.manifest.inputs["run"]["digest"]) == ("2", Artifact(good.run).digest)
    assert served.manifest.counts["photos"] == Artifact(good.index).manifest.counts["photos"] + 1
