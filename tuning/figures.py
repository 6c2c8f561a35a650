"""Pictures of a sweep for papers and READMEs: learning curves, parallel coordinates, importance of the fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tuning.outcome import Outcome
from tuning.space import Choice, Dimension
from tuning.table import Trial

COLOURS = colormaps["viridis"]
BEST = "#d62728"
PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
"""Background of the numbers on an axis, so that lines do not cross them out."""


def learning_curves(outcome: Outcome, best: Trial) -> Figure:
    """Draw dev mAP@all over steps, a line a trial (of several seeds the first), with a cross where one was stopped early."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    colour_of = _colours(outcome)
    for trial in outcome.trials:
        if not trial.scores:
            continue
        steps, scores = zip(*trial.scores, strict=True)
        first = trial.number == best.number
        colour = BEST if first else colour_of(trial)
        axes.plot(
            steps,
            scores,
            color=colour,
            lw=2.4 if first else 1.2,
            marker="o",
            ms=3,
            zorder=3 if first else 2,
            label=_label(trial, best),
        )
        if trial.state == "stopped":
            axes.plot(steps[-1], scores[-1], "x", color=colour, ms=7)
    axes.set(xlabel="optimiser step", ylabel="dev mAP@all", title=_title(outcome))
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    named = [(handle, label) for handle, label in zip(handles, labels, strict=True) if label]
    if named:
        axes.legend(*zip(*named, strict=True), frameon=False)
    return figure


def _label(trial: Trial, best: Trial) -> str | None:
    if trial.number == best.number:
        return f"best: trial {trial.number}"
    return "trial 0: the recipe" if trial.number == 0 else None


def parallel_coordinates(outcome: Outcome, best: Trial) -> Figure:
    """Draw a line a trial through its values, coloured by its best score; the best red, trials that were stopped early dashed."""
    space = outcome.space
    scored = sorted(((trial.score, trial) for trial in outcome.trials if trial.score is not None), key=lambda pair: pair[0])
    figure = Figure(figsize=(1.6 * len(space) + 3, 4.4), layout="constrained")
    axes = figure.subplots()
    norm, colour_of = _norm(outcome.trials), _colours(outcome)
    fields = list(space)
    for score, trial in scored:
        heights = [_axis_share(space[field], trial.point[field]) for field in fields] + [float(norm(score))]
        first = trial.number == best.number
        axes.plot(
            range(len(heights)),
            heights,
            color=BEST if first else colour_of(trial),
            lw=2.6 if first else 1.4,
            ls="--" if trial.state != "finished" else "-",
            alpha=1.0 if first else 0.8,
            zorder=3 if first else 2,
        )
    for column, field in enumerate(fields):
        axes.axvline(column, color="0.7", lw=0.8)
        for height, label in _ticks(space[field]):
            axes.annotate(
                label, (column, height), (4, 0), textcoords="offset points", fontsize=8, va="center", zorder=4, bbox=PAPER
            )
    axes.axvline(len(fields), color="0.7", lw=0.8)
    for share in np.linspace(0, 1, 5):
        axes.annotate(
            f"{norm.inverse(share):.3f}", (len(fields), share), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center"
        )
    axes.set_xticks(range(len(fields) + 1), [*(field.replace("_", "\n", 1) for field in fields), "dev\nmAP@all"])
    axes.set(
        xlim=(-0.15, len(fields) + 0.45), ylim=(-0.05, 1.05), yticks=[], title=f"{_title(outcome)}; best red, stopped early dashed"
    )
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    return figure


def importance_bars(importance: Mapping[str, float], step: int) -> Figure:
    """Draw a bar a field, the most important at the top."""
    figure = Figure(figsize=(6.4, 0.36 * len(importance) + 1.2), layout="constrained")
    axes = figure.subplots()
    fields = list(importance)[::-1]
    bars = axes.barh(fields, [importance[field] for field in fields], color=COLOURS(0.35))
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set(xlim=(0, 1), xlabel="importance (functional ANOVA)")
    axes.set_title(f"share of the variance of dev mAP@all at step {step}", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _title(outcome: Outcome) -> str:
    seeds = max((len(trial.runs) for trial in outcome.trials), default=1)
    return f"{outcome.base.recipe}: {len(outcome.trials)} trials" + (f" of {seeds} seeds" if seeds > 1 else "")


def _colours(outcome: Outcome) -> Callable[[Trial], Any]:
    """Return a function that gives a trial's colour by its best score."""
    norm = _norm(outcome.trials)
    return lambda trial: COLOURS(norm(trial.score or 0.0))


def _norm(trials: Sequence[Trial]) -> Normalize:
    scores = [trial.score for trial in trials if trial.score is not None]
    low, high = min(scores), max(scores)
    return Normalize(low, high if high > low else low + 1e-3)


def _axis_share(dimension: Dimension, value: object) -> float:
    """Return the position of a value on its axis, 0 to 1; a value from outside the range is put at the nearer end."""
    if isinstance(dimension, Choice):
        if value not in dimension.values:
            return 0.0
        return dimension.values.index(value) / max(1, len(dimension.values) - 1)
    return float(np.clip(dimension.share_of(float(value)), 0, 1))  # type: ignore[arg-type]  # a range's values are numbers


def _ticks(dimension: Dimension) -> list[tuple[float, str]]:
    if isinstance(dimension, Choice):
        return [(_axis_share(dimension, value), str(value)) for value in dimension.values]
    return [(share, f"{dimension.at(share):.3g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
