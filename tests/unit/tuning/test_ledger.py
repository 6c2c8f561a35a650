"""The lines that a sweep prints while it runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tuning.ledger import Ledger, Plan
from tuning.space import Choice
from tuning.table import Table, Trial, leader
from zsbir.base.storage import open_folder

SPACE = {"seed": Choice(values=(0, 1))}
PLAN = Plan(space=SPACE, known=[], search="random", seed=0, trials=16, steps=120, grace=40, reduction=2.0, budget_s=0)


@pytest.fixture
def ledger(tmp_path):
    """Return the ledger of a sweep of 16 trials of which two run; the first has finished after 120 s with .667 at step 80."""
    made = Ledger(PLAN, SimpleNamespace(settings=None), Table(open_folder(tmp_path)))
    for number in range(3):
        made.table.begin(Trial(number, "random", {}))
    for step, score in ((40, 0.6), (80, 0.667), (120, 0.65)):
        made.table.scored(0, step, score, stopped=False)
    made.table.end(0, "finished")
    made.table.spent(0, 120.0)
    made._running = {1: float("inf"), 2: float("inf")}
    made._count_time = lambda number: None
    return made


def line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_a_score_stands_beside_the_best_one_with_its_trial_and_step(ledger, capsys):
    ledger.scored(1, 40, 0.646, stopped=False)
    assert line(capsys).startswith(
        "trial 1, step 40/120: dev/map_all 0.646 (best 0.667, trial 0 at step 80); 1 of 16 trials ended, 2 running"
    )


def test_the_best_is_one_evaluation_and_not_the_trial_that_it_belongs_to(ledger, capsys):
    """A leader whose score has fallen was called "the best so far" beside a best that was higher."""
    ledger.scored(1, 40, 0.7, stopped=False)
    assert "0.700 (the best so far)" in line(capsys)
    ledger.scored(1, 80, 0.646, stopped=False)
    assert "0.646 (best 0.700, trial 1 at step 40)" in line(capsys)


def test_a_trial_that_is_stopped_is_no_longer_the_best(ledger, capsys):
    ledger.scored(1, 40, 0.9, stopped=True)
    assert "0.900 (best 0.667, trial 0 at step 80), stopped early; 2 of 16 trials ended, 1 running" in line(capsys)
    assert leader(ledger.table.trials).number == 0


def test_the_time_left_is_that_of_the_steps_to_come_at_the_speed_so_far(ledger, capsys):
    """A second a step; 40 and 120 steps of the two that run, 13 trials of 120 steps, two at a time: 860 s."""
    ledger.scored(1, 80, 0.5, stopped=False)
    ledger.table.spent(1, 80.0)
    ledger.scored(1, 80, 0.5, stopped=False)
    assert line(capsys).endswith("about 14 min left")


def test_trials_that_end_early_shorten_what_is_left(ledger, capsys):
    """Trials take 80 steps in the mean: 80 of the one that runs, 13 more of them, two at a time, since the next begins at once."""
    ledger.table.spent(1, 40.0)
    ledger.scored(1, 40, 0.5, stopped=True)
    assert line(capsys).endswith("about 9 min left")


def test_where_no_trial_waits_the_place_of_one_that_was_stopped_stays_empty(ledger, capsys):
    """80 steps of the one that runs, alone."""
    ledger.most = 3
    ledger.table.spent(1, 40.0)
    ledger.scored(1, 40, 0.5, stopped=True)
    assert line(capsys).endswith("about 1 min left")


def test_a_budget_bounds_the_time_left(ledger, capsys):
    ledger.plan = Plan(**{**vars(PLAN), "budget_s": 120.0 + 240.0})
    ledger.scored(1, 40, 0.5, stopped=False)
    assert line(capsys).endswith("about 2 min left")


def test_before_anything_is_known_of_the_speed_no_time_is_named(tmp_path, capsys):
    made = Ledger(PLAN, SimpleNamespace(settings=None), Table(open_folder(tmp_path)))
    made.table.begin(Trial(0, "base", {}))
    made.scored(0, 40, 0.5, stopped=False)
    assert line(capsys) == "trial 0, step 40/120: dev/map_all 0.500 (the best so far); 0 of 16 trials ended, 0 running"


def test_a_grid_has_no_more_trials_than_points(tmp_path):
    plan = Plan(**{**vars(PLAN), "search": "grid", "known": [{"seed": 0}, {"seed": 7}]})
    assert Ledger(plan, SimpleNamespace(settings=None), Table(open_folder(tmp_path))).most == 3
