"""Draw the tables of a page on what each loss earns: means over seeds, with bars of one standard deviation to both sides.

    PYTHONPATH=.:tests python -m bench.experiments.picture docs/benchmarks/PAGE.md docs/pictures/FILE.png

It is drawn from the page, so that both say the same.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

GROUPS = {"#2a5d9f": ("quadruplet", "classification", "preservation", "all three"), "#a33": ("caltech_qd60_",), "#777": ("",)}
"""Colours, with how the names of their rows begin; the last one takes the others."""

TITLE = re.compile(r"\*\*(\w+, \d+ unseen classes)\*\*")
CELL = re.compile(r"(?P<mean>\d\.\d+)(?: ± (?P<sd>\d\.\d+))?")

ROOM_FOR_A_NUMBER = 0.06
"""Of the axis of mAP, beyond the best row."""


class Row(NamedTuple):
    """sd: over seeds; 0 where there is one seed."""

    name: str
    mean: float
    sd: float


def main(page: str, picture: str) -> None:
    """Write the picture of a page."""
    panels = read(Path(page).read_text())
    places = {name: -place for place, name in enumerate(dict.fromkeys(row.name for rows in panels.values() for row in rows))}
    reach = max(row.mean + row.sd for rows in panels.values() for row in rows) + ROOM_FOR_A_NUMBER
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True):
        for row in rows:
            at, colour = places[row.name], next(colour for colour, starts in GROUPS.items() if row.name.startswith(starts))
            axes.hlines(at, row.mean - row.sd, row.mean + row.sd, color=colour, alpha=0.5, linewidth=6)
            axes.plot(row.mean, at, "o", color=colour, markersize=5)
            axes.annotate(
                f"{row.mean:.3f}"[1:], (row.mean + row.sd, at), (7, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_yticks(list(places.values()), list(places))
        axes.set(title=title, xlabel="mAP@all, sketch to photo, one pass a query", xlim=(0, reach))
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    figure.savefig(picture, dpi=110)


def read(page: str) -> dict[str, list[Row]]:
    """Return the rows of the first table below each title of `TITLE`, one for each data set.

    Raises ValueError where the page has none, or a row without a figure.
    """
    found: dict[str, list[Row]] = {}
    for title, text in zip(*[iter(TITLE.split(page)[1:])] * 2, strict=True):
        lines = [line.strip("| ").split(" | ") for line in text.strip().split("\n\n")[0].splitlines()[2:]]
        found.setdefault(title, [_row(name, cell) for name, _, cell, *_ in lines])
    if not found:
        raise ValueError("the page has no table of unseen classes")
    return found


def _row(name: str, cell: str) -> Row:
    number = CELL.match(cell)
    if not number:
        raise ValueError(f"no figure in the row of {name}: {cell!r}")
    return Row(name, float(number["mean"]), float(number["sd"] or 0))


if __name__ == "__main__":
    main(*sys.argv[1:])
