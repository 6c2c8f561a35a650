"""How far a job is, by the files of its attempt."""

from __future__ import annotations

import json

import pytest

from services.jobs.cli.format import format_activity
from services.jobs.runs.attempt_dir import AttemptDir
from services.jobs.runs.progress import read_status

STEP = {"name": "train", "values": {}, "fed": {}}
WORKER = {"progress": {"label": "train", "done": 40, "total": 200, "unit": "step", "per_s": 3.1, "left_s": 50}, "facts": {}}
WAITING = "waiting since 14:03:05 for 2 workers of 1 CPU each to start; 1 are there"


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({}, "train, step 40/200, 3.1/s"),
        ({"waiting": ""}, "train, step 40/200, 3.1/s"),
        ({"waiting": WAITING}, f"train, {WAITING}"),
    ],
)
def test_a_training_that_waits_for_room_does_not_go_on_showing_its_last_rate(facts, shown, tmp_path):
    attempt_dir = AttemptDir(str(tmp_path))
    attempt_dir.write_spec({"steps": [STEP]})
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "worker.json").write_text(json.dumps(WORKER))
    (tmp_path / "train" / "driver.json").write_text(json.dumps({"progress": {}, "facts": facts}))
    assert format_activity(read_status(attempt_dir).progress) == shown


def written(folder, step, progress=None, **facts):
    (folder / step).mkdir(exist_ok=True)
    (folder / step / "driver.json").write_text(json.dumps({"progress": progress or {}, "facts": facts, "updated_s": 9.0}))


@pytest.fixture
def pipeline(tmp_path):
    """An attempt at ingest, train and evaluate, of which the data set was found and the training runs."""
    attempt_dir = AttemptDir(str(tmp_path))
    attempt_dir.write_spec({"steps": [{**STEP, "name": name} for name in ("ingest", "train", "evaluate")]})
    attempt_dir.write_stage_times({"ingest": {"began_s": 0.0, "took_s": 2.0}, "train": {"began_s": 2.0}})
    attempt_dir.write_heartbeat(7, ran_s=52.0)
    written(tmp_path, "ingest", found="datasets/toy/1")
    written(tmp_path, "train", WORKER["progress"], score={"value": 0.849, "metric": "map_all", "on": "dev", "step": 150})
    return attempt_dir


def test_a_pipeline_tells_stage_step_share_and_time_left(pipeline):
    now = read_status(pipeline, {"train": 500.0, "evaluate": 10.0}).progress
    assert (now["step"], now["steps"], now["done"], now["total"]) == ("train", "2/3", 40, 200)
    assert (now["frac"], now["left_s"]) == (pytest.approx(50 / 110), pytest.approx(60.0))
    assert [(stage["name"], stage["state"]) for stage in now["stages"]] == [
        ("ingest", "found"), ("train", "running"), ("evaluate", "waiting"),
    ]  # fmt: skip


def test_the_kept_score_stays_when_later_steps_run_until_there_is_one_on_unseen_classes(pipeline, tmp_path):
    assert read_status(pipeline).progress["score"] == {"value": 0.849, "metric": "map_all", "on": "dev", "step": 150}
    written(tmp_path, "evaluate", {"label": "embed", "done": 1, "total": 9})
    assert read_status(pipeline).progress["score"]["value"] == 0.849
    written(tmp_path, "evaluate", score={"value": 0.5, "metric": "map_all", "on": "unseen", "step": None})
    assert read_status(pipeline).progress["score"] == {"value": 0.5, "metric": "map_all", "on": "unseen", "step": None}


def test_a_step_that_an_earlier_attempt_made_is_done_and_counts_for_nothing(pipeline):
    pipeline.write_stage_times({"ingest": {"began_s": 0.0, "took_s": 0.1, "repeated": True}, "train": {"began_s": 2.0}})
    now = read_status(pipeline).progress
    assert now["stages"][0] == {"name": "ingest", "state": "done", "took_s": None}


@pytest.mark.parametrize("value", ["x", None, [1], {"a": 1}, True, -5, 1e999])
def test_whatever_a_command_writes_the_status_is_read(pipeline, tmp_path, value):
    progress = {"label": value, "done": value, "total": value, "per_s": value, "left_s": value, "unit": value}
    score = {"value": value, "metric": value, "on": value, "step": value}
    text = json.dumps({"progress": progress, "facts": {"score": score, "found": value}, "metrics": value, "updated_s": value})
    (tmp_path / "train" / "driver.json").write_text(text)
    pipeline.write_stage_times({"train": {"began_s": value, "took_s": value}, "ingest": value})
    now = read_status(pipeline).progress
    assert 0 <= now["frac"] <= 1
    json.dumps(now, allow_nan=False)
