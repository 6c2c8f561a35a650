"""Tables of text, and numbers of bytes and files as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from zsbir.base.text import clean

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[str] = frozenset()) -> str:
    """Return rows under their headings as text, each column as wide as it must be. right: the columns to align right.

    Line breaks and control characters of a cell are shown as escapes.
    """
    lines = [head, *([clean(text) for text in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def cell(text: str, column: int) -> str:
        return text.rjust(widths[column]) if head[column] in right else text.ljust(widths[column])

    return "\n".join("  ".join(cell(text, column) for column, text in enumerate(line)).rstrip() for line in lines)


def bytes_text(count: float) -> str:
    """Return a number of bytes as "12.3 MB": two digits or more, in powers of a thousand."""
    for unit in _UNITS[:-1]:
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


def count_text(count: int, noun: str) -> str:
    """Return a count with its noun: "1 file", "1,160 files"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
