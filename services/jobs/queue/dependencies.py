"""Jobs that start after others: whether what a job needs has ended, and whether it can still come true.

A job stands for the newest of its retries: who waits for a job that failed and was tried again waits for the new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from services.jobs.queue.states import TERMINAL, State
from zsbir.base.config import Config

On = Literal["success", "end"]

MOST_NEEDED = 1000
"""How many jobs one job may wait for."""

ENDED: Mapping[State, str] = {"failed": "failed", "cancelled": "was cancelled", "timed_out": "timed out", "succeeded": "succeeded"}


class After(Config, strict=True):
    """A job that must have ended before another one starts."""

    job: int = Field(ge=1, le=2**31 - 1, description="its number")
    on: On = Field("success", description="success: only where it succeeds; end: however it ends")


def distinct(after: Sequence[After]) -> list[After]:
    """Return each job once, in the order in which it was first named, with its success where that and its end are asked for."""
    found: dict[int, After] = {}
    for each in after:
        if each.job not in found or each.on == "success":
            found[each.job] = each
    return list(found.values())


def waits_for(after: Sequence[Mapping[str, Any]], states: Mapping[int, State]) -> str:
    """Return why a job waits for others, as people read it: `after job 12`; empty where it need not.

    after: its `after` as it is stored. states: of each job in it, the state of the newest retry. A job that can no longer start
    waits as well, until it is cancelled.
    """
    if hopeless := cannot_start(after, states)[1]:
        return hopeless
    open_jobs = [int(each["job"]) for each in after if states.get(each["job"], "queued") not in TERMINAL]
    more = f" and {len(open_jobs) - 3} more" if len(open_jobs) > 3 else ""
    return f"after job{'s' if len(open_jobs) > 1 else ''} {', '.join(map(str, open_jobs[:3]))}{more}" if open_jobs else ""


def cannot_start(after: Sequence[Mapping[str, Any]], states: Mapping[int, State]) -> tuple[int, str]:
    """Return the first job whose success can no longer come, and the sentence about it; (0, "") where all still can."""
    for each in after:
        state = states.get(each["job"], "queued")
        if each["on"] == "success" and state in TERMINAL and state != "succeeded":
            return int(each["job"]), f"job {each['job']} {ENDED[state]}, and this was to start after its success"
    return 0, ""
