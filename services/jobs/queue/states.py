"""What a job can be, what may follow, and how often which cause of an end is forgiven: the rules that the store enforces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Kind = Literal["ingest", "pretrain", "teacher", "train", "evaluate", "sweep", "index", "pipeline"]
KINDS: tuple[Kind, ...] = get_args(Kind)

State = Literal["queued", "starting", "running", "succeeded", "failed", "cancelled", "timed_out"]
STATES: tuple[State, ...] = get_args(State)

LIVE: frozenset[State] = frozenset({"starting", "running"})
"""An attempt is under way."""

TERMINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled", "timed_out"})
"""Never changes again. Whoever wants more of such a job submits another one."""

MOVES: Mapping[State, frozenset[State]] = {
    "queued": frozenset({"starting", "cancelled", "timed_out"}),
    "starting": frozenset({"running", "queued", "succeeded", "failed", "cancelled", "timed_out"}),
    "running": frozenset({"queued", "succeeded", "failed", "cancelled", "timed_out"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
    "timed_out": frozenset(),
}
"""What may follow."""

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
"""How an attempt ended. lost: it was killed, or its cluster has forgotten it. busy: another process does the very same work, or
MLflow, which is to hear of work that is done, is away."""

FORGIVEN: Mapping[Cause, int] = {
    "preempted": 20,
    "node_lost": 20,
    "lost": 20,
    "busy": 50,
    "out_of_memory": 1,
    "unknown": 2,
    "data_error": 0,
    "user_error": 0,
}
"""How many attempts may end by each cause before the job fails. What happens to a cluster is not a job's fault; bad input stays
bad."""


StopReason = Literal["cancelled", "timed_out", "preempted"]
"""Why a live attempt is asked to save its work and end: also the cause of its end, when it does."""

STOP_REASONS: tuple[StopReason, ...] = get_args(StopReason)


def after(cause: Cause, ends: Mapping[str, int], *, cancelling: bool) -> State:
    """The state of a job whose attempt ended by `cause`. ends: how many attempts ended by each cause, this one included.

    What was made is made: success wins over a cancellation that came too late. Nothing else does.
    """
    if cause == "succeeded":
        return "succeeded"
    if cancelling or cause == "cancelled":
        return "cancelled"
    if cause == "timed_out":
        return "timed_out"
    return "queued" if ends.get(cause, 0) <= FORGIVEN[cause] else "failed"
