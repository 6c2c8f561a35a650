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
        ({}, "train: train 40/200 steps, 3.1/s"),
        ({"waiting": ""}, "train: train 40/200 steps, 3.1/s"),
        ({"waiting": WAITING}, f"train: {WAITING}"),
    ],
)
def test_a_training_that_waits_for_room_does_not_go_on_showing_its_last_rate(facts, shown, tmp_path):
    attempt_dir = AttemptDir(str(tmp_path))
    attempt_dir.write_spec({"steps": [STEP]})
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "worker.json").write_text(json.dumps(WORKER))
    (tmp_path / "train" / "driver.json").write_text(json.dumps({"progress": {}, "facts": facts}))
    assert format_activity(read_status(attempt_dir).progress) == shown
