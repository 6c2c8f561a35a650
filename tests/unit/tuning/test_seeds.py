"""Trials of several seeds: their score, what the table says of them, what early stopping sees, and how a killed sweep goes on."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from tuning import trial as trial_module
from tuning.config import SweepConfig, SweepRequest, SweepSettings
from tuning.ledger import Ledger, Plan
from tuning.outcome import Outcome
from tuning.space import Choice
from tuning.study import EarlyStopping
from tuning.sweep import _absolute, _resolve, _sign, _states_of_runs
from tuning.table import Further, Table, Trial, as_parquet, leader, read_trials
from tuning.trial import SEED_DONE, TrialTask
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import folder_name, open_folder
from zsbir.train import train
from zsbir.training.config import TrainConfig
from zsbir.training.loop import DEV_SCORE
from zsbir.training_run.plan import InputUris, Settings

FIRST, SECOND = ((40, 0.2), (80, 0.5), (120, 0.4)), ((40, 0.1), (80, 0.3), (120, 0.35))
PLAN = Plan(
    space={"margin_cross": Choice(values=(0.2, 0.4))},
    known=[{"margin_cross": 0.2}],
    search="random",
    seed=0,
    trials=2,
    steps=120,
    grace=40,
    reduction=2.0,
    budget_s=0,
    seeds=2,
)


def test_the_score_is_the_mean_of_the_best_of_each_seed():
    trial = Trial(0, "base", {}, run="a", scores=FIRST, further=(Further("b", SECOND), Further("c")))
    assert trial.runs == ("a", "b", "c")
    assert trial.score == pytest.approx((0.5 + 0.35) / 2), "a seed without scores does not count"
    assert trial.score_until(40) == pytest.approx((0.2 + 0.1) / 2)
    assert trial.score_until(39) is None
    assert (trial.best, trial.best_until(120), trial.steps) == ((80, 0.5), 0.5, 240)
    assert Trial(0, "base", {}).score is None


def test_the_best_trial_is_the_best_in_the_mean_and_not_by_its_first_seed():
    lucky = Trial(0, "base", {}, "finished", scores=((1, 0.6),), further=(Further("b", ((1, 0.2),)),))
    steady = Trial(1, "random", {}, "finished", scores=((1, 0.5),), further=(Further("d", ((1, 0.5),)),))
    assert leader([lucky, steady]).number == 1


def test_the_table_keeps_each_seed_at_once(root):
    folder = open_folder(f"{root}/sweeps/a")
    table = Table(folder)
    table.begin(Trial(0, "base", {}, run="a", further=(Further("b"), Further("c"))))
    table.scored(0, 40, 0.2, stopped=False)
    table.scored_further(0, 1, SECOND)
    assert Table(folder).trials == table.trials
    assert Table(folder).trial(0).further == (Further("b"), Further("c", SECOND))


def test_a_table_from_before_there_were_several_seeds_is_read():
    trials = [Trial(0, "base", {"lr": 1e-3}, "finished", run="a", scores=FIRST)]
    old = pq.read_table(io.BytesIO(as_parquet(trials))).drop_columns(["further"])
    out = io.BytesIO()
    pq.write_table(old, out)
    assert read_trials(out.getvalue()) == trials


@pytest.fixture
def ledger(tmp_path):
    """A sweep of which two trials of two seeds run."""
    made = Ledger(PLAN, SimpleNamespace(settings=None), Table(open_folder(tmp_path)))
    made._numbers = {"0": 0, "1": 1}
    for number in range(2):
        made.table.begin(Trial(number, "random", {}, run=f"{number}a", further=(Further(f"{number}b"),)))
    return made


def test_early_stopping_judges_the_first_seed_alone(ledger, monkeypatch):
    monkeypatch.setattr("tuning.ledger._scores_of", {"0a": FIRST, "0b": SECOND, "1a": FIRST}.__getitem__)
    stopping = EarlyStopping(ledger)

    def heard(number, values):
        return stopping.on_trial_result(None, SimpleNamespace(trial_id=str(number)), values)

    for step, score in FIRST:
        assert heard(0, {"step": step, DEV_SCORE: score}) == "CONTINUE"
    assert heard(0, {SEED_DONE: 0}) == "CONTINUE"
    assert heard(0, {"step": 40, DEV_SCORE: 0.0}) == "CONTINUE", "of the second seed"
    assert heard(0, {"step": 50, DEV_SCORE: 0.9}) == "CONTINUE"
    assert ledger.table.trial(0).scores == FIRST
    assert heard(0, {SEED_DONE: 1}) == "CONTINUE"
    assert ledger.table.trial(0).score == pytest.approx((0.5 + 0.35) / 2)
    assert heard(1, {"step": 40, DEV_SCORE: 0.1}) == "STOP", "the first seed of trial 0 had .2"
    assert ledger.table.trial(1).further == (Further("1b"),), "no seed of a poor trial is trained after it"
    assert heard(1, {SEED_DONE: 0}) == "CONTINUE"
    assert ledger.table.trial(1).scores == ((40, 0.1),), "what comes too late changes nothing"


def test_lines_say_which_seed_is_done_and_the_mean_so_far(ledger, monkeypatch, capsys):
    monkeypatch.setattr("tuning.ledger._scores_of", {"0a": FIRST, "0b": SECOND}.__getitem__)
    ledger.seed_done(0, 0)
    ledger.seed_done(0, 1)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("trial 0, seed 1 of 2 done: dev/map_all 0.500 in the mean so far; 0 of 2 trials ended")
    assert second.startswith("trial 0, seed 2 of 2 done: dev/map_all 0.425 in the mean so far")
    ledger.scored(1, 40, 0.3, stopped=False)
    assert "(best 0.425, trial 0 in the mean of 2 seeds)" in capsys.readouterr().err


@pytest.fixture(scope="module")
def task(run, dataset, knowledge, weights, pipeline_root):
    """What trials of two seeds train; the first seed of the first one is the pipeline's own run."""
    base = TrainConfig.of(Artifact(run, "run").manifest.config)
    uris = InputUris(dataset=dataset, knowledge=knowledge, weights=weights)
    return TrialTask(base, uris, Settings(root=str(pipeline_root), tracking=False), seeds=2)


@pytest.fixture(scope="module")
def second(task):
    """The run of the second seed of the first trial."""
    return train(task.configs({"margin_cross": 0.2})[1], task.uris, task.settings).uri


def test_a_sweep_that_was_killed_between_two_seeds_goes_on_with_the_second(run, task, tmp_path, monkeypatch):
    folder = open_folder(tmp_path)
    base = task.base.margin_cross
    plan = Plan(**{**vars(PLAN), "known": [{"margin_cross": base}], "trials": 1})
    started = Ledger(plan, task, Table(folder)).next_trial("a")
    assert started.run == run
    again = Ledger(plan, task, Table(folder))
    resumed = again.next_trial("b")
    assert (resumed.number, resumed.runs) == (0, started.runs), "the same trial, not another one"
    reported = []
    monkeypatch.setattr(trial_module.tune, "report", reported.append)
    task._train_seeds(task.configs(resumed.point), "trial 0")
    done = [values[SEED_DONE] for values in reported if SEED_DONE in values]
    scores = [(values["step"], values[DEV_SCORE]) for values in reported if DEV_SCORE in values]
    assert done == [0, 1]
    again.seed_done(0, 0)
    again.seed_done(0, 1)
    again.completed(0)
    trial = Table(folder).trial(0)
    assert trial.state == "finished"
    assert len(trial.curves) == 2
    assert trial.further[0].scores == tuple(scores), "those of the second seed alone: the first one was found"
    best = [Artifact(uri, "run").manifest.facts["best_dev_map_all"] for uri in trial.runs]
    assert trial.score == pytest.approx(sum(best) / 2)


def test_a_trial_whose_seeds_are_all_trained_is_finished_at_once(run, task, second, tmp_path):
    folder = open_folder(tmp_path)
    plan = Plan(**{**vars(PLAN), "known": [{"margin_cross": task.base.margin_cross}], "trials": 1})
    assert Ledger(plan, task, Table(folder)).next_trial("a") is None
    (trial,) = Table(folder).trials
    assert (trial.state, trial.runs) == ("finished", (run, second))


def test_an_error_says_which_seed_it_is_of_and_the_seeds_before_stay_finished(run, task, monkeypatch, tmp_path):
    monkeypatch.setattr(trial_module.tune, "report", lambda values: None)
    wrong = task.configs({})[0].replace(lr=1e30, seed=7)
    with pytest.raises(RunError, match=r"^seed 7: training has diverged"):
        task._train_seeds([task.base, wrong], "trial 0")
    failed = Trial(3, "base", {}, "failed", run=run, further=(Further(str(tmp_path / "runs" / "toy-gone")),))
    assert _states_of_runs([failed]) == {folder_name(run): (3, "finished"), "toy-gone": (3, "failed")}


def test_the_sweep_holds_the_runs_of_every_seed_and_names_them(run, second, task, tmp_path, capsys):
    request = _absolute(SweepRequest(task.base, task.uris, SweepConfig(seeds_per_trial=2), [], task.settings, SweepSettings()))
    found = _resolve(request)
    trial = Trial(
        0, "base", dict(found.points[0]), "finished", run=run, scores=((2, 0.5),), further=(Further(second, ((2, 0.4),)),)
    )
    made = _sign(found, request, Outcome(task.base, found.space, [trial]), None)
    assert {role: made.manifest.inputs[role]["uri"] for role in ("trial-0000", "trial-0000-seed-1")} == {
        "trial-0000": run,
        "trial-0000-seed-1": second,
    }
    assert made.manifest.facts["best_runs"] == [run, second]
    assert made.manifest.facts["best_dev_map_all"] == pytest.approx(0.45)
    told = capsys.readouterr().err
    assert f"best runs: {run} {second}\n" in told
    assert f"zsbir.evaluate {run} {second} --root=" in told


def test_one_seed_a_trial_is_the_sweep_that_it_was(task):
    one, two = (SweepConfig(seeds_per_trial=seeds) for seeds in (1, 2))
    assert one.identity() == SweepConfig().identity()
    assert one.fingerprint() != two.fingerprint()


def test_a_space_of_seeds_and_several_seeds_a_trial_are_refused(task, tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("seed: [0, 1]\n")
    config = SweepConfig(space=str(space), seeds_per_trial=2)
    with pytest.raises(InputError, match="the space varies seed, and seeds_per_trial gives each trial its own"):
        _resolve(_absolute(SweepRequest(task.base, task.uris, config, [], task.settings, SweepSettings())))
