"""Charts of a report: precision over recall, losses and dev score over a training, classes before and after it.

Charts are Figure objects with a canvas of their own; pyplot's global state is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke

from zsbir.base.errors import InputError
from zsbir.evaluation.grid import GREY, INK, PALE, RIGHT, WRONG, retrieval_grid

__all__ = ["per_class_bars", "precision_recall_figure", "retrieval_grid", "training_curves"]

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Line colours in order of use (Okabe and Ito)."""

Curve = tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]
"""Recall and precision, both in [0, 1]."""


def new_figure(width_in: float, height_in: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a white figure of `panels` plain axes side by side, for Figure.savefig."""
    figure = Figure(
        figsize=(width_in, height_in), dpi=200, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12), facecolor="white"
    )
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, panels, number + 1) for number in range(panels)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(GREY)
        ax.tick_params(colors=GREY, labelcolor=INK, labelsize=9)
        ax.grid(axis="y", color=PALE, linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def precision_recall_figure(curves: Mapping[str, Curve], *, title: str, chance: float | None = None) -> Figure:
    """Plot precision over recall, each curve labelled where the curves lie farthest apart; `chance` as a dashed line.

    Raises InputError where there is no curve.
    """
    if not curves:
        raise InputError("a precision-recall figure needs at least one curve")
    figure, (ax,) = new_figure(6.4, 4.8)
    for (recall, precision), colour in zip(curves.values(), _colours(len(curves)), strict=True):
        ax.plot(recall, precision, color=colour, linewidth=2.2, solid_capstyle="round")
    _label_curves(ax, curves)
    if chance is not None:
        ax.axhline(chance, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        ax.annotate(f"chance {chance:.3f}", (0, chance), (4, 4), textcoords="offset points", color=GREY, fontsize=9)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    ax.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=12)
    return figure


def _colours(count: int) -> list[str]:
    return [LINES[number % len(LINES)] for number in range(count)]


def _label_curves(ax: Axes, curves: Mapping[str, Curve]) -> None:
    """Write each name just above its own line, at the recall where it is farthest from the other lines and names."""
    at = np.linspace(0.02, 0.7, 69)
    placed: list[tuple[float, float, float]] = []
    for (name, (recall, precision)), colour in zip(curves.items(), _colours(len(curves)), strict=True):
        middle, width = np.interp(at, recall, precision) + 0.035, 0.017 * len(name) + 0.02
        span = at[:, None] + np.linspace(0, width, 60)
        others = [np.interp(span, *curve) for other, curve in curves.items() if other != name]
        room = np.min([np.abs(other - middle[:, None]).min(axis=1) for other in others] or [-np.abs(at - 0.3)], axis=0)
        for x, y, reach in placed:
            room = np.where((at < x + reach) & (at + width > x), np.minimum(room, np.abs(middle - y) - 0.03), room)
        best = int(room.argmax())
        placed.append((at[best], middle[best], width))
        text = ax.text(at[best] + 0.01, middle[best], name, color=colour, fontsize=10, fontweight="bold", va="center")
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])


def training_curves(
    history: Sequence[Mapping[str, float | int]], *, title: str = "Training", metric: str = "dev/map_all"
) -> Figure:
    """Plot loss terms (`loss`, `loss_*`) and the dev metric over steps; `history` has a `step` and some values in each row.

    The best dev value, whose checkpoint was kept, is marked. Raises InputError where the history has no loss.
    """
    names = sorted({name for row in history for name in row if name == "loss" or name.startswith("loss_")})
    if not names:
        raise InputError("the training's history has no loss to draw")
    score = _series(history, metric)
    figure, axes = new_figure(10.0 if len(score) else 6.4, 4.2, 2 if len(score) else 1)
    ends = []
    for name, colour in zip(names, [INK, *_colours(len(names) - 1)] if "loss" in names else _colours(len(names)), strict=True):
        series = _series(history, name)
        axes[0].plot(*series.T, color=colour, linewidth=2.4 if name == "loss" else 1.6)
        label = "total" if name == "loss" else name.removeprefix("loss_").replace("_", " ")
        ends.append((float(series[-1, 0]), float(series[-1, 1]), label, colour))
    axes[0].set(xlabel="step", ylim=(0, None))
    axes[0].set_title("Loss", loc="left", fontsize=11, color=INK)
    _label_ends(axes[0], ends)
    if len(score):
        _draw_score(axes[1], score, metric)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    return figure


def _series(history: Sequence[Mapping[str, float | int]], name: str) -> Float[np.ndarray, "n 2"]:
    """Return (step, value) of the rows that have the value."""
    return np.array([(row["step"], row[name]) for row in history if name in row], np.float64).reshape(-1, 2)


def _label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names at the right end of their lines, moved apart where they would overlap."""
    low, high = ax.get_ylim()
    pitch, last = (high - low) * 0.06, -np.inf
    for step, value, label, colour in sorted(ends, key=lambda end: end[1]):
        last = max(value, last + pitch)
        ax.annotate(
            label, (step, last), (6, 0), textcoords="offset points", color=colour, fontsize=9, va="center", annotation_clip=False
        )


def _draw_score(ax: Axes, score: Float[np.ndarray, "n 2"], metric: str) -> None:
    best = score[score[:, 1].argmax()]
    ax.plot(*score.T, color=LINES[0], linewidth=2, marker="o", markersize=4)
    ax.plot(*best, color=LINES[0], marker="o", markersize=9, markerfacecolor="white", markeredgewidth=2)
    ax.annotate(
        f"best {best[1]:.3f}, step {best[0]:.0f}", best, (0, 10), textcoords="offset points", ha="center", fontsize=9, color=INK
    )
    ax.margins(x=0.08, y=0.18)
    ax.set(xlabel="step")
    ax.set_title(metric.replace("dev/", "dev "), loc="left", fontsize=11, color=INK)


def per_class_bars(
    frozen: Sequence[Mapping[str, Any]],
    trained: Sequence[Mapping[str, Any]],
    *,
    class_names: Mapping[int, str] | Sequence[str] | None = None,
    metric: str = "map_all",
    title: str = "What training changed, class by class",
) -> Figure:
    """Draw a dumbbell a class, sorted by the trained value: grey dot = frozen backbone, coloured dot = after training.

    Both arguments are rows of `Evaluation.per_class`. Raises InputError where they are not of the same classes.
    """
    before = {int(row["class_id"]): float(row[metric]) for row in frozen}
    after = {int(row["class_id"]): float(row[metric]) for row in trained}
    if not after or before.keys() != after.keys():
        raise InputError("classes before and after training must be the same, and at least one; evaluate both on one data set")
    order = sorted(after, key=lambda label: (after[label], label))
    figure, (ax,) = new_figure(6.8, 1.7 + 0.26 * len(order))
    for height, label in enumerate(order):
        colour = RIGHT if after[label] >= before[label] else WRONG
        ax.plot([before[label], after[label]], [height, height], color=colour, linewidth=2.2, alpha=0.55, zorder=2)
        ax.plot(before[label], height, "o", color=GREY, markersize=6, zorder=3, clip_on=False)
        ax.plot(after[label], height, "o", color=colour, markersize=8, zorder=4, clip_on=False)
    names = [str(class_names[label]) if class_names is not None else f"class {label}" for label in order]
    ax.set_yticks(range(len(order)), names)
    ax.set(ylim=(-0.8, len(order) + 0.4), xlim=(0, 1), xlabel=metric)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=PALE, linewidth=0.8)
    ax.tick_params(axis="y", length=0, pad=10)
    ax.spines["left"].set_visible(False)
    _label_dumbbell(ax, before[order[-1]], after[order[-1]], len(order) - 1)
    ax.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=26)
    gained = sum(after[label] > before[label] for label in order)
    means = f"class mean {np.mean(list(before.values())):.3f} → {np.mean(list(after.values())):.3f}"
    ax.annotate(
        f"{gained} of {len(order)} classes gained, {means}",
        (0, 1),
        (0, 12),
        "axes fraction",
        "offset points",
        color=GREY,
        fontsize=9,
    )
    return figure


def _label_dumbbell(ax: Axes, before: float, after: float, height: int) -> None:
    """Label the two dots of the uppermost class."""
    sides = ("right", "left") if before < after else ("left", "right")
    for value, text, side, colour in ((before, "frozen", sides[0], GREY), (after, "trained", sides[1], INK)):
        ax.annotate(text, (value, height), (0, 8), textcoords="offset points", ha=side, fontsize=9, color=colour)
