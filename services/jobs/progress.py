"""How far a job is, as one value for lists, pages and people: from the signs that its attempt leaves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.jobs.place import Place


@dataclass(frozen=True)
class Signs:
    """Of the step that an attempt is at. facts: what its command knows (run, resumed_from, mlflow_run, error)."""

    progress: Mapping[str, Any]
    facts: Mapping[str, Any]


def read_signs(place: Place) -> Signs:
    """Of the last step that has begun; empty before the first has."""
    steps = place.steps()
    for number in reversed(range(len(steps))):
        signs = place.signs(steps[number])
        if any(signs.values()):
            return Signs(_progress(steps[number], number, len(steps), signs), signs["facts"])
    return Signs({}, {})


def finished(progress: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a job that has succeeded."""
    return {**progress, "frac": 1.0, "left_s": 0.0}


def _progress(step: str, number: int, of: int, signs: Mapping[str, Any]) -> dict[str, Any]:
    said = signs["progress"]
    share = min(1.0, said["done"] / said["total"]) if said.get("total") else 0.0
    return {
        "step": step,
        "steps": f"{number + 1}/{of}" if of > 1 else "",
        "label": said.get("label", ""),
        "done": said.get("done"),
        "total": said.get("total"),
        "unit": said.get("unit", ""),
        "per_s": said.get("per_s"),
        "left_s": said.get("left_s") if of == 1 or number == of - 1 else None,
        "frac": (number + share) / of,
        "metrics": signs["metrics"],
        "updated_s": signs["updated_s"] or time.time(),
    }
