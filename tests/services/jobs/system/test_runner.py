"""The process of an attempt, with real trainings and a real MLflow store."""

from __future__ import annotations

import pytest

from services.jobs.runs.attempt_dir import attempt_dir_of
from services.jobs.runs.runner import Attempt
from services.jobs.runs.steps import Step
from zsbir.base.storage import join, open_folder

pytestmark = pytest.mark.slow

BAD = Step("evaluate", {"run": "no such run"})


def attempt_of(root, number, *steps):
    name = f"zsbir-test-1-a{number}"
    attempt_dir, memo = attempt_dir_of(root, name), join(root, "jobs", "steps", "zsbir-test-1")
    attempt_dir.write_spec(
        {"job": 1, "submission_id": name, "root": root, "memo": memo, "env": {}, "steps": [step.as_json() for step in steps]}
    )
    return Attempt(attempt_dir)


def test_what_mlflow_lacks_of_a_training_done_before_is_delivered(dataset, knowledge, tmp_path, monkeypatch):
    monkeypatch.setattr("services.jobs.runs.runner.DELIVERY_PAUSE_S", 0.1)
    training = Step("train", {"recipe": "toy", "dataset": dataset, "knowledge": knowledge, "steps": 2, "image_px": 32})
    first, second, third = (attempt_of(str(tmp_path / "root"), number, training, BAD) for number in (1, 2, 3))
    assert first.run().cause == "user_error"
    assert second.run().cause == "user_error"
    assert "done before" in second.log.tail()
    assert "zsbir.train" not in second.log.tail(), "nothing is lacking"
    run = open_folder(second.made["train"])
    run.replace(".undelivered", b"")
    assert third.run().cause == "user_error"
    assert "done before" in third.log.tail()
    assert "$ python -m zsbir.train" in third.log.tail()
    assert run.size(".undelivered") is None
