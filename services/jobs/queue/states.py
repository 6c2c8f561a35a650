"""The states of a job, which may follow which, and how often a job is tried again: the rules that the store enforces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Kind = Literal["ingest", "pretrain", "teacher", "train", "evaluate", "sweep", "index", "pipeline"]
KINDS: tuple[Kind, ...] = get_args(Kind)

State = Literal["queued", "starting", "running", "succeeded", "failed", "cancelled", "timed_out"]
STATES: tuple[State, ...] = get_args(State)

LIVE: frozenset[State] = frozenset({"starting", "running"})
"""States of a job that has an attempt under way."""

TERMINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled", "timed_out"})
"""States that never change again. To go on with such a job, submit another one."""

TRANSITIONS: Mapping[State, frozenset[State]] = {
    "queued": frozenset({"starting", "cancelled", "timed_out"}),
    "starting": frozenset({"running", "queued", "succeeded", "failed", "cancelled", "timed_out"}),
    "running": frozenset({"queued", "succeeded", "failed", "cancelled", "timed_out"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
    "timed_out": frozenset(),
}
"""The states that may follow each state."""

Cause = Literal[
    "succeeded",
    "cancelled",
    "timed_out",
    "preempted",
    "node_lost",
    "lost",
    "busy",
    "out_of_memory",
    "data_error",
    "user_error",
    "unknown",
]
"""How an attempt ended. lost: it was killed, or its cluster has forgotten it. busy: another process does the same work, or MLflow,
which must record it or say what a registered model is, is away."""

RETRY_LIMITS: Mapping[Cause, int] = {
    "preempted": 20,
    "node_lost": 20,
    "lost": 20,
    "busy": 50,
    "out_of_memory": 1,
    "unknown": 2,
    "data_error": 0,
    "user_error": 0,
}
"""How many attempts of a job may end by each cause and be followed by another one. A job is not to blame for its cluster, so these
causes have high limits; bad input stays bad."""


StopReason = Literal["cancelled", "timed_out", "preempted"]
"""Why a live attempt is asked to save its work and end; then also the cause of its end."""

STOP_REASONS: tuple[StopReason, ...] = get_args(StopReason)


def next_state(cause: Cause, ends: Mapping[str, int], *, cancelling: bool) -> State:
    """Return the state of a job whose attempt ended by `cause`. ends: attempts that ended by each cause, this one included.

    An attempt that succeeded made the job's result, also where the job was cancelled too late. Nothing else overrides a
    cancellation.
    """
    if cause == "succeeded":
        return "succeeded"
    if cancelling or cause == "cancelled":
        return "cancelled"
    if cause == "timed_out":
        return "timed_out"
    return "queued" if ends.get(cause, 0) <= RETRY_LIMITS[cause] else "failed"
