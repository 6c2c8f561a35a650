"""Tells the targets that jobs name of their ends, in a thread beside the dispatcher's loop: at least once, else an event says why.

Only the dispatcher that holds the lease delivers. What it has told is known to it alone until all of a job's targets were told or
given up, and then recorded: a dispatcher that is killed in between is followed by one that tells some of them again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.jobs.queue.records import Job, Lease
from services.jobs.queue.store import StaleLease, Store
from services.jobs.queue.targets import Notify, Target, read_targets
from services.jobs.runs.delivery import deliver
from zsbir.base import events
from zsbir.base.errors import RunError

POLL_S = 2.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
"""Seconds before a target is told again that did not take the message; they double up to the longest."""

GIVE_UP_S = 3600.0
"""Seconds after which a target is given up, from the first try by this process on."""

AT_ONCE = 20
"""Jobs in one round, the oldest first."""

Deliver = Callable[[Target, Mapping[str, Any]], None]


@dataclass
class _Pending:
    """What is left to tell of one job. first_s, next_s: by a monotonic clock, in seconds."""

    targets: list[str]
    first_s: float
    next_s: float
    tries: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


class Notifier:
    """The telling of ends. lease: returns the dispatcher's lease as it is now. link: the address of the page, where it is known."""

    def __init__(
        self,
        store: Store,
        lease: Callable[[], Lease | None],
        link: str = "",
        *,
        deliver: Deliver = deliver,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._store, self._lease, self._link, self._deliver, self._clock = store, lease, link.rstrip("/"), deliver, clock
        self._pending: dict[int, _Pending] = {}
        self._from_id = 0

    def run(self, stop: threading.Event) -> None:
        """Run rounds until `stop` is set. No error ends this thread."""
        warned = False
        while not stop.wait(POLL_S):
            try:
                self.round()
                warned = False
            except StaleLease:
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, later rounds must go on
                if not warned:
                    warned = True
                    events.warn(f"notifications: {type(error).__name__}: {error}; trying again")

    def round(self) -> None:
        """Tell the targets whose time has come."""
        lease = self._lease()
        if lease is None:
            return
        jobs = self._ended()
        self._pending = {job.id: self._pending[job.id] for job in jobs if job.id in self._pending}
        if not jobs:
            return
        targets = read_targets(self._store)
        for job in jobs:
            pending = self._pending.setdefault(job.id, self._new(job))
            if self._clock() >= pending.next_s:
                self._tell(job, pending, targets)
            if not pending.targets:
                self._record(lease, job, pending)

    def _new(self, job: Job) -> _Pending:
        now_s = self._clock()
        return _Pending(list(dict.fromkeys(each.to for each in wanted(job))), now_s, now_s)

    def _tell(self, job: Job, pending: _Pending, targets: Mapping[str, Target]) -> None:
        """Tell each target that has not been told; after too long, give up those that do not take it."""
        message = message_of(job, self._link)
        for name in list(pending.targets):
            reason = self._try(targets[name], message) if name in targets else "the operator has removed it"
            if reason and name in targets and self._clock() - pending.first_s < GIVE_UP_S:
                continue
            pending.targets.remove(name)
            if reason:
                pending.failed[name] = reason
            else:
                pending.told.append(name)
        pending.next_s = self._clock() + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**pending.tries)
        pending.tries += 1

    def _try(self, target: Target, message: Mapping[str, Any]) -> str:
        """Tell a target. Return why it was not told; empty where it was."""
        try:
            self._deliver(target, message)
        except RunError as error:
            return str(error)
        return ""

    def _ended(self) -> list[Job]:
        """Return jobs that have ended and whose targets are not yet all told, the oldest first."""
        ended, self._from_id = self._store.unnotified(self._from_id, AT_ONCE)
        return ended

    def _record(self, lease: Lease, job: Job, pending: _Pending) -> None:
        """Record that there is nobody left to tell, with who was told and who was not."""
        self._store.mark_notified(lease, job.id, pending.told, pending.failed)
        self._pending.pop(job.id, None)
        for name, reason in pending.failed.items():
            events.warn(f"job {job.id}: the target {name} was not told of its end: {reason}")


def wanted(job: Job) -> Iterable[Notify]:
    """Return the targets that are to be told of the end that a job has come to."""
    named = [Notify.of(each, where="notify") for each in job.notify]
    return [each for each in named if each.on == "end" or job.state != "succeeded"]


def message_of(job: Job, link: str = "") -> dict[str, Any]:
    """Return what a target is told of a job. text: one line for people, where a chat shows it."""
    score = job.progress.get("score")
    name = job.name or job.kind
    words = {"succeeded": "has succeeded", "failed": "has failed", "cancelled": "was cancelled", "timed_out": "has timed out"}
    reason = f": {job.message}" if job.message else f": {job.result}" if job.result else ""
    return {
        "text": f"job {job.id} ({name}) {words.get(job.state, job.state)}{reason}",
        "id": job.id,
        "name": name,
        "kind": job.kind,
        "state": job.state,
        "message": job.message,
        "score": score,
        "result": job.result,
        "owner": job.owner,
        "project": job.project,
        "ended_s": job.ended_s,
        "link": f"{link}/jobs/{job.id}" if link else "",
    }


def test_message(who: str) -> dict[str, Any]:
    """Return what a target is told that somebody tries."""
    empty: dict[str, Any] = dict.fromkeys(("message", "result", "owner", "project", "link"), "")
    named = {"id": 0, "name": "test", "kind": "test", "state": "test", "score": None, "ended_s": None}
    return {"text": f"this is a test of a notification target, by {who}", **named, **empty}
