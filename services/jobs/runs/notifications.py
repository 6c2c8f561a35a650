"""Tells the targets that jobs name of their ends, in a thread beside the dispatcher's loop: at least once, else an event says why.

Only the dispatcher that holds the lease delivers. What it has told is known to it alone until all of a job's targets were told or
given up, and then recorded: a dispatcher that is killed in between is followed by one that tells some of them again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.jobs.queue.arrays import common_name
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

PAGE = 100
"""Jobs that are read at a time."""

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


@dataclass(frozen=True)
class _Away:
    """A target that did not take a message: until when, by a monotonic clock, it is told nothing, and why it was not told."""

    until_s: float
    reason: str


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
        self._away: dict[str, _Away] = {}
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
        """Tell the targets whose time has come, the oldest job's first."""
        targets: dict[str, Target] | None = None
        pending: dict[int, _Pending] = {}
        for job in self._ended():
            lease = self._lease()
            if lease is None:
                return
            targets = read_targets(self._store) if targets is None else targets
            each = self._pending.get(job.id) or self._new(job)
            if self._clock() >= each.next_s:
                self._tell(job, each, targets)
            if each.targets:
                pending[job.id] = each
            else:
                self._record(lease, job, each)
        self._pending = pending

    def _ended(self) -> Iterator[Job]:
        """Yield jobs that have ended and whose targets are not yet all told, the oldest first."""
        if self._lease() is None:
            return
        jobs, self._from_id = self._store.unnotified(self._from_id, PAGE)
        while jobs:
            yield from jobs
            jobs, _ = self._store.unnotified(jobs[-1].id + 1, PAGE)

    def _new(self, job: Job) -> _Pending:
        now_s = self._clock()
        return _Pending(list(dict.fromkeys(each["to"] for each in job.notify)), now_s, now_s)

    def _members(self, job: Job) -> list[Job]:
        """Return the newest retries of the jobs of a job's array, in order; none for a job that belongs to none."""
        if job.array_of is None:
            return []
        ids = [member.id for member in self._store.arrays([job.array_of])[job.array_of].members]
        return self._store.jobs(ids=ids, limit=len(ids))[::-1]

    def _tell(self, job: Job, pending: _Pending, targets: Mapping[str, Target]) -> None:
        """Tell each target that is to be told and has not been; after too long, give up those that do not take it."""
        members = self._members(job)
        asked = {each.to for each in wanted(job, members)} if tells(job, members) else set()
        message, tried = message_of(job, self._link, members), False
        for name in list(pending.targets):
            if name in asked:
                tried |= not self._is_away(name)
                reason = self._try(name, targets[name], message) if name in targets else "the operator has removed it"
                if reason and name in targets and self._clock() - pending.first_s < GIVE_UP_S:
                    continue
                if reason:
                    pending.failed[name] = reason
                else:
                    pending.told.append(name)
            pending.targets.remove(name)
        pending.next_s = self._clock() + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**pending.tries if tried else FIRST_PAUSE_S)
        pending.tries += tried

    def _is_away(self, name: str) -> bool:
        return name in self._away and self._clock() < self._away[name].until_s

    def _try(self, name: str, target: Target, message: Mapping[str, Any]) -> str:
        """Tell a target. Return why it was not told; empty where it was.

        One that has just failed is not tried for a while, whatever job it is to be told of: each try may take long, and others
        wait for it.
        """
        if self._is_away(name):
            return self._away[name].reason
        try:
            self._deliver(target, message)
        except RunError as error:
            self._away[name] = _Away(self._clock() + FIRST_PAUSE_S, str(error))
            return str(error)
        self._away.pop(name, None)
        return ""

    def _record(self, lease: Lease, job: Job, pending: _Pending) -> None:
        """Record that there is nobody left to tell, with who was told and who was not."""
        self._store.mark_notified(lease, job.id, pending.told, pending.failed)
        for name, reason in pending.failed.items():
            events.warn(f"job {job.id}: the target {name} was not told of its end: {reason}")


def tells(job: Job, members: Sequence[Job] = ()) -> bool:
    """Return whether a job's end is told: of an array once, by the job that finds all others ended and done with their telling.

    Jobs are asked in the order of their numbers, and each is done before the next is asked. So one of them tells, in whatever order
    they have ended and their ends were recorded. A job that was tried again tells of nothing: its retry does.
    """
    if not members:
        return True
    others = [each for each in members if each.id != job.id]
    done = all(each.state in TERMINAL and (each.notified_s is not None or not each.notify) for each in others)
    return done and len(others) < len(members)


def wanted(job: Job, members: Sequence[Job] = ()) -> list[Notify]:
    """Return the targets that are to be told of the end that a job, or the array of these members, has come to.

    members: of each job of the array, the newest retry.
    """
    named = [Notify.of(each, where="notify") for each in job.notify]
    return [each for each in named if each.on == "end" or any(one.state != "succeeded" for one in members or [job])]


def message_of(job: Job, link: str = "", members: Sequence[Job] = ()) -> dict[str, Any]:
    """Return what a target is told of a job. text: one line for people, where a chat shows it.

    members: of each job of its array, the newest retry; then `array` has their ids and how many ended how.
    """
    name = job.name or job.kind
    reason = f": {job.message}" if job.message else f": {job.result}" if job.result else ""
    counts = Counter(str(each.state) for each in members)
    text = f"job {job.id} ({name}) {WORDS.get(job.state, job.state)}{reason}"
    if members:
        ended = ", ".join(f"{counts[state]} {state.replace('_', ' ')}" for state in WORDS if counts[state])
        called = common_name([each.name for each in members]) or job.kind
        text = f"array {job.array_of} of {len(members)} jobs ({called}) has ended: {ended}"
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


def test_message(who: str) -> dict[str, Any]:
    """Return what a target is told that somebody tries."""
    empty: dict[str, Any] = dict.fromkeys(("message", "result", "owner", "project", "link"), "")
    named = {"id": 0, "name": "test", "kind": "test", "state": "test", "score": None, "ended_s": None, "array": None}
    return {"text": f"this is a test of a notification target, by {who}", **named, **empty}
