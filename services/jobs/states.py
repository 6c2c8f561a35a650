"""What a job can be, what may follow, and how often which cause of an end is forgiven: the rules that the store enforces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Kind = Literal["ingest", "teacher", "train", "evaluate", "sweep", "index", "pipeline"]
KINDS: tuple[Kind, ...] = get_args(Kind)

State = Literal["queued", "starting", "running", "succeeded", "failed", "cancelled", "timed_out"]
STATES: tuple[State, ...] = get_args(State)

LIVE: frozenset[State] = frozenset({"starting", "running"})
"""An attempt is under way."""

TERMINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled", "timed_out"})
"""Never changes again. Whoever wants more of such a job submits another one."""

MOVES: Mapping[State, frozenset[State]] = {
    "queued": frozenset({"starting", "cancelled", "timed_out", "failed"}),
    "starting": frozenset({"running", "queued", "succeeded", "failed", "cancelled", "timed_out"}),
    "running": frozenset({"queued", "succeeded", "failed", "cancelled", "timed_out"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
    "timed_out": frozenset(),
}
"""What may follow. queued to failed: a pipeline whose earlier step failed."""

Cause = Literal[
    "succeeded", "cancelled", "timed_out", "preempted", "node_lost", "out_of_memory", "data_error", "user_error", "lost", "unknown"
]
"""How an attempt ended. lost: Ray no longer knows it, and it left no result."""

FORGIVEN: Mapping[Cause, int] = {
    "preempted": 20,
    "node_lost": 5,
    "lost": 5,
    "out_of_memory": 1,
    "unknown": 2,
    "data_error": 0,
    "user_error": 0,
}
"""How many attempts may end by each cause before the job fails. Preemption is nobody's fault; bad input stays bad."""


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
