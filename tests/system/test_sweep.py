"""Sweeps for real: Ray Tune, small trainings, a driver that is killed, MLflow."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from mlflow.tracking import MlflowClient
from recorded import assert_as_recorded

from tuning.__main__ import _parse
from tuning.table import TABLE, Trial, read_trials
from zsbir import train
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import InputError

pytestmark = pytest.mark.slow

STEPS = 12
SMALL = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--steps", str(STEPS)]
EVERY = ["--eval-every-steps", "3", "--checkpoint-every-steps", "3", "--log-every-steps", "3"]


def words(dataset: str, knowledge: str, root: Path, *more: str) -> list[str]:
    return ["toy", "--dataset", dataset, "--knowledge", knowledge, "--root", str(root), *SMALL, *EVERY, *more]


def start(environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tuning", *words]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=400)
    assert process.returncode == code, err[-4000:]
    return out.strip(), err


def trials_of(sweep: str) -> list[Trial]:
    return read_trials(Artifact(sweep, "sweep").file("trials.parquet").read_bytes())


def shape_of(trials: list[Trial]) -> list[tuple[object, ...]]:
    """What must not depend on interruptions."""
    return [(trial.number, trial.origin, trial.point, trial.state, trial.scores) for trial in trials]


@pytest.fixture(scope="module")
def swept(head: dict[str, str], dataset: str, knowledge: str, module_path: Path) -> tuple[Path, list[str], str, str]:
    """A sweep of which some learning rates blow the loss up: (root, its words, URI, what it told)."""
    space, warm = module_path / "space.yaml", module_path / "warm.yaml"
    space.write_text("lr: [0.002, 0.0005, 1.0e+30]\nmargin_cross: [0.2, 0.4]\n")
    warm.write_text("recipe: toy\nmargin_cross: 0.3\nmargin_same: 0.1\n")
    options = ["--space", str(space), "--search", "grid", "--trials", "6", "--start-from", str(warm)]
    command = words(dataset, knowledge, module_path, *options)
    out, err = finish(start(head, *command))
    return module_path, command, out, err


def test_every_trial_has_an_end_and_the_best_is_named(swept):
    _, _, uri, told = swept
    sweep, trials = Artifact(uri, "sweep"), trials_of(uri)
    sweep.verify()
    assert_as_recorded(sweep)
    assert [trial.origin for trial in trials] == ["base", "warm", "grid", "grid", "grid", "grid"]
    assert trials[1].point == {"lr": 0.002, "margin_cross": 0.3, "margin_same": 0.1}
    failed = [trial for trial in trials if trial.state == "failed"]
    assert failed
    assert all(trial.point["lr"] == 1e30 and "the loss is nan" in trial.error for trial in failed)
    assert {trial.state for trial in trials} <= {"finished", "stopped", "failed"}
    best = max((trial for trial in trials if trial.state == "finished"), key=lambda trial: trial.score)
    assert sweep.manifest.facts["best_run"] == best.run
    assert f"trial {failed[0].number} failed" in told
    assert sorted(path.name for path in sweep.path.iterdir() if not path.name.startswith(".")) == sorted(
        ["manifest.json", "trials.parquet", "best.yaml", "space.yaml", "curves.png", "parallel.png", "importance.png", "sweep.html"]
    )


def test_scores_are_those_of_the_runs_histories(swept):
    for trial in trials_of(swept[2]):
        if trial.state == "finished":
            history = pq.read_table(Artifact(trial.run, "run").file("history.parquet")).to_pylist()
            assert trial.scores == tuple((row["step"], row["dev/map_all"]) for row in history if row["dev/map_all"] is not None)


def test_the_best_configuration_is_one_that_train_takes(swept, dataset, knowledge, capsys):
    root, _, uri, _ = swept
    sweep = Artifact(uri, "sweep")
    config = ["--config", str(sweep.file("best.yaml")), "--dataset", dataset, "--knowledge", knowledge, "--root", str(root)]
    assert train._parse([*config, "--no-tracking"]) == sweep.manifest.facts["best_run"]
    assert "already trained" in capsys.readouterr().err
    assert yaml.safe_load(sweep.file("best.yaml").read_text())["recipe"] == "toy"


def test_what_it_prints_are_its_own_lines_without_colours_that_name_the_trial(swept):
    """Ray prints lines of its workers and of its own, with colour codes and without the trial's number."""
    told = swept[3]
    assert "\x1b" not in told
    assert "pid=" not in told
    assert "warning: trial" in told
    scores = [line for line in told.splitlines() if ": dev/map_all " in line]
    assert len(scores) == sum(len(trial.scores) for trial in trials_of(swept[2]))
    form = (
        r"trial \d, step \d+/12: dev/map_all 0\.\d{3} \((the best so far|best 0\.\d{3}, trial \d at step \d+)\)(, stopped early)?; "
    )
    assert all(re.match(form + r"\d of 6 trials ended, \d running", line) for line in scores), scores
    known = r"joining Ray|6 trials of|trial +|warning: trial|best|no trial is better| +\d|score it|train its|pictures"
    assert [line for line in told.splitlines() if not re.match(known, line)] == []


def test_the_printed_commands_work_as_they_are_printed(swept, tmp_path):
    """In another folder and another shell: evaluate the best run, and train its configuration, which has been trained."""
    told, best = swept[3], Artifact(swept[2], "sweep").manifest.facts["best_run"]
    assert f"best run: {best}\n" in told
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for start_of_line, result in (
        ("train its configuration", "already trained"),
        ("score it on the unseen classes", "zero_shot v1"),
    ):
        (line,) = [line for line in told.splitlines() if line.startswith(start_of_line)]
        command = line.partition(": ")[2]
        done = subprocess.run(
            command, shell=True, env=environment, cwd=tmp_path, text=True, capture_output=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert result in done.stderr
        assert (done.stdout.strip() == best) == (result == "already trained")


def test_the_same_command_returns_at_once_and_prints_the_way_on_again(swept, capsys):
    _, command, uri, told = swept
    assert _parse(command) == uri
    assert told.splitlines()[-4:] == capsys.readouterr().err.splitlines()[-4:]


def test_mlflow_has_the_trials_below_their_sweep_and_none_is_left_running(swept):
    root, _, uri, _ = swept
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("zsbir").experiment_id])
    by_name = {run.data.tags["zsbir.run"]: run for run in runs}
    parent = by_name[Path(uri).name]
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name.startswith("sweep toy over ")
    assert parent.data.metrics["best/dev/map_all"] == Artifact(uri, "sweep").manifest.facts["best_dev_map_all"]
    assert {file.path for file in client.list_artifacts(parent.info.run_id, "sweep")} >= {"sweep/sweep.html", "sweep/best.yaml"}
    for trial in trials_of(uri):
        child = by_name[Path(trial.run).name]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["zsbir.trial_state"] == trial.state
        assert child.info.run_name.startswith(f"trial {trial.number}: ")
        assert child.info.status == {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}[trial.state]
        if trial.scores:
            assert child.data.metrics["dev/map_all"] == pytest.approx(trial.scores[-1][1])


def sequential(dataset: str, knowledge: str, root: Path) -> list[str]:
    """One trial at a time: then early stopping does not hang on who is faster, and two sweeps can be compared."""
    return words(dataset, knowledge, root, "--search", "random", "--trials", "5", "--at-once", "1", "--no-tracking")


def wait_until(condition: Callable[[list[Trial]], bool], root: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while True:
        tables = list(root.glob(f"sweeps/*/{TABLE}"))
        if tables and condition(read_trials(tables[0].read_bytes())):
            return
        assert process.poll() is None, process.communicate()[1][-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.long
def test_killed_three_times_it_ends_as_if_nothing_had_happened(head, dataset, knowledge, tmp_path):
    out, _ = finish(start(head, *sequential(dataset, knowledge, tmp_path / "whole")))
    whole = trials_of(out)
    states = [trial.state for trial in whole]
    assert states.count("stopped") >= 1
    assert states.count("finished") >= 2
    root = tmp_path / "killed"
    command = sequential(dataset, knowledge, root)
    moments: list[Callable[[list[Trial]], bool]] = [
        lambda trials: len(trials) == 1,  # begun, nothing scored
        lambda trials: bool(trials[0].scores),  # in the middle of a trial
        lambda trials: len(trials) >= 3,  # one has ended, the next but one is begun
    ]
    written: dict[str, str] = {}
    for moment in moments:
        process = start(head, *command)
        wait_until(moment, root, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not list(root.glob("sweeps/*/manifest.json"))
        for run in root.glob("runs/*"):
            if exists(run):
                written.setdefault(run.name, Artifact(run).manifest.written_by)
    out, err = finish(start(head, *command))
    assert "going on with" in err
    assert shape_of(trials_of(out)) == shape_of(whole)
    assert len(written) >= 1
    for name, writer in written.items():
        assert Artifact(root / "runs" / name).manifest.written_by == writer, "trained to its end twice"
    finished = {Path(trial.run).name for trial in whole if trial.state == "finished"}
    assert {run.name for run in root.glob("runs/*") if exists(run)} == finished


def test_killed_between_the_seeds_of_a_trial_it_goes_on_with_the_next_seed(head, dataset, knowledge, tmp_path):
    options = ["--search", "random", "--trials", "2", "--at-once", "1", "--seeds-per-trial", "2", "--early-stopping", "none"]
    command = words(dataset, knowledge, tmp_path, *options, "--no-tracking")
    process = start(head, *command)
    wait_until(lambda trials: bool(trials) and exists(trials[0].run), tmp_path, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (table,) = tmp_path.glob(f"sweeps/*/{TABLE}")
    (begun,) = read_trials(table.read_bytes())
    writer = Artifact(begun.run).manifest.written_by
    out, err = finish(start(head, *command))
    assert "2 trials of 12 steps and 2 seeds" in err
    trials = trials_of(out)
    assert [(trial.state, len(trial.curves), trial.steps) for trial in trials] == [("finished", 2, 2 * STEPS)] * 2
    assert Artifact(begun.run).manifest.written_by == writer, "trained to its end twice"
    for trial in trials:
        best = [Artifact(uri, "run").manifest.facts["best_dev_map_all"] for uri in trial.runs]
        assert trial.score == pytest.approx(sum(best) / 2)
        assert [Artifact(uri, "run").manifest.config["seed"] for uri in trial.runs] == [0, 1]
    best_runs = Artifact(out, "sweep").manifest.facts["best_runs"]
    assert list(max(trials, key=lambda trial: trial.score).runs) == best_runs
    assert f"best runs: {' '.join(best_runs)}\n" in err
    assert "trial 0, seed 2 of 2 done: dev/map_all 0." in err


def test_ctrl_c_ends_a_sweep_on_a_ray_of_its_own_with_the_way_on(dataset, knowledge, tmp_path):
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = start(own | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}, *sequential(dataset, knowledge, tmp_path))
    wait_until(lambda trials: bool(trials[0].scores), tmp_path, process)
    process.send_signal(signal.SIGINT)
    _, err = finish(process, code=130)
    assert "interrupted: the same command goes on with" in err


def test_a_submitted_sweep_of_data_parallel_trials_ends_and_frees_what_it_held(head, dataset, knowledge, tmp_path):
    """Ray Train inside Ray Tune on two CPUs: trials of two workers, one after the other; the second is stopped early."""
    (tmp_path / "space.yaml").write_text("lr: [0.002, 1.0e-9]\n")
    more = [
        "--num-workers",
        "2",
        "--space",
        str(tmp_path / "space.yaml"),
        "--search",
        "grid",
        "--no-tracking",
        "--max-failures",
        "0",
    ]
    submit = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--", sys.executable, "-m", "tuning"]
    command = [*submit, *words(dataset, knowledge, tmp_path, *more)]
    done = subprocess.run(command, env=head, text=True, capture_output=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 trials of 12 steps, 1 at a time" in done.stdout
    (sweep,) = tmp_path.glob("sweeps/*/manifest.json")
    trials = trials_of(str(sweep.parent))
    assert [trial.point["lr"] for trial in trials] == [0.002, 1e-9]
    assert [trial.state for trial in trials] == ["finished", "stopped"]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--space", "loses"], "did you mean 'losses'"),
        (["--train-on-dev"], "leaves no classes to score"),
        (["--trials", "0"], "'trials'"),
        (["--search", "bayes"], "'search'"),
        (["--start-from", "nowhere.yaml"], "cannot read"),
        (["--triasl", "3"], "did you mean '--trials'"),
        (["--num-workers", "3"], "cannot be dealt to 3 workers"),
    ],
)
def test_bad_input_is_found_before_anything_starts(dataset, knowledge, tmp_path, more, line):
    with pytest.raises(InputError) as told:
        _parse(words(dataset, knowledge, tmp_path, "--no-tracking", *more))
    assert line in str(told.value)
    assert not (tmp_path / "sweeps").exists()


def test_relative_addresses_mean_the_same_in_every_trial(head, dataset, knowledge, weights, tmp_path):
    given = [os.path.relpath(uri, tmp_path) for uri in (dataset, knowledge)]
    more = ["--trials", "1", "--no-tracking", "--weights", os.path.relpath(weights, tmp_path)]
    command = [sys.executable, "-m", "tuning", *words(*given, Path("artifacts"), *more)]
    done = subprocess.run(command, env=head, cwd=tmp_path, text=True, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [trial.state for trial in trials_of(done.stdout.strip())] == ["finished"]
    assert len(list(tmp_path.glob("artifacts/runs/*/manifest.json"))) == 1


def test_more_workers_than_the_cluster_has_is_told(head, dataset, knowledge, tmp_path):
    process = start(head, *words(dataset, knowledge, tmp_path, "--no-tracking", "--cpus-per-worker", "64"))
    _, err = finish(process, code=2)
    assert "1 worker of 64 CPUs is needed" in err
