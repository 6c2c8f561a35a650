"""How far a job is, as one value for lists and pages, from what its attempt writes to its folder.

A job's commands are its stages. Progress is a share of time: stages that were found done count for nothing, those to come for as
long as they took in earlier jobs (`services.jobs.runs.durations`). What the commands wrote is believed within bounds only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.jobs.runs.attempt_dir import AttemptDir
from services.jobs.runs.durations import Stage, estimate

MOST_METRICS = 50
"""How many metrics of a command are kept."""


@dataclass(frozen=True)
class StepStatus:
    """The step that an attempt is at. facts: what its command knows (run, resumed_from, mlflow_run, error)."""

    progress: Mapping[str, Any]
    facts: Mapping[str, Any]


def read_status(attempt_dir: AttemptDir, expected_s: Mapping[str, float] | None = None) -> StepStatus:
    """Return the status of the last step that has begun; an empty one before the first.

    expected_s: the seconds that each stage took in earlier jobs like this one, where that is known.
    """
    names = attempt_dir.step_names()
    statuses = {name: attempt_dir.status(name) for name in names}
    times = attempt_dir.stage_times()
    begun = [name for name in names if any(statuses[name].values()) or name in times]
    if not begun:
        return StepStatus({}, {})
    current, ran_s = begun[-1], attempt_dir.last_heartbeat_ran_s()
    stages = [_stage(name, statuses[name], times.get(name, {}), name == current, ran_s) for name in names]
    frac, left_s = estimate(stages, expected_s or {})
    status = statuses[current]
    progress = {
        **_done(status["progress"]),
        "step": current,
        "steps": f"{names.index(current) + 1}/{len(names)}" if len(names) > 1 else "",
        "frac": frac,
        "left_s": left_s,
        "stages": [{"name": stage.name, "state": stage.state, "took_s": stage.took_s} for stage in stages],
        "score": next((found for name in reversed(begun) if (found := _score(statuses[name]["facts"]))), None),
        "metrics": dict(list(status["metrics"].items())[:MOST_METRICS]),
        "updated_s": number_of(status["updated_s"]) or time.time(),
    }
    return StepStatus({**progress, **_waiting(status["facts"])}, status["facts"])


def as_finished(progress: Mapping[str, Any]) -> dict[str, Any]:
    """Return the progress of a job that has succeeded."""
    stages = [{**stage, "state": "done" if stage["state"] == "running" else stage["state"]} for stage in progress.get("stages", ())]
    return {**progress, "frac": 1.0, "left_s": 0.0, "stages": stages}


def number_of(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _stage(name: str, status: Mapping[str, Any], times: Mapping[str, Any], is_current: bool, ran_s: float | None) -> Stage:
    """Return a stage as it is now. ran_s: seconds for which the attempt had run at its last heartbeat."""
    began_s, took_s = number_of(times.get("began_s")), number_of(times.get("took_s"))
    if times.get("repeated"):  # an earlier attempt made it
        return Stage(name, "done", None)
    if took_s is not None:
        return Stage(name, "found" if status["facts"].get("found") else "done", max(0.0, took_s))
    if not is_current:
        return Stage(name, "done" if any(status.values()) else "waiting", None)
    elapsed_s = max(0.0, ran_s - began_s) if ran_s is not None and began_s is not None else None
    own = _done(status["progress"])
    share = min(1.0, max(0.0, own["done"] / own["total"])) if own["done"] is not None and own["total"] else None
    return Stage(name, "running", elapsed_s, own["left_s"], share)


def _done(progress: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a command says of its own progress, without anything that is not of the right type."""
    counts = {name: number_of(progress.get(name)) for name in ("done", "total", "per_s", "left_s")}
    whole = {name: int(value) if value is not None and name in ("done", "total") else value for name, value in counts.items()}
    return {"label": str(progress.get("label", ""))[:200], "unit": str(progress.get("unit", ""))[:20], **whole}


def _score(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    written = facts.get("score")
    if not isinstance(written, Mapping) or (value := number_of(written.get("value"))) is None:
        return None
    step = number_of(written.get("step"))
    metric, on = str(written.get("metric", ""))[:40], "unseen" if written.get("on") == "unseen" else "dev"
    return {"value": value, "metric": metric, "on": on, "step": None if step is None else int(step)}


def _waiting(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a command that waits for room in its cluster says in the place of its last rate; empty where it does not wait."""
    line = facts.get("waiting")
    return {"label": line, "done": None, "total": None, "per_s": None, "left_s": None} if line else {}


def stages_of(progress: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the stages in a job's progress as the store has it; none in jobs of earlier versions."""
    stages = progress.get("stages")
    return [stage for stage in stages if isinstance(stage, Mapping)] if isinstance(stages, list) else []
