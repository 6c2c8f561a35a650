"""How text is laid out for people: tables, colours, durations, numbers. Nothing here knows of jobs."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from zsbir.base.text import clean

BAR_WIDTH = 30
"""Characters of a progress bar."""

COLOURS: Mapping[str, str] = {
    "queued": "33", "starting": "36", "running": "36", "succeeded": "32", "done": "32", "found": "32", "failed": "31",
    "timed_out": "35", "cancelled": "90",
}  # fmt: skip
"""Colours of the words for states, as terminals number them: red for failures alone; what was cancelled is grey."""

LEAST_ROOM = 24
"""Characters that the last column of a wrapped line has at least; with less room it has lines of its own."""


@dataclass(frozen=True)
class TextStyle:
    """How text is laid out. width: the longest line; None for no limit, where standard output is not a terminal."""

    width: int | None = None
    colours: bool = False

    @classmethod
    def of_stdout(cls) -> Self:
        """Return the style for this process's standard output: colours only on a terminal, and not where NO_COLOR is set."""
        out = sys.__stdout__
        if out is None or not out.isatty():
            return cls()
        return cls(shutil.get_terminal_size().columns, not os.environ.get("NO_COLOR"))

    def table(self, rows: Sequence[Sequence[str]], indent: str = "", wrapped: Collection[int] = ()) -> list[str]:
        """Return rows as lines with aligned columns. The last column is cut where the terminal ends.

        wrapped: the numbers of rows, from 0, whose last column goes on below instead.
        """
        cells = [[clean(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return [line for number, row in enumerate(cells) for line in self._lines(row, widths, indent, is_wrapped=number in wrapped)]

    def _lines(self, row: Sequence[str], widths: Sequence[int], indent: str, *, is_wrapped: bool) -> list[str]:
        *first, last = row
        padded = [cell.ljust(width) for cell, width in zip(first, widths, strict=False)]
        used = len(indent) + sum(len(cell) + 2 for cell in padded)
        room = None if self.width is None else max(10, self.width - used)
        if self.width is None or room is None or len(last) <= room:
            below: list[str] = []
        elif not is_wrapped:
            last, below = last[: room - 1] + "…", []
        elif room < LEAST_ROOM:
            last, below = "", textwrap.wrap(last, max(LEAST_ROOM, self.width - len(indent) - 4))
            below = [f"{indent}    {line}" for line in below]
        else:
            last, *rest = textwrap.wrap(last, room)
            below = [" " * used + line for line in rest]
        return [(indent + "  ".join(map(self.paint, [*padded, last]))).rstrip(), *below]

    def paint(self, cell: str) -> str:
        """Return a job's state in its colour, any other text as it is."""
        colour = COLOURS.get(cell.strip()) if self.colours else None
        return f"\x1b[{colour}m{cell}\x1b[0m" if colour else cell


def format_log(text: str) -> str:
    """Return a piece of a log for a terminal: lines and tabs stay, other characters that control a terminal become escapes."""
    return "\n".join("\t".join(map(clean, line.split("\t"))) for line in text.replace("\r\n", "\n").split("\n"))


def format_duration(seconds: float) -> str:
    """Return a duration as people write it: 45 s, 3 min, 2 h 5 min, 4 d 2 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 60:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def format_count(number: float, word: str) -> str:
    """Return `1 CPU`, `2 CPUs`."""
    return f"{number:g} {word}{'' if number == 1 else 's'}"


def format_time(at_s: float) -> str:
    """Return seconds since 1970 as date and time in this machine's zone."""
    return datetime.fromtimestamp(at_s).strftime("%Y-%m-%d %H:%M:%S")


def format_number(value: Any) -> str:
    """Return a number with five digits, anything else as its text."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def format_ids(ids: Iterable[int]) -> str:
    """Return numbers with runs as ranges: `12-14, 20`."""
    runs: list[list[int]] = []
    for number in sorted(ids):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def format_bar(frac: float | None) -> str:
    """Return a share from 0 to 1 as a bar; empty where it is not known."""
    if frac is None:
        return ""
    full = round(BAR_WIDTH * min(1.0, max(0.0, frac)))
    return "█" * full + "░" * (BAR_WIDTH - full) + " "


def section(name: str, rows: Iterable[Sequence[Any]], style: TextStyle) -> list[str]:
    """Return a heading with a table below it; nothing without rows."""
    cells = [[format_number(cell) for cell in row] for row in rows]
    return [name, *style.table(cells, "  ")] if cells else []
