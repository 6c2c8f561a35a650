"""Where jobs and arrays stand, from their progress: it was written by the jobs' commands, and is believed within bounds only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from services.jobs.http.views import ArrayView, Score, StepState
from services.jobs.queue.arrays import Array, Member
from services.jobs.queue.records import Job
from services.jobs.queue.states import LIVE, TERMINAL
from services.jobs.runs.progress import number_of, stages_of
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


def step_states(job: Job, names: Sequence[str], made: Collection[str], *, was_begun: bool) -> dict[str, StepState]:
    """Return the state of each of a job's commands. The job's progress names the one that it is at. made: those with a result.

    The command at which a job ended without success has ended as the job has: failed, cancelled or timed out.
    """
    before = names[: names.index(job.progress["step"])] if job.progress.get("step") in names else []
    found = {stage.get("name") for stage in stages_of(job.progress) if stage.get("state") == "found"}
    current = next((name for name in names if name not in made and name not in before), "")
    ended: Mapping[str, StepState] = {"failed": "failed", "cancelled": "cancelled", "timed_out": "timed_out"}
    current_state: StepState = "running" if job.state in LIVE else ended.get(job.state, "waiting") if was_begun else "waiting"

    def state(name: str) -> StepState:
        is_done = job.state == "succeeded" or name in made or name in before
        return ("found" if name in found else "done") if is_done else current_state if name == current else "waiting"

    return {name: state(name) for name in names}


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
