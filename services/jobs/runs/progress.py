"""How far a job is, as one value for lists and pages, from what its attempt writes to its folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.jobs.runs.attempt_dir import AttemptDir


@dataclass(frozen=True)
class StepStatus:
    """The step that an attempt is at. facts: what its command knows (run, resumed_from, mlflow_run, error)."""

    progress: Mapping[str, Any]
    facts: Mapping[str, Any]


def read_status(attempt_dir: AttemptDir) -> StepStatus:
    """Return the status of the last step that has begun; an empty one before the first."""
    steps = attempt_dir.step_names()
    for number in reversed(range(len(steps))):
        status = attempt_dir.status(steps[number])
        if any(status.values()):
            progress = _progress(steps[number], number, len(steps), status)
            return StepStatus({**progress, **_waiting(status["facts"])}, status["facts"])
    return StepStatus({}, {})


def _waiting(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a command that waits for room in its cluster says in the place of its last rate; empty where it does not wait."""
    line = facts.get("waiting")
    return {"label": line, "done": None, "total": None, "per_s": None, "left_s": None} if line else {}


def as_finished(progress: Mapping[str, Any]) -> dict[str, Any]:
    """Return the progress of a job that has succeeded."""
    return {**progress, "frac": 1.0, "left_s": 0.0}


def _progress(step: str, number: int, of: int, status: Mapping[str, Any]) -> dict[str, Any]:
    current = status["progress"]
    share = min(1.0, current["done"] / current["total"]) if current.get("total") else 0.0
    return {
        "step": step,
        "steps": f"{number + 1}/{of}" if of > 1 else "",
        "label": current.get("label", ""),
        "done": current.get("done"),
        "total": current.get("total"),
        "unit": current.get("unit", ""),
        "per_s": current.get("per_s"),
        "left_s": current.get("left_s") if of == 1 or number == of - 1 else None,
        "frac": (number + share) / of,
        "metrics": status["metrics"],
        "updated_s": status["updated_s"] or time.time(),
    }
