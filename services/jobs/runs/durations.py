"""How long the stages of a job take, measured, expected from earlier jobs or guessed; and how much of the time has passed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

StageState = Literal["waiting", "running", "done", "found"]

WEIGHTS: Mapping[str, float] = {
    "ingest": 5.0,
    "pretrain": 30.0,
    "teacher": 5.0,
    "sweep": 600.0,
    "train": 60.0,
    "evaluate": 10.0,
    "index": 5.0,
}
"""How long stages take in relation to each other, where no earlier job tells (this project's estimate)."""

OTHER_WEIGHT = 5.0
"""The same for stages that are not listed."""

LAST_JOBS = 5
"""How many earlier jobs are looked at; of each stage the median counts."""


@dataclass(frozen=True)
class Stage:
    """A stage as it is now.

    found: its result was there already. took_s: the seconds it took, or has run so far; None where that is not known. left_s: by
    its own rate. share: of its own work that is done, from 0 to 1.
    """

    name: str
    state: StageState
    took_s: float | None
    left_s: float | None = None
    share: float | None = None


def estimate(stages: Sequence[Stage], expected_s: Mapping[str, float]) -> tuple[float, float | None]:
    """Return the share of a job's time that has passed, from 0 to 1, and the seconds that are left; None where nothing tells.

    Stages that were found, or made by an earlier attempt, count for nothing: this attempt spends no time on them. Stages that are
    not in `expected_s` are scaled by those that are known; the time left is told only where these make up more than half.
    """
    counted = [stage for stage in stages if stage.state in ("running", "waiting") or (stage.state == "done" and stage.took_s)]
    known = {stage.name: total for stage in counted if (total := _total_s(stage, expected_s)) is not None}
    known_weight = sum(map(_weight, known))
    weight = sum(_weight(stage.name) for stage in counted)
    per_weight = sum(known.values()) / known_weight if known and sum(known.values()) > 0 else 1.0
    totals = {stage.name: known.get(stage.name, _weight(stage.name) * per_weight) for stage in counted}
    passed_s = sum(_passed_s(stage, totals[stage.name]) for stage in counted)
    whole_s = sum(totals.values())
    if not whole_s:
        return (0.0 if any(stage.state in ("running", "waiting") for stage in stages) else 1.0), None
    left_s = max(0.0, whole_s - passed_s)
    return min(1.0, passed_s / whole_s), left_s if 2 * known_weight > weight else None


def expected_durations(progresses: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Return the median seconds of each stage over some jobs, of those that did it in one attempt and did not find it done."""
    seconds: dict[str, list[float]] = {}
    for stages in progresses:
        for stage in stages:
            took_s = stage.get("took_s")
            if stage.get("state") == "done" and isinstance(took_s, int | float) and took_s >= 0:
                seconds.setdefault(str(stage.get("name")), []).append(float(took_s))
    return {name: statistics.median(each) for name, each in seconds.items()}


def _total_s(stage: Stage, expected_s: Mapping[str, float]) -> float | None:
    """Return how long a stage takes as a whole, where something tells: itself, its own rate, or earlier jobs."""
    if stage.state == "done":
        return stage.took_s
    if stage.state == "running" and stage.took_s is not None and stage.left_s is not None:
        return stage.took_s + stage.left_s
    expected = expected_s.get(stage.name)
    if expected is None or stage.took_s is None:
        return expected
    return max(expected, stage.took_s * 1.1)  # it takes longer than it used to


def _passed_s(stage: Stage, total_s: float) -> float:
    if stage.state == "waiting":
        return 0.0
    if stage.took_s is None:
        return total_s * (stage.share or 0.0)
    return min(stage.took_s, total_s)


def _weight(name: str) -> float:
    return WEIGHTS.get(name, OTHER_WEIGHT)
