"""Names, arrays and dependencies on the command line, and what list and show tell of them."""

from __future__ import annotations

import json
import re
import time

import pytest
from building import put

from services.jobs.cli.format import format_activity, format_jobs, format_outcome
from services.jobs.cli.options import job_ids
from services.jobs.cli.style import TextStyle, format_ids
from services.jobs.cli.submit import _absolute
from services.jobs.queue.states import STATES
from zsbir.base.errors import InputError, RunError

SCORE = {"value": 0.849, "metric": "map_all", "on": "dev", "step": 150}


@pytest.fixture
def seeds(run_command):
    """An array of three pipelines with different seeds."""
    assert run_command("submit", "pipeline", "--recipe=toy", "--seeds", "0,1,2", "--name", "night") == "1-3"


def rows_of(table):
    return [re.split(r"\s{2,}", line) for line in re.sub(r"\b\d s\b", "0 s", table).splitlines()]


def test_seeds_are_an_array_that_is_one_line_and_opens(service, run_command, capsys):
    assert run_command("submit", "pipeline", "--recipe=toy", "--seeds", "0,1,2", "--name", "night") == "1-3"
    assert capsys.readouterr().err == "array 1-3 (night): 3 queued; python -m services.jobs list --array 1\n"
    assert rows_of(run_command("list")) == [
        ["ID", "NAME", "KIND", "RECIPE", "STATE", "PROGRESS", "AGE", "WHY"],
        ["1-3", "night", "pipeline x3", "toy", "queued", "0 %", "0 s", "3 queued"],
    ]
    opened = run_command("list", "--array", "1")
    assert [line.split()[1:3] for line in opened.splitlines()[1:]] == [["night", f"seed={seed}"] for seed in (2, 1, 0)]
    assert run_command("list", "--open") == opened
    assert [job["id"] for job in json.loads(run_command("list", "--json"))] == [3, 2, 1]
    assert run_command("show", "1-3").startswith("array 1-3  night  3 queued")
    assert [service.store.job(number).config["train"]["seed"] for number in (1, 2, 3)] == [0, 1, 2]


@pytest.mark.parametrize("words", [["--seeds", "0,1,2"], ["--each", "seed=0,1,2"]])
def test_seeds_of_a_training_are_an_array_of_trainings(service, run_command, tmp_path, words):
    inputs = ["--recipe=toy", f"--dataset={put(tmp_path / 'root', 'dataset').uri}", "--weight-preservation=0"]
    assert run_command("submit", "train", *inputs, *words) == "1-3"
    assert [service.store.job(number).config["seed"] for number in (1, 2, 3)] == [0, 1, 2]


def test_an_array_tells_its_states_and_its_best_job(service, run_command, seeds):
    first, _ = service.run()
    service.store.report(service.lease, first, {"score": SCORE, "frac": 1.0})
    service.end(first, result="/data/made")
    second, _ = service.run()
    service.store.report(service.lease, second, {"score": {**SCORE, "value": 0.7}, "frac": 0.5, "left_s": 120.0})
    (row,) = rows_of(run_command("list"))[1:]
    assert row[4:] == [
        "running",
        "50 %",
        "dev 0.849",
        "0 s",
        "1 running, 1 queued, 1 succeeded; best: job 1 (night seed=0), dev 0.849",
    ]


def test_values_of_a_field_are_read_by_its_schema_and_a_pipelines_training_needs_no_prefix(service, run_command):
    words = ("submit", "pipeline", "--recipe=toy", "--each", "margin-cross=0.1,0.2", "--each", "train.backbone=resnet18,resnet50")
    assert run_command(*words) == "1-4"
    train = [service.store.job(number).config["train"] for number in (1, 2, 3, 4)]
    assert [(each["margin_cross"], each["backbone"]) for each in train] == [
        (0.1, "resnet18"), (0.1, "resnet50"), (0.2, "resnet18"), (0.2, "resnet50"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--each", "margin_crss=1"], "--each: unknown field 'margin_crss'; did you mean 'train.margin_cross'?"),
        (["--each", "lr"], "--each must read FIELD=VALUE,VALUE, got 'lr'"),
        (["--each", "lr="], "--each lr: no values; name some, as in 0,1,2"),
        (["--each", "lr=fast"], "--each lr: must be a number, got 'fast'"),
        (["--seeds", "1,x"], "--seeds seed: must be a whole number, got 'x'"),
        (["--seeds", "1,1"], "each: train.seed needs different values, got 1, 1"),
        (["--seeds", "1,2", "--each", "train.seed=3"], "--each: train.seed is named twice"),
        (["--seeds", "1,2", "--follow"], "--follow shows the log of one job"),
        (["--each", "ingest.dev_classes=a,b"], "ingest.dev_classes is a list"),
        (["--after", "9"], "after: there is no job 9"),
        (["--after", "4-2"], "must be job numbers like 12 or 12-14"),
    ],
)
def test_an_array_that_cannot_be_is_one_line_with_the_way_out(service, run_command, words, line):
    with pytest.raises(InputError) as error:
        run_command("submit", "pipeline", "--recipe=toy", *words)
    assert line in str(error.value)
    assert service.store.counts() == {}


def test_seeds_of_a_kind_without_a_seed_are_refused(service, run_command):
    with pytest.raises(InputError, match="--seeds: unknown field 'seed'"):
        run_command("submit", "teacher", "--dataset=x", "--seeds=1,2")


def test_a_job_after_others_says_so(service, run_command, seeds, capsys):
    assert run_command("submit", "ingest", "--layout=toy", "--after", "1-2", "--after-any", "3") == "4"
    assert "job 4 (toy) is queued: after jobs 1, 2, 3;" in capsys.readouterr().err
    told = run_command("show", "4")
    assert re.search(r"after +the success of 1-2; any end of 3\n", told)


def test_a_job_that_is_named_twice_is_waited_for_once(service, run_command, seeds, capsys):
    assert run_command("submit", "ingest", "--layout=toy", "--after", "2,1-3,2", "--after-any", "2") == "4"
    assert "job 4 (toy) is queued: after jobs 2, 1, 3;" in capsys.readouterr().err
    assert re.search(r"after +the success of 1-3\n", run_command("show", "4"))


def test_an_array_is_cancelled_and_tried_again_by_its_number(service, run_command, seeds):
    assert run_command("cancel", "2-3") == "cancelled, or saving their work first: 2, 3"
    assert run_command("cancel", "--array", "1") == "cancelled, or saving their work first: 1"
    assert run_command("retry", "--array", "1") == "4-6"
    (row,) = rows_of(run_command("list"))[1:]
    assert (row[0], row[2]) == ("4-6", "pipeline x3")
    for words in (("retry",), ("retry", "1", "--array", "1"), ("cancel", "1", "--array", "1")):
        with pytest.raises(InputError, match="say w"):
            run_command(*words)


def test_show_takes_the_jobs_of_one_array_alone(service, run_command, seeds):
    other = service.submit()
    assert "array 1-3" in run_command("show", "1-3")
    with pytest.raises(InputError, match=rf"job {other} does not belong to the array of job 1 \(1-3\)"):
        run_command("show", f"1,{other}")


def test_paths_in_lists_and_in_arrays_of_pipelines_are_those_of_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").mkdir()
    found = _absolute({"unseen_to": ["one"], "ingest.path": ["one", "gone"], "train.weights": ["imagenet"]})
    assert found == {
        "unseen_to": [str(tmp_path / "one")],
        "ingest.path": [str(tmp_path / "one"), "gone"],
        "train.weights": ["imagenet"],
    }


def test_waiting_for_an_array_is_waiting_for_all_of_it(service, run_command, monkeypatch):
    monkeypatch.setattr("services.jobs.cli.client.POLL_S", 0.01)
    words = ("submit", "ingest", "--layout=toy", "--each", "toy_px=32,64", "--wait", "--key", "k")
    assert run_command(*words[:4], words[4], "--key", "k") == "1-2"
    for cause in ("succeeded", "user_error"):
        service.end(service.run()[0], cause, result="/made" if cause == "succeeded" else "")
    with pytest.raises(RunError, match="1 of 2 jobs did not succeed: 2"):
        run_command(*words)


def test_show_tells_recipe_seed_score_and_which_stages_were_found_or_cancelled(service, run_command):
    config = {"ingest": {"layout": "toy"}, "teacher": {}, "train": {"recipe": "toy", "seed": 3}, "evaluate": {}}
    job = service.submit(kind="pipeline", config=config, name="mine")
    attempt, _ = service.run()
    stages = [{"name": "ingest", "state": "found", "took_s": 0.4}, {"name": "teacher", "state": "done", "took_s": 9.0}]
    progress = {"step": "train", "steps": "3/4", "stages": stages, "score": SCORE, "frac": 0.5}
    service.store.report(service.lease, attempt, progress)
    service.store.cancel(job, "ann")
    service.end(attempt, "cancelled", message="interrupted: saved")
    told = run_command("show", str(job))
    for expected in (
        r"job 1  mine  pipeline  cancelled", r"score +map_all 0.849 on dev classes at step 150", r"training +toy, seed 3",
        r"ingest +found +found, not made again", r"teacher +done", r"train +cancelled", r"evaluate +waiting",
    ):  # fmt: skip
        assert re.search(expected, told), expected
    assert "failed" not in told


@pytest.mark.parametrize(("state", "step"), [("failed", "failed"), ("timed_out", "timed_out"), ("cancelled", "cancelled")])
def test_a_stage_ends_as_its_job_does(service, run_command, state, step):
    service.submit(kind="pipeline", config={"ingest": {"layout": "toy"}, "train": {}})
    causes = {"failed": "user_error", "timed_out": "timed_out", "cancelled": "cancelled"}
    service.end(service.run()[0], causes[state])
    assert [each["state"] for each in json.loads(run_command("show", "1", "--json"))["steps"]] == [step, "waiting"]


# --- words


JOB = {
    "id": 1, "name": "toy", "kind": "train", "recipe": "toy", "seed": 0, "score": None, "state": "failed", "place": None,
    "progress": {}, "owner": "ann", "project": "default", "submitted_s": time.time(), "started_s": None, "ended_s": None,
    "message": "error: the recipe asks for 12 classes a batch, and there are 8 classes to train on; pass --classes-per-batch 8",
    "result": "/data/runs/toy-1", "reason": "", "cancelling": False,
}  # fmt: skip


def test_the_reason_of_a_failure_is_wrapped_and_not_cut():
    lines = format_jobs([JOB], TextStyle(width=80)).splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(" ".join(lines[1:]).split())
    assert str(JOB["message"]) in words
    narrow = format_jobs([JOB], TextStyle(width=50)).splitlines()
    assert max(map(len, narrow[2:])) <= 50
    assert str(JOB["message"]) in " ".join(" ".join(narrow[1:]).split())


def test_what_a_finished_job_is_said_to_have_done_is_no_path():
    done = {**JOB, "state": "succeeded", "message": ""}
    assert format_outcome(done) == "made a run"
    assert format_outcome({**done, "attempts": 1}) == "made a run"
    assert format_outcome({**done, "attempts": 4}) == "made a run, in attempt 4"
    assert format_outcome({**done, "score": SCORE}) == "map_all 0.849 on dev classes at step 150"
    assert format_outcome({**done, "score": {**SCORE, "on": "unseen", "step": None}}) == "map_all 0.849 on unseen classes"
    assert "/data" not in format_jobs([{**done, "score": SCORE}], TextStyle())


def test_failed_cancelled_and_timed_out_have_colours_of_their_own_and_only_failures_are_red():
    style = TextStyle(colours=True)
    colours = {state: style.paint(state).split("m")[0] for state in STATES}
    assert len({colours[state] for state in ("failed", "cancelled", "timed_out", "succeeded")}) == 4
    assert [state for state, colour in colours.items() if colour.endswith("[31")] == ["failed"]


def test_a_stage_and_a_step_are_told_apart():
    progress = {"step": "train", "steps": "4/6", "label": "train", "done": 121, "total": 200, "unit": "step", "per_s": 3.14159}
    assert format_activity(progress) == "stage 4 of 6: train, step 121/200, 3.14/s"
    assert format_activity({**progress, "steps": ""}) == "train, step 121/200, 3.14/s"
    images = {"step": "evaluate", "steps": "5/6", "label": "embed trained", "done": 3, "total": 9, "unit": "image"}
    assert format_activity(images) == "stage 5 of 6: evaluate, embed trained 3/9 images"


def test_numbers_are_read_and_written_as_ranges():
    assert job_ids("12,15-17") == [12, 15, 16, 17]
    assert format_ids([17, 12, 16, 15]) == "12, 15-17"
