"""The next configuration of a sweep: a pure function of its space, its seed, its table so far and the trial's number.

Nothing but the table is remembered, so a sweep that goes on after a kill suggests the same as one that was not killed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tuning.config import Search
from tuning.space import Dimension, Range, Space, contains, grid_points, random_point, rounded
from tuning.table import Origin, Trial
from zsbir.base.seeds import short_seed

TRIES = 100
"""Draws after which a space counts as used up if each one repeats a configuration that was tried."""

STARTUP_TRIALS = 6
"""Random trials before TPE models anything (Optuna's default is 10; sweeps of trainings are short)."""

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def suggest(
    search: Search, space: Space, known: Sequence[dict[str, Any]], trials: Sequence[Trial], *, seed: int
) -> tuple[Origin, dict[str, Any]] | None:
    """Return the origin and point of the next trial, or None when the space is used up.

    known: points to start from, that of the base configuration first, tried before anything is searched. trials: all so far.
    """
    number = len(trials)
    if number < len(known):
        return ("base" if number == 0 else "warm"), dict(known[number])
    tried = [trial.point for trial in trials]
    if search == "grid":
        point = next((point for point in grid_points(space) if point not in tried), None)
        return None if point is None else ("grid", point)
    for turn in range(TRIES):
        # The further draws of a trial use numbers that no other trial uses.
        point = (
            random_point(space, seed=seed, number=number + turn * 10**6) if search == "random" else _tpe(space, trials, seed, turn)
        )
        if point not in tried:
            return search, point
    return None


def most_trials(search: Search, space: Space, known: Sequence[dict[str, Any]], limit: int) -> int:
    """Return how many trials a sweep has at most: `limit`, or the points of a grid and those to start from that are not in it."""
    if search != "grid":
        return limit
    points = list(islice(grid_points(space), limit))
    return min(limit, len(points) + sum(point not in points for point in known))


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the space as Optuna's distributions."""
    return {field: _distribution(dimension) for field, dimension in space.items()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if not isinstance(dimension, Range):
        return CategoricalDistribution(dimension.values)
    if dimension.whole:
        return IntDistribution(round(dimension.low), round(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def frozen_trial(space: Space, trial: Trial) -> optuna.trial.FrozenTrial:
    """Return a trial as Optuna stores it: running, complete, pruned with its scores so far, or failed."""
    state = {
        "begun": optuna.trial.TrialState.RUNNING,
        "finished": optuna.trial.TrialState.COMPLETE,
        "stopped": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }[trial.state]
    return optuna.trial.create_trial(
        state=state,
        value=trial.score if trial.state == "finished" else None,
        params={field: trial.point[field] for field in space},
        distributions=distributions(space),
        intermediate_values=dict(trial.scores),
    )


def _tpe(space: Space, trials: Sequence[Trial], seed: int, turn: int) -> dict[str, Any]:
    """Return the choice of the tree-structured Parzen estimator (Bergstra et al. 2011, Optuna's), fitted to the table each time."""
    # Every trial has its own seed: the state of one sampler for all of them would be lost with a killed process.
    sampler = optuna.samplers.TPESampler(
        seed=short_seed("TPE trial", seed, len(trials), turn),
        n_startup_trials=STARTUP_TRIALS,
        multivariate=True,
        constant_liar=True,
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in trials:
        if contains(space, trial.point):
            study.add_trial(frozen_trial(space, trial))
    point = study.ask(distributions(space)).params
    return {field: rounded(value) if isinstance(value, float) else value for field, value in point.items()}
