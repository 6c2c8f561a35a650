"""The outcome of a sweep: the best trial, which fields mattered, and all trials as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tuning.space import Space, contains
from tuning.table import Trial, leader
from zsbir.base import events
from zsbir.base.text import clean
from zsbir.training.config import TrainConfig

MIN_FOR_IMPORTANCE = 4
"""Scored trials that are needed to estimate which fields matter."""


@dataclass(frozen=True)
class Outcome:
    """A sweep that has ended: the base configuration, the space and every trial."""

    base: TrainConfig
    space: Space
    trials: Sequence[Trial]

    @cached_property
    def best(self) -> Trial | None:
        """The finished trial with the best dev score, of equal scores the first; None if no trial finished."""
        return leader(trial for trial in self.trials if trial.state == "finished")

    @cached_property
    def importance(self) -> tuple[int, dict[str, float]]:
        """The step and the importance of each field; see `importances`."""
        return importances(self.space, self.trials)

    def verdict(self) -> str:
        """Return the result as one line: the best trial beside the recipe as it is."""
        base, best = self.trials[0], self.best
        if best is None:
            return "no trial finished"
        mean = f" in the mean of {len(best.runs)} seeds" if best.further else ""
        line = f"best: trial {best.number}, dev mAP@all {best.score:.3f}{mean}"
        if base.state != "finished" or base.score is None:
            return f"{line}; the recipe as it is {base.state} ({base.error or 'early'})"
        if best.number == base.number:
            return f"no trial is better on dev than the recipe as it is, {base.score:.3f}"
        return f"{line}; the recipe as it is {base.score:.3f} ({(best.score or 0) - base.score:+.3f})"


def importances(space: Space, trials: Sequence[Trial]) -> tuple[int, dict[str, float]]:
    """Return (step, share of each field), the most important field first, by functional ANOVA (Hutter et al. 2014, Optuna's).

    The scores are those at the latest step that every scored trial has reached, so that no trial looks better for having trained
    longer; of several seeds the mean. Empty if there are too few trials, or all scored the same.
    """
    scored = [trial for trial in trials if trial.scores and contains(space, trial.point)]
    if len(scored) < MIN_FOR_IMPORTANCE:
        return 0, {}
    step = min(trial.scores[-1][0] for trial in scored)
    values = [trial.score_until(step) for trial in scored]
    if len(set(values)) < 2:
        return step, {}
    import optuna

    from tuning.suggest import distributions

    study = optuna.create_study(direction="maximize")
    for trial, value in zip(scored, values, strict=True):
        params = {field: trial.point[field] for field in space}
        study.add_trial(optuna.trial.create_trial(value=value, params=params, distributions=distributions(space)))
    try:
        found = optuna.importance.get_param_importances(study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0))
    except (ValueError, RuntimeError, ImportError) as error:
        events.warn(f"the importance of the fields could not be computed: {error}")
        return step, {}
    return step, {field: float(share) for field, share in found.items()}


def table_text(space: Space, trials: Sequence[Trial]) -> str:
    """Return the trials as lines of text, the best first, failed ones with their error."""
    ranked = sorted(trials, key=lambda trial: (trial.state != "finished", -(trial.score or -1.0), trial.number))
    width = {field: max(len(field), 8) for field in space}
    head = f"{'trial':>5}  {'state':8}  {'step':>5}  {'dev mAP':>7}  " + "  ".join(f"{field:>{width[field]}}" for field in space)
    return "\n".join([head, *(_line(trial, width) for trial in ranked)])


def _line(trial: Trial, width: dict[str, int]) -> str:
    step = str(trial.scores[-1][0]) if trial.scores else "-"
    score = "-" if trial.score is None else f"{trial.score:.3f}"
    values = "  ".join(f"{shown(trial.point.get(field)):>{columns}}" for field, columns in width.items())
    return f"{trial.number:5}  {trial.state:8}  {step:>5}  {score:>7}  {values}" + (
        f"  {clean(trial.error)}" if trial.error else ""
    )


def shown(value: Any) -> str:
    """Return a value as text, numbers with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
