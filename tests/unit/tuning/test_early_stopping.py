"""ASHA through Ray's scheduler and our table, against the rule written out."""

from types import SimpleNamespace

import numpy as np
import pytest

from tuning.ledger import Ledger, Plan
from tuning.space import Choice
from tuning.study import EarlyStopping
from tuning.table import Table, Trial
from zsbir.base.storage import open_folder
from zsbir.training.loop import DEV_SCORE

STEPS, EVERY, GRACE, REDUCTION = 80, 10, 10, 2.0
RUNGS = (10, 20, 40)
"""What follows from them; the rung at 80 is the end, and decides nothing."""


def plan(**changes):
    values = {"space": {"seed": Choice(values=(0, 1))}, "known": [], "search": "random", "seed": 0, "trials": 100, "steps": STEPS}
    return Plan(**{**values, "grace": GRACE, "reduction": REDUCTION, "budget_s": 0, **changes})


def new_ledger(folder, **changes):
    ledger = Ledger(plan(**changes), SimpleNamespace(settings=None), Table(folder))
    ledger._numbers = {str(number): number for number in range(100)}
    return ledger


def report(stopping, number, step, score):
    return stopping.on_trial_result(None, SimpleNamespace(trial_id=str(number)), {"step": step, DEV_SCORE: score})


def reference(arrivals):
    """Successive halving, asynchronous: at a rung, stop who is below the (1 - 1/reduction) percentile of those who came before."""
    best, rungs, stopped = {}, {rung: [] for rung in RUNGS}, {}
    decisions = []
    for number, step, score in arrivals:
        if number in stopped:
            decisions.append(None)
            continue
        best[number] = max(best.get(number, -1), score)
        decision = "CONTINUE"
        if step in rungs:
            before = rungs[step]
            if before and best[number] < np.percentile(before, 100 * (1 - 1 / REDUCTION)):
                decision = "STOP"
                stopped[number] = step
            before.append(best[number])
        decisions.append(decision)
    return decisions


def arrivals(seed):
    """Evaluations of eight trials, mixed by chance, each trial's own in order."""
    random = np.random.default_rng(seed)
    order = random.permutation(np.repeat(np.arange(8), STEPS // EVERY))
    seen = dict.fromkeys(range(8), 0)
    for number in order.tolist():
        seen[number] += EVERY
        yield number, seen[number], float(random.random())


@pytest.mark.parametrize("seed", range(20))
def test_the_decisions_are_ashas(tmp_path, seed):
    ledger = new_ledger(open_folder(tmp_path))
    for number in range(8):
        ledger.table.begin(Trial(number, "random", {}))
    stopping, events = EarlyStopping(ledger), list(arrivals(seed))
    expected = reference(events)
    assert "STOP" in expected
    for event, decision in zip(events, expected, strict=True):
        if decision:
            assert report(stopping, *event) == decision
            assert (ledger.table.trial(event[0]).state == "stopped") == (decision == "STOP")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("cut", [5, 20, 40])
def test_a_restart_decides_as_if_it_had_not_happened(tmp_path, seed, cut):
    folder = open_folder(tmp_path)
    ledger = new_ledger(folder)
    for number in range(8):
        ledger.table.begin(Trial(number, "random", {}))
    events = list(arrivals(seed))
    expected = reference(events)
    stopping = EarlyStopping(ledger)
    for event in [event for event, decision in zip(events[:cut], expected[:cut], strict=True) if decision]:
        report(stopping, *event)
    again = EarlyStopping(new_ledger(folder))
    for event, decision in zip(events[cut:], expected[cut:], strict=True):
        if decision:
            assert report(again, *event) == decision


def test_what_is_said_again_is_not_judged_again(tmp_path):
    ledger = new_ledger(open_folder(tmp_path))
    for number in range(3):
        ledger.table.begin(Trial(number, "random", {}))
    stopping = EarlyStopping(ledger)
    assert report(stopping, 0, 10, 0.1) == "CONTINUE"
    assert report(stopping, 1, 10, 0.9) == "CONTINUE"
    assert report(stopping, 0, 10, 0.1) == "CONTINUE", "it passed this rung when it was alone"
    assert ledger.table.trial(0).scores == ((10, 0.1),)


def test_who_watches_sees_each_trial_beside_the_best_up_to_it(tmp_path, monkeypatch):
    rows = {}
    monkeypatch.setattr("tuning.ledger.watch.record_metrics", lambda step, metrics, keep: rows.update({step: metrics}))
    ledger = new_ledger(open_folder(tmp_path), grace=0)
    for number in range(3):
        ledger.table.begin(Trial(number, "random", {}))
    for number, step, score in ((1, 10, 0.3), (0, 10, 0.1), (0, 20, 0.2), (2, 10, 0.25)):
        ledger.scored(number, step, score, stopped=False)
    shown = {number: (row[DEV_SCORE], row[f"{DEV_SCORE}_best"]) for number, row in rows.items()}
    assert shown == {0: (0.2, 0.2), 1: (0.3, 0.3), 2: (0.25, 0.3)}


def test_nobody_is_stopped_at_the_end_or_without_a_scheduler(tmp_path):
    for name, changes in (("end", {"grace": STEPS}), ("none", {"grace": 0})):
        ledger = new_ledger(open_folder(tmp_path / name), **changes)
        for number in range(4):
            ledger.table.begin(Trial(number, "random", {}))
        stopping = EarlyStopping(ledger)
        assert {report(stopping, number, step, 1 / (number + 1)) for number in range(4) for step in (10, STEPS)} == {"CONTINUE"}


def test_a_run_that_was_found_counts_like_one_that_was_trained(tmp_path):
    ledger = new_ledger(open_folder(tmp_path))
    for number in range(3):
        ledger.table.begin(Trial(number, "random", {}))
    stopping = EarlyStopping(ledger)
    ledger.table.scored(0, 10, 0.9, stopped=False)  # from the history of a run that was there
    ledger.table.end(0, "finished")
    assert report(stopping, 1, 10, 0.5) == "STOP"
    assert report(stopping, 2, 10, 0.95) == "CONTINUE"


def test_time_is_counted_at_every_score_and_the_budget_shrinks_by_it(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("tuning.ledger.time", SimpleNamespace(monotonic=lambda: now[0]))
    folder = open_folder(tmp_path)
    ledger = new_ledger(folder, budget_s=600)
    assert ledger.seconds_left(2) == 300
    ledger.table.begin(Trial(0, "base", {}))
    ledger._running[0] = now[0]
    now[0] += 40
    ledger.scored(0, 10, 0.5, stopped=False)
    now[0] += 20
    ledger.left(0)
    ledger.left(0)
    assert ledger.table.trial(0).seconds == 60
    assert new_ledger(folder, budget_s=600).seconds_left(2) == 270
    assert new_ledger(folder, budget_s=30).seconds_left(2) == 1
    assert new_ledger(folder).seconds_left(2) == 0
