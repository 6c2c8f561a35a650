r"""A comparison as Markdown, as CSV with all digits, and as LaTeX for a paper (packages booktabs and amsmath).

The titles of settings come from manifests, which strangers may have written: in each form they are text and nothing else.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from zsbir.base.text import clean
from zsbir.comparison.config import Format
from zsbir.comparison.numbers import Comparison, Estimate, Gain, Row
from zsbir.evaluation.intervals import Interval

SMALLEST_P = 0.001
"""Below it a p-value is shown as an upper bound."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_MARKDOWN = frozenset("\\|<>*`[]&")


def as_text(comparison: Comparison, form: Format) -> str:
    """Return the table in one of the forms, without a line break at its end."""
    writers: dict[Format, Callable[[Comparison], str]] = {"markdown": as_markdown, "csv": as_csv, "latex": as_latex}
    return writers[form](comparison)


def as_markdown(comparison: Comparison) -> str:
    """Return the table as Markdown whose columns also stand below each other as plain text."""
    lines = [_head(comparison), *(_cells(row, comparison, "±") for row in comparison.rows)]
    lines = [["".join(f"\\{sign}" if sign in _MARKDOWN else sign for sign in line[0]), *line[1:]] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in (lines[0], rule, *lines[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def as_latex(comparison: Comparison) -> str:
    """Return the table as a LaTeX tabular with the rules of booktabs."""
    head, *rows = [_head(comparison), *(_cells(row, comparison, "\\pm") for row in comparison.rows)]
    lines = [[_latex(cell) for cell in head], *([_latex(row[0]), row[1], *map(_maths, row[2:])] for row in rows)]
    head_line, *body = [f"{' & '.join(line)} \\\\" for line in lines]
    columns = "l" + "r" * (len(head) - 1)
    return "\n".join(
        [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", head_line, "\\midrule", *body, "\\bottomrule", "\\end{tabular}"]
    )


def as_csv(comparison: Comparison) -> str:
    """Return the table as CSV: every number in full, seeds with blanks between them, nothing where there is no number.

    Columns of a metric m: m, m_sd, m_low, m_high, and with another setting to compare with m_gain, m_gain_low, m_gain_high, m_p,
    m_p_holm, m_pairs.
    """
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    write.writerow(["setting", "seeds", *(name for metric in comparison.metrics for name in _columns(metric, comparison))])
    for row in comparison.rows:
        numbers = [
            number
            for metric in comparison.metrics
            for number in (
                *_estimate(row.estimates[metric]),
                *(_gain(row.gains.get(metric)) if comparison.against else ()),
            )
        ]
        write.writerow([_plain(row.title), " ".join(map(str, row.seeds)), *("" if each is None else each for each in numbers)])
    return out.getvalue().rstrip("\n")


def _columns(metric: str, comparison: Comparison) -> list[str]:
    gains = ("_gain", "_gain_low", "_gain_high", "_p", "_p_holm", "_pairs") if comparison.against else ()
    return [f"{metric}{part}" for part in ("", "_sd", "_low", "_high", *gains)]


def _estimate(found: Estimate) -> list[float | None]:
    return [found.mean, found.sd, *_bounds(found.interval)]


def _gain(found: Gain | None) -> list[float | None]:
    if found is None:
        return [None] * 6
    return [found.mean, *_bounds(found.interval), found.p, found.p_holm, found.pairs]


def _bounds(interval: Interval | None) -> list[float | None]:
    return [interval.low, interval.high] if interval else [None, None]


def _plain(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    text = clean(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _head(comparison: Comparison) -> list[str]:
    level = f"{100 * comparison.level:g} % interval"
    gains = ["gain", level, "p (Holm)"] if comparison.against else []
    return ["setting", "seeds", *(name for metric in comparison.metrics for name in (metric, level, *gains))]


def _cells(row: Row, comparison: Comparison, plus_minus: str) -> list[str]:
    """Return a row as people read it, with three digits behind the point."""
    cells = [clean(row.title), str(len(row.seeds))]
    for metric in comparison.metrics:
        found = row.estimates[metric]
        cells.append(f"{found.mean:.3f}" + ("" if found.sd is None else f" {plus_minus} {found.sd:.3f}"))
        cells.append(_within(found.interval))
        if comparison.against:
            cells += _gain_cells(row.gains.get(metric))
    return cells


def _gain_cells(found: Gain | None) -> list[str]:
    if found is None:
        return ["", "", ""]
    bounds = f"{found.interval.low:+.3f} to {found.interval.high:+.3f}" if found.interval else ""
    return [f"{found.mean:+.3f}", bounds, _p_text(found.p_holm)]


def _within(interval: Interval | None) -> str:
    """Return an interval of a metric, which lies within [0, 1]."""
    return f"{max(interval.low, 0):.3f} to {min(interval.high, 1):.3f}" if interval else ""


def _p_text(p: float | None) -> str:
    if p is None:
        return ""
    return f"< {SMALLEST_P:g}" if p < SMALLEST_P else f"{p:.3f}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _maths(cell: str) -> str:
    """Return a cell with numbers in it in mathematical mode, where a minus is no hyphen."""
    return "$" + cell.replace(" to ", r" \text{ to } ") + "$" if cell else ""


def remarks(comparison: Comparison, facts: Sequence[str]) -> list[str]:
    """Return what a reader of the table must know, a line each. facts: protocol, data, queries and gallery."""
    single = [row.title for row in comparison.rows if len(row.seeds) == 1]
    lines = [
        f"{'; '.join(facts)}; {comparison.classes} classes; intervals of {100 * comparison.level:g} % over classes, and over seeds"
        " where there are several"
    ]
    if comparison.against:
        rows = len(comparison.rows) - 1
        lines.append(
            f"gains are over {comparison.against}, class by class, seeds paired where both have two or more in common; p is"
            f" two-sided, corrected for {rows} row{'' if rows == 1 else 's'} (Holm)"
        )
    if single:
        lines.append(
            f"one seed says nothing about others: {len(single)} of {len(comparison.rows)} rows have one, as {single[0]}"
            f"{'; their gains are those of these trainings alone' if comparison.against else ''}"
        )
    return lines
