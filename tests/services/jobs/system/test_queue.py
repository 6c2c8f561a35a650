"""The queue over a real Ray and a real MLflow: what becomes of trainings that end well, badly, or are ended.

The tests marked `long` have short forms: runs/test_dispatcher_machine.py, with a simulated cluster, and runs/test_runner.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from mlflow.tracking import MlflowClient
from ray.job_submission import JobSubmissionClient
from servers.job_queue import JobQueue, job_queue
from servers.mlflow_server import mlflow_server

from services.jobs.queue.limits import Limits
from zsbir.base.artifact import Artifact, exists

pytestmark = pytest.mark.slow

TINY = {"recipe": "toy", "image_px": 32, "classes_per_batch": 4, "per_class": 2, "eval_every_steps": 1000, "log_every_steps": 2}
NEVER = {"checkpoint_every_steps": 100_000}
"""No checkpoint but one that is asked for."""


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder) as address:
        yield address


@pytest.fixture(scope="module")
def queue(head, tracking, module_path):
    with job_queue(str(module_path / "root"), head, module_path, tracking) as queue:
        yield queue


@pytest.fixture
def training(dataset, knowledge):
    """The configuration of a training of so many steps."""

    def configured(steps, **changes):
        return {**TINY, "dataset": dataset, "knowledge": knowledge, "steps": steps, **changes}

    return configured


def statuses(tracking, submission_id):
    client = MlflowClient(tracking)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return [run.info.status for run in client.search_runs(experiments, f"tags.`zsbir.job` = '{submission_id}'")]


def eventually(true, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)


def commands_of(queue: JobQueue, module: str) -> list[psutil.Process]:
    """The processes of this queue's attempts that run a module."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "-m" in words and words[words.index("-m") + 1 : words.index("-m") + 2] == [module] and queue.root in " ".join(words):
            found.append(process)
    return found


def test_a_training_succeeds_with_a_log_a_curve_progress_and_an_mlflow_run(queue, tracking, training):
    job = queue.ended(queue.submit("train", training(6, seed=1)).id)
    assert (job.state, job.message) == ("succeeded", "")
    assert Artifact(job.result, "run").manifest.counts["steps"] == 6
    (attempt,) = queue.store.attempts(job.id)
    assert attempt.cause == "succeeded"
    assert attempt.claimed_s <= attempt.started_s <= attempt.ended_s
    assert [row["step"] for row in queue.attempt_dir(attempt).curve("train")] == [1, 2, 4, 6]
    assert (job.progress["done"], job.progress["total"], job.progress["frac"]) == (6, 6, 1.0)
    manifest = Artifact(job.result, "run").manifest
    kept = {"value": manifest.facts["best_dev_map_all"], "metric": "map_all", "on": "dev", "step": manifest.counts["best_step"]}
    assert job.progress["score"] == kept
    ((name, state, took_s),) = [stage.values() for stage in job.progress["stages"]]
    assert (name, state) == ("train", "done")
    assert 0 < took_s <= attempt.ended_s - attempt.claimed_s
    assert "python -m zsbir.train" in queue.log(job.id)
    assert "train: 6 steps" in queue.log(job.id)
    eventually(lambda: not queue.store.uncleaned())
    assert statuses(tracking, attempt.submission_id) == ["FINISHED"]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_cancelling_leaves_a_final_checkpoint_that_a_retry_goes_on_from(queue, tracking, training, workers):
    config = training(400, seed=2 + workers, num_workers=workers, **NEVER)
    cancelled = queue.submit("train", config)
    queue.at_step(cancelled.id, 3)
    queue.store.cancel(cancelled.id, "ann")
    job = queue.ended(cancelled.id)
    assert job.state == "cancelled"
    assert "checkpoint of step" in job.message
    run = queue.newest(job.id).status("train")["facts"]["run"]
    assert not exists(run)
    (left,) = [path.name for path in Path(run, "checkpoints").iterdir() if path.name.startswith("step-")]
    step = int(left.removeprefix("step-"))
    assert step >= 3
    eventually(lambda: not queue.store.uncleaned())
    assert statuses(tracking, queue.store.attempts(job.id)[0].submission_id) == ["KILLED"]

    # What a run is, its steps say: another number of steps would be another run. So this one is cancelled again, further on.
    again = queue.submit("train", config, retry_of=cancelled.id)
    queue.at_step(again.id, step + 1)
    queue.store.cancel(again.id, "ann")
    queue.ended(again.id)
    assert f"resuming at step {step} of 400" in queue.log(again.id)
    assert queue.store.attempts(again.id)[0].resumed_from == f"step {step}"


def test_a_killed_training_goes_on_from_the_checkpoint_before(queue, training):
    job = queue.submit("train", training(60, seed=7, checkpoint_every_steps=5))
    queue.at_step(job.id, 8)
    (command,) = commands_of(queue, "zsbir.train")
    command.send_signal(signal.SIGKILL)
    ended = queue.ended(job.id)
    assert ended.state == "succeeded"
    first, second = queue.store.attempts(job.id)
    assert (first.cause, second.cause) == ("lost", "succeeded")
    assert int(second.resumed_from.removeprefix("step ")) >= 5


@pytest.mark.long
def test_an_attempt_killed_with_its_wrapper_is_lost_when_it_falls_silent_and_its_command_dies_with_it(queue, training):
    job = queue.submit("train", training(60, seed=8, checkpoint_every_steps=5))
    queue.at_step(job.id, 8)
    (command,), (wrapper,) = commands_of(queue, "zsbir.train"), commands_of(queue, "services.jobs.runs.runner")
    wrapper.send_signal(signal.SIGKILL)
    psutil.wait_procs([command], timeout=5)
    assert not command.is_running()
    ended = queue.ended(job.id)
    first, second = queue.store.attempts(job.id)
    assert (first.cause, second.cause, ended.state) == ("lost", "succeeded", "succeeded")
    assert second.claimed_s - first.ended_s >= 0


def test_a_dispatcher_killed_while_jobs_run_is_followed_by_one_that_knows_them(queue, training):
    jobs = [queue.submit("train", training(40, seed=seed)) for seed in (11, 12)]
    queue.at_step(jobs[0].id, 2)
    epoch = queue.store.seen_lease().epoch
    queue.kill()
    time.sleep(1)
    queue.start()
    assert {queue.ended(job.id).state for job in jobs} == {"succeeded"}
    assert [len(queue.store.attempts(job.id)) for job in jobs] == [1, 1]
    assert queue.store.seen_lease().epoch == epoch + 1


@pytest.mark.parametrize("moment", ["after the start", pytest.param("before the start", marks=pytest.mark.long)])
def test_a_dispatcher_killed_between_claim_and_record_starts_nothing_twice(queue, training, head, moment):
    queue.kill()
    job = queue.submit("train", training(4, seed=20 + len(moment)))
    script = Path(__file__).with_name("dispatcher_that_dies.py")
    died = subprocess.run([sys.executable, script, moment, queue.url, queue.root], env={**os.environ, **head}, check=False)
    assert died.returncode == -signal.SIGKILL
    assert queue.store.job(job.id).state == "starting"
    queue.start()
    assert queue.ended(job.id).state == "succeeded"
    assert len(queue.store.attempts(job.id)) == 1
    submitted = [info.submission_id for info in JobSubmissionClient(head["RAY_API_SERVER_ADDRESS"]).list_jobs()]
    assert submitted.count(queue.store.attempts(job.id)[0].submission_id) == 1


@pytest.mark.long
def test_no_more_run_than_the_limit_and_the_others_know_why_they_wait(queue, training, head):
    queue.store.set_limits(Limits(running=1), "test")
    try:
        jobs = [queue.submit("train", training(4, seed=seed), priority=priority) for seed, priority in ((31, 0), (32, 0), (33, 5))]
        client = JobSubmissionClient(head["RAY_API_SERVER_ADDRESS"])
        reasons, most = set(), 0
        while any(queue.store.job(job.id).state not in ("succeeded", "failed") for job in jobs):
            ours = [info for info in client.list_jobs() if (info.submission_id or "").startswith(submissions(queue))]
            most = max(most, sum(not info.status.is_terminal() for info in ours))
            reasons |= {turn.reason for turn in queue.store.turns(queue.store.limits()) if turn.reason}
            time.sleep(0.2)
        assert most == 1
        assert any("1 of 1 jobs are running: job" in reason for reason in reasons)
        starts = {job.id: queue.store.attempts(job.id)[0].claimed_s for job in jobs}
        assert starts[jobs[2].id] < starts[jobs[1].id]
    finally:
        queue.store.set_limits(Limits(), "test")


def submissions(queue):
    """How all submission ids of this queue begin."""
    return queue.store.attempts(1)[0].submission_id.rsplit("-", 2)[0] + "-"


@pytest.mark.long
def test_time_that_is_over_ends_a_training_with_a_checkpoint(queue, training):
    job = queue.ended(queue.submit("train", training(2000, seed=41, **NEVER), time_limit_s=30).id)
    assert job.state == "timed_out"
    assert "checkpoint of step" in job.message


def test_a_cancelled_job_that_has_not_begun_never_begins(queue, training):
    job = queue.submit("train", training(4, seed=42))
    queue.until(job.id, lambda job: job.state == "starting")
    queue.store.cancel(job.id, "ann")
    ended = queue.ended(job.id)
    assert ended.state == "cancelled"
    assert not exists(queue.newest(job.id).status("train")["facts"].get("run") or str(Path(queue.root) / "none"))


def test_bad_input_fails_at_once_and_says_why(queue, training):
    job = queue.ended(queue.submit("train", training(4, classes_per_batch=500)).id)
    assert (job.state, queue.store.attempts(job.id)[0].cause) == ("failed", "user_error")
    assert job.message.startswith("error: ")
    assert "classes_per_batch" in job.message


def test_a_pipeline_goes_on_at_the_step_that_failed(queue):
    """The training cannot work: too many classes a batch. The job that goes on with its work does not ingest again."""
    sizes = {"toy_photos_per_class": 6, "toy_sketches_per_class": 6, "toy_px": 48}
    good = {key: value for key, value in TINY.items() if key != "recipe"}
    config = {
        "ingest": {"layout": "toy", **sizes},
        "pretrain": {"image_px": 32, "photos_per_class": 4, "epochs": 1},
        "teacher": {"backbone": "resnet18", "image_px": 32},
        "train": {"recipe": "toy", **good, "steps": 4, "classes_per_batch": 500},
        "evaluate": {},
        "index": {},
    }
    failed = queue.ended(queue.submit("pipeline", config).id)
    assert failed.state == "failed"
    assert failed.message.startswith("error: ")
    assert failed.message.endswith(" (in train)")
    config["train"] = {**config["train"], "classes_per_batch": 4}
    again = queue.ended(queue.submit("pipeline", config, retry_of=failed.id).id)
    assert again.state == "succeeded"
    log = queue.log(again.id)
    assert [name for name in ("ingest", "pretrain", "teacher") if f"{name}: done before: " in log] == [
        "ingest",
        "pretrain",
        "teacher",
    ]
    assert "python -m zsbir.ingest" not in log
    made = queue.newest(again.id).read_end().made
    assert [Artifact(made[step]).manifest.kind for step in ("ingest", "teacher", "train", "evaluate", "index")] == [
        "dataset",
        "knowledge",
        "run",
        "report",
        "index",
    ]
    assert again.result == made["index"]


def test_a_sweep_is_done_with_a_row_for_each_trial(queue, dataset, knowledge):
    trial = {name: value for name, value in TINY.items() if name != "eval_every_steps"}
    config = {**trial, "dataset": dataset, "knowledge": knowledge, "steps": 4, "trials": 2, "search": "random"}
    job = queue.ended(queue.submit("sweep", config).id)
    assert (job.state, job.message) == ("succeeded", "")
    assert Artifact(job.result, "sweep").manifest.counts["finished"] == 2
    (attempt,) = queue.store.attempts(job.id)
    rows = queue.attempt_dir(attempt).curve("sweep")
    assert [row["step"] for row in rows] == [0, 1]
    assert rows[1]["dev/map_all_best"] == max(row["dev/map_all"] for row in rows)
    assert (job.progress["done"], job.progress["total"]) == (2, 2)


@pytest.mark.long
def test_the_same_training_twice_is_done_once(queue, training):
    jobs = [queue.submit("train", training(60, seed=51)) for _ in range(2)]
    ended = [queue.ended(job.id) for job in jobs]
    assert {job.state for job in ended} == {"succeeded"}
    assert ended[0].result == ended[1].result
    causes = sorted(attempt.cause for job in jobs for attempt in queue.store.attempts(job.id))
    assert set(causes) == {"busy", "succeeded"}


def test_ray_job_submit_beside_the_queue_goes_on_working(queue, head):
    client = JobSubmissionClient(head["RAY_API_SERVER_ADDRESS"])
    by_hand = client.submit_job(entrypoint="python -m zsbir.train --help")
    eventually(lambda: client.get_job_status(by_hand).is_terminal())
    assert client.get_job_status(by_hand) == "SUCCEEDED"
