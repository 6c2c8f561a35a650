"""Where jobs and arrays stand, from their progress: it was written by the jobs' commands, and is believed within bounds only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from services.jobs.http.views import ArrayView, Score
from services.jobs.queue.arrays import Array, Member
from services.jobs.queue.records import Job
from services.jobs.queue.states import LIVE, TERMINAL
from zsbir.base.text import clean

LONGEST_METRIC = 40
"""Characters of a metric's name that are shown."""


def score_of(progress: Mapping[str, Any]) -> Score | None:
    """Return the score in a job's progress; None where there is none that makes sense."""
    written = progress.get("score")
    if not isinstance(written, Mapping):
        return None
    value, step, on = number_of(written.get("value")), written.get("step"), written.get("on")
    if value is None or on not in ("dev", "unseen"):
        return None
    whole = step if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**53 else None
    return Score(value, clean(written.get("metric", ""))[:LONGEST_METRIC], "dev" if on == "dev" else "unseen", whole)


def number_of(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def best_of(array: Array) -> Member | None:
    """Return the job of an array with the highest score: on unseen classes where there are such scores, else on dev classes."""
    scored = [(score, member) for member in array.members if (score := score_of(member.progress))]
    return max(scored, key=lambda each: (each[0].on == "unseen", each[0].value, -each[1].id))[1] if scored else None


def array_view(array: Array, best: Member | None, jobs: Mapping[int, Job], waiting: Mapping[int, str]) -> ArrayView:
    """Return an array as people see it. jobs: that of `best`, by id. waiting: why each queued job waits."""
    shares = [1.0 if member.state in TERMINAL else number_of(member.progress.get("frac")) or 0.0 for member in array.members]
    left_s = [number_of(member.progress.get("left_s")) for member in array.members if member.state in LIVE]
    known_s = [each for each in left_s if each is not None]
    score = score_of(best.progress) if best else None
    first_waiting = next((member.id for member in array.members if member.state == "queued"), 0)
    return ArrayView(
        array,
        (jobs[best.id], score) if best and score and best.id in jobs else None,
        sum(shares) / len(shares),
        max(known_s) if known_s and len(known_s) == len(left_s) and not first_waiting else None,
        waiting.get(first_waiting, ""),
    )
