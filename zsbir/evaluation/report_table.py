"""A report as lines of text: both models, chance for scale, what was left out, and which metrics say less than their names.

The report may come from a stranger: its numbers are checked before they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zsbir.base import limits
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.text import clean
from zsbir.evaluation.reports import interval_text, relevant_of, report_interval
from zsbir.retrieval.options import SearchOptions

SHOWN_METRICS = ("map_all", "map_all_voc", "map_at_200_min", "map_at_200_min_voc", "p_at_100", "p_at_200")
CUTOFFS = {"p_at_100": 100, "p_at_200": 200}
PICTURES = ("grid.png", "precision_recall.png", "per_class.png")

BEYOND, CAPPED = "†", "*"
"""Marks of a metric whose cutoff is not below the size of the gallery, and of one that a perfect ranking does not bring to 1."""

Share = Annotated[float, Field(ge=0, le=1)]


class LeftOutCounts(BaseModel):
    """What report.json says of what was left out."""

    model_config = ConfigDict(frozen=True)

    class_count: int = Field(ge=0)
    classes: list[str] = Field(max_length=1000)
    sketches: int = Field(ge=0)
    photos: int = Field(ge=0)
    repeated_sketches: int = Field(ge=0)
    repeated_photos: int = Field(ge=0)


class LosingClass(BaseModel):
    """What report.json says of a class that loses by search options: its map_all without and with them."""

    model_config = ConfigDict(frozen=True)

    class_name: str = Field(max_length=1000)
    plain: Share
    with_options: Share


class ReportSummary(BaseModel):
    """What report.json must hold for the table. Further entries, and models' further numbers, are not read."""

    model_config = ConfigDict(frozen=True)

    protocol: str = Field(max_length=200)
    dataset: str = Field(max_length=200)
    queries: int = Field(ge=0)
    gallery: int = Field(ge=0)
    classes: int = Field(ge=0)
    chance_map_all: Share
    models: dict[str, dict[str, float | None]] = Field(max_length=10)
    left_out: LeftOutCounts | None = None
    options: SearchOptions | None = None
    losing: list[LosingClass] = Field(default=[], max_length=limits.CLASSES)


def summary_of(report: Artifact) -> ReportSummary:
    """Return report.json, checked. Raises InputError where it is damaged or lacks a number of the table."""
    try:
        found = ReportSummary.model_validate(report.read_json("report.json"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"{report.address('report.json')}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for name, values in found.models.items():
        lacking = [metric for metric in SHOWN_METRICS if values.get(metric) is None]
        if lacking:
            raise InputError(f"{report.address('report.json')}: model {name!r} has no {lacking[0]}")
    return found


def table(report: Artifact) -> str:
    """Return the report as lines of text: the frozen and the trained model, chance for scale, and notes."""
    summary = summary_of(report)
    marks, notes = limits_of(summary.gallery, relevant_of(report))
    head = f"{summary.protocol}: {summary.classes} classes, {summary.queries} sketches against {summary.gallery} photos"
    if summary.left_out is not None:
        head += f" of {summary.dataset}"
    wide = max(10, *(len(name) + 1 for name in summary.models))
    lines = [head, *_left_out_lines(summary), *_option_lines(summary)]
    lines.append(" " * wide + "".join(f"{name + marks.get(name, ''):>20}" for name in SHOWN_METRICS))
    for name, values in summary.models.items():
        lines.append(f"{name:{wide}}" + "".join(f"{values[metric]:20.3f}" for metric in SHOWN_METRICS))
    lines.append(f"{'chance':{wide}}{summary.chance_map_all:20.3f}")
    lines += notes
    for name, values in summary.models.items():
        interval = interval_text(report_interval(report, name, "map_all"), summary.classes)
        lines.append(f"{name}: map_all {values['map_all']:.3f}, {interval}")
    lines += [f"pictures: {report.address(name)}" for name in PICTURES if name in report.manifest.files]
    return "\n".join(map(clean, lines))


def _left_out_lines(summary: ReportSummary) -> list[str]:
    out = summary.left_out
    if out is None:
        return []
    if not (out.class_count or out.repeated_sketches or out.repeated_photos):
        return ["left out as seen in training: nothing"]
    names = f" ({', '.join(out.classes[:8])}{', ...' if out.class_count > 8 else ''})" if out.classes else ""
    return [
        f"left out as seen in training: {out.class_count} classes{names} with {out.sketches} sketches and {out.photos} photos;"
        f" by their bytes {out.repeated_sketches} sketches and {out.repeated_photos} photos of other classes"
    ]


def _option_lines(summary: ReportSummary) -> list[str]:
    """Return which search options were on, and which classes lose by them."""
    if summary.options is None:
        return []
    lines = [f"search options: {summary.options.text()}"]
    shown = [f"{row.class_name} {row.plain:.3f} to {row.with_options:.3f}" for row in summary.losing[:8]]
    names = f": {', '.join(shown)}{', ...' if len(summary.losing) > 8 else ''}" if shown else ""
    return [*lines, f"classes that lose by them: {len(summary.losing)} of {summary.classes}{names}"]


def limits_of(gallery: int, relevant: Mapping[int, int]) -> tuple[dict[str, str], list[str]]:
    """Return a mark for each metric of the table that says less than its name, and a note for each mark.

    relevant: how many queries have how many relevant photos; empty where that is not known. In a gallery of at most k photos p_at_k
    is the share of relevant ones, whatever the ranking, and map_at_k_min is map_all. Where queries have fewer than k relevant
    photos p_at_k stays below 1 for a perfect ranking.
    """
    marks: dict[str, str] = {}
    notes: list[str] = []
    asked = sum(relevant.values())
    for metric, k in CUTOFFS.items():
        fewer = sum(queries for found, queries in relevant.items() if found < k)
        if gallery <= k:
            marks[metric] = BEYOND
            notes.append(f"{BEYOND} {metric}: with a gallery of {gallery} photos it is the same for every ranking")
        elif fewer:
            best = sum(queries * min(found / k, 1) for found, queries in relevant.items()) / asked
            marks[metric] = CAPPED
            found = f"{fewer} of {asked} sketches have fewer than {k} photos"
            notes.append(f"{CAPPED} {metric}: a perfect ranking reaches {best:.3f}: {found}")
    if gallery <= 200:
        marks |= {"map_at_200_min": BEYOND, "map_at_200_min_voc": BEYOND}
        notes.append(f"{BEYOND} map_at_200_min and map_at_200_min_voc: with {gallery} photos they are map_all and map_all_voc")
    return marks, notes
