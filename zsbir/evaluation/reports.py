"""Reading a Report: the values of its queries, and intervals made of them, for reports of every age.

Versions before 29 November 2026 wrote intervals over queries into report.json. The queries' own values are in every Report, so
whoever shows an interval makes it anew of these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.evaluation.intervals import Interval, class_means, interval_over_classes

TRAINED, FROZEN = "trained", "frozen"
"""The two models of a report."""

UNCHANGED = "trained_plain"
"""In a report under a protocol with search options: the trained model without them, as `zero_shot` ranks."""

QUERY = ("path", "class_id", "sha256")
"""The columns that identify a query in a report."""


def queries_of(report: Artifact) -> list[tuple[Any, ...]]:
    """Return path, class and checksum of each query."""
    table = _columns(report, QUERY)
    return list(zip(*(table[name].to_pylist() for name in QUERY), strict=True))


def labels_of(report: Artifact) -> Int[np.ndarray, "q"]:
    """Return the class of each query."""
    return np.asarray(_columns(report, ("class_id",))["class_id"].to_numpy())


def values_of(report: Artifact, model: str, metric: str) -> Float[np.ndarray, "q"]:
    """Return a model's value of each query. Raises InputError where one is not a number."""
    name = f"{model}/{metric}"
    values: np.ndarray = _columns(report, (name,))[name].to_numpy().astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{report.uri}: {name} of some query is not a number; make the report again with python -m zsbir.evaluate")
    return values


def report_interval(report: Artifact, model: str, metric: str) -> Interval | None:
    """Return the 95 % interval over classes of a model's mean over queries; None where all queries are of one class."""
    return interval_over_classes(values_of(report, model, metric), labels_of(report))


def means_by_class(reports: Sequence[Artifact], model: str, metric: str, labels: Int[np.ndarray, "q"]) -> Float[np.ndarray, "k c"]:
    """Return a model's mean of each class, one row a report. labels: the class of each query, the same in all reports."""
    return np.stack([class_means(values_of(report, model, metric), labels).means for report in reports])


def relevant_of(report: Artifact) -> dict[int, int]:
    """Return how many queries have how many relevant photos: {photos: queries}; empty for a report without a table by class."""
    if "per_class.parquet" not in report.manifest.files:
        return {}
    table = _columns(report, ("model", "queries", "relevant"), "per_class.parquet")
    counts: Counter[int] = Counter()
    for model, queries, relevant in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
        if model == TRAINED and isinstance(queries, int) and isinstance(relevant, int) and queries > 0 <= relevant:
            counts[relevant] += queries
    return dict(counts)


def interval_text(interval: Interval | None, classes: int) -> str:
    """Return an interval for people, within [0, 1], with what it is over; where there is none, why."""
    if interval is None:
        return "no interval: one class says nothing about others"
    return f"95 % interval over {classes} classes {max(interval.low, 0):.3f} to {min(interval.high, 1):.3f}"


def _columns(report: Artifact, names: tuple[str, ...], file: str = "per_query.parquet") -> Any:
    from zsbir.base.parquet import read_table  # loaded here: command lines that open no report read this module's callers

    return read_table(report.verified(file), dict.fromkeys(names), report.address(file))
