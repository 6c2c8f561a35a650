"""Tells the targets that jobs name of their ends, in a thread beside the dispatcher's loop: at least once, else an event says why.

Only the dispatcher that holds the lease delivers. What it has told is known to it alone until all of a job's targets were told or
given up, and then recorded: a dispatcher that is killed in between is followed by one that tells some of them again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.jobs.queue.records import Job, Lease
from services.jobs.queue.states import TERMINAL
from services.jobs.queue.store import Store
from services.jobs.queue.targets import Notify, Target, read_targets
from services.jobs.queue.transactions import StaleLease
from services.jobs.runs.delivery import deliver
from zsbir.base import events
from zsbir.base.errors import RunError

POLL_S = 2.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
"""Seconds before a target is told again that did not take the message; they double up to the longest."""

GIVE_UP_S = 3600.0
"""Seconds after which a target is given up, from the first try by this process on."""

WORDS = {"succeeded": "has succeeded", "failed": "has failed", "timed_out": "has timed out", "cancelled": "was cancelled"}

ALL = 10_000
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
            members = self._members(job)
            if job.id not in self._pending:
                self._pending[job.id] = self._new(job, members)
            pending = self._pending[job.id]
            if self._clock() >= pending.next_s:
                self._tell(message_of(job, self._link, members), pending, targets)
            if not pending.targets:
                self._record(lease, job, pending)

    def _members(self, job: Job) -> list[Job]:
        """Return the jobs of a job's array in order; none for a job that belongs to none."""
        return self._store.jobs(array_of=job.array_of, limit=ALL)[::-1] if job.array_of is not None else []

    def _new(self, job: Job, members: Sequence[Job]) -> _Pending:
        """Return whom to tell of a job's end: of an array they are told once, by the job that ended last."""
        now_s = self._clock()
        is_last = all(each.state in TERMINAL for each in members) and (not members or job.id == max(members, key=_ended).id)
        named = [each.to for each in wanted(job, members)] if is_last else []
        return _Pending(list(dict.fromkeys(named)), now_s, now_s)

    def _tell(self, message: Mapping[str, Any], pending: _Pending, targets: Mapping[str, Target]) -> None:
        """Tell each target that has not been told; after too long, give up those that do not take it."""
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


def wanted(job: Job, members: Sequence[Job] = ()) -> list[Notify]:
    """Return the targets that are to be told of the end that a job, or the array of these members, has come to."""
    named = [Notify.of(each, where="notify") for each in job.notify]
    return [each for each in named if each.on == "end" or any(one.state != "succeeded" for one in members or [job])]


def message_of(job: Job, link: str = "", members: Sequence[Job] = ()) -> dict[str, Any]:
    """Return what a target is told of a job. text: one line for people, where a chat shows it.

    members: the jobs of its array, of which it was the last to end; then `array` has their ids and how many ended how.
    """
    name = job.name or job.kind
    reason = f": {job.message}" if job.message else f": {job.result}" if job.result else ""
    counts = Counter(str(each.state) for each in members)
    text = f"job {job.id} ({name}) {WORDS.get(job.state, job.state)}{reason}"
    if members:
        ended = ", ".join(f"{counts[state]} {state.replace('_', ' ')}" for state in WORDS if counts[state])
        text = f"array {members[0].id} of {len(members)} jobs ({members[0].name or job.kind}, ...) has ended: {ended}"
    return {
        "text": text,
        "id": job.id,
        "name": name,
        "kind": job.kind,
        "state": job.state,
        "message": job.message,
        "score": job.progress.get("score"),
        "result": job.result,
        "owner": job.owner,
        "project": job.project,
        "ended_s": job.ended_s,
        "link": f"{link}/jobs/{job.id}" if link else "",
        "array": {"ids": [each.id for each in members], "counts": dict(counts)} if members else None,
    }


def _ended(job: Job) -> tuple[float, int]:
    return job.ended_s or 0.0, job.id


def test_message(who: str) -> dict[str, Any]:
    """Return what a target is told that somebody tries."""
    empty: dict[str, Any] = dict.fromkeys(("message", "result", "owner", "project", "link"), "")
    named = {"id": 0, "name": "test", "kind": "test", "state": "test", "score": None, "ended_s": None, "array": None}
    return {"text": f"this is a test of a notification target, by {who}", **named, **empty}
