"""The dispatcher: one loop that starts whose turn it is, watches what runs, and writes down what became of it.

It keeps nothing that it could not find again: killed at any moment, the next one reads the store and the attempts' folders, and
goes on. Of an attempt, its own signs are believed first (end.json, then its beats), and then what the executor says; only who is
silent *and* unknown to the executor, or ended by its word, is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from services.jobs.queue.leader import Leadership
from services.jobs.queue.records import Attempt, Job
from services.jobs.queue.states import Cause, StopReason
from services.jobs.queue.store import TOO_LATE, StaleLease, Store
from services.jobs.runs.attempt_dir import UNDELIVERED, AttemptDir, End, attempt_dir_of
from services.jobs.runs.executor import Executor, ExecutorStatus, ExecutorUnavailable, Rejected, Task
from services.jobs.runs.progress import StepStatus, finished, read_status
from services.jobs.runs.steps import needs_of, steps_of
from zsbir.base import events
from zsbir.base.artifact import exists
from zsbir.base.config import Config
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import job_steps_uri
from zsbir.base.storage import open_folder

AWAY = (RunError, InputError, OSError)
"""Storage or the executor does not answer: the next round asks again."""

GIVEN_UP = "given up by "
"""How the fence begins of an attempt that a dispatcher keeps from beginning; no host is called so."""


class DispatcherSettings(Config):
    """Where and how patiently it works."""

    root: str = Field(description="storage root of all jobs: absolute, and reachable from every node")
    tracking_uri: str = Field("", description="MLflow of all jobs; none: a database under the root")
    poll_s: float = Field(1.0, gt=0, description="seconds between two rounds")
    lease_s: float = Field(15.0, gt=0, description="seconds of another dispatcher's silence before its lease is taken")
    patience_s: float = Field(20.0, gt=0, description="seconds of an attempt's silence before it may be lost")
    begin_s: float = Field(600.0, gt=0, description="seconds that a started attempt may take to begin")
    grace_s: float = Field(120.0, gt=0, description="seconds for a final checkpoint before the executor is told to end it")


@dataclass
class _Watch:
    """What this process has seen of an attempt. heard: it has beaten since the first look, so it lives. leaving: it has ended."""

    looked_s: float
    beats: str | None = None
    heard: bool = False
    silent_s: float = 0.0
    running_since_s: float | None = None
    told_to_stop_s: float = float("-inf")
    leaving_since_s: float = float("inf")
    reported: dict[str, Any] = field(default_factory=dict)

    def silence_s(self, beats: str | None, now_s: float, most_s: float) -> float:
        """Seconds since its beats moved, by this process's clock.

        The time between two looks counts for `most_s` at most: while nobody could look, it may have been heard by nobody.
        """
        self.heard |= self.beats is not None and beats != self.beats
        self.silent_s = self.silent_s + min(now_s - self.looked_s, most_s) if beats == self.beats else 0.0
        self.beats, self.looked_s = beats, now_s
        return self.silent_s


class Dispatcher:
    """Give it a store and an executor, and `run` it. clock: seconds that only go forward, for tests."""

    def __init__(
        self, store: Store, executor: Executor, settings: DispatcherSettings, *, clock: Callable[[], float] = time.monotonic
    ):
        self.store, self.executor, self.settings, self._clock = store, executor, settings, clock
        self.leadership = Leadership(store, settings.lease_s, clock=clock)
        self._watches: dict[int, _Watch] = {}
        self._troubles: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. What is away is waited for, and said once."""
        while not stop.is_set():
            try:
                self.round()
            except StaleLease as error:
                events.warn(str(error))
                self.leadership.lose()
            except Exception as error:  # noqa: BLE001 - whatever it is, the others' jobs must go on
                self._trouble("store", error)
            else:
                self._trouble("store", None)
            stop.wait(self.settings.poll_s)
        self.leadership.leave()

    def round(self) -> None:
        """Once around: the lease, what runs, whose turn it is."""
        lease = self.leadership.hold()
        if lease is None:
            return
        self.store.give_up_late(lease)
        live = self.store.live()
        self._watches = {attempt.id: self._watches.get(attempt.id) or _Watch(self._clock()) for _, attempt in live}
        for job, attempt in live:
            self.leadership.hold()  # a store or a cluster that answers slowly must not look like a dead dispatcher
            self._patiently(job, attempt, self._look)
        limits = self.store.limits()
        while claimed := self.store.claim(lease, limits):
            events.say(f"job {claimed.job_id}: attempt {claimed.number} begins")
            self._watches[claimed.id] = _Watch(self._clock())
            self._patiently(self.store.job(claimed.job_id), claimed, self._start)

    # --- one attempt

    def _start(self, job: Job, attempt: Attempt) -> None:
        """Specify it and hand it to the executor; done twice, it is started once."""
        attempt_dir, needs = self._attempt_dir(attempt), needs_of(job.kind, job.config)
        env = {"ZSBIR_ROOT": self.settings.root, "ZSBIR_JOB": attempt.submission_id, "ZSBIR_PLAIN_LOG": "1"}
        if self.settings.tracking_uri:
            env["MLFLOW_TRACKING_URI"] = self.settings.tracking_uri
        # A step that is one process takes as many threads as the job holds CPUs; its workers are told by Ray.
        own = {} if needs.workers else {"OMP_NUM_THREADS": str(max(1, int(job.cpus)))}
        queue = attempt.submission_id.rsplit("-", 2)[0]
        attempt_dir.specify(
            {
                "job": job.id,
                "submission_id": attempt.submission_id,
                "root": self.settings.root,
                "memo": job_steps_uri(self.settings.root, f"{queue}-{self._origin(job)}"),
                "env": own,
                "steps": [step.as_json() for step in steps_of(job.kind, job.config)],
            }
        )
        task = Task(
            submission_id=attempt.submission_id,
            place=attempt_dir.uri,
            project=job.project,
            priority=job.priority,
            workers=needs.workers,
            cpus=job.cpus,
            gpus=job.gpus,
            env=env,
        )
        try:
            self.executor.start(task)
        except Rejected as error:
            if attempt_dir.claim_start(GIVEN_UP + self.leadership.holder):
                self._end(job, attempt, attempt_dir, End("unknown", str(error)))

    def _origin(self, job: Job) -> int:
        """The first job of those that go on with each other's work."""
        while job.retry_of is not None:
            job = self.store.job(job.retry_of)
        return job.id

    def _look(self, job: Job, attempt: Attempt) -> None:
        """What its signs and the executor say, and what follows."""
        attempt_dir, watch = self._attempt_dir(attempt), self._watches[attempt.id]
        end = attempt_dir.ended()
        if end is None:
            who = attempt_dir.began_by()
            if who and not who.startswith(GIVEN_UP):
                end = self._look_at_begun(job, attempt, attempt_dir, watch)
            else:
                end = self._look_at_unbegun(job, attempt, attempt_dir, watch, given_up=bool(who))
        if end is not None and self._has_left(attempt, watch, end):
            self._end(job, attempt, attempt_dir, end)

    def _has_left(self, attempt: Attempt, watch: _Watch, end: End) -> bool:
        """Whether the executor counts it no more: a process that has said its last word still takes a moment to go.

        The next one begins only then, so that a limit holds for what is there and not only for what works. Who does not go is
        told to; after that, or where the executor is away and nothing can begin, what became of the job waits no longer.
        """
        with suppress(ExecutorUnavailable):
            if self.executor.look(attempt.submission_id).status in ("ended", "unknown"):
                return True
            watch.leaving_since_s = min(watch.leaving_since_s, self._clock())
            stays_s = self._clock() - watch.leaving_since_s
            if end.cause != "succeeded" or stays_s > self.settings.patience_s:
                self._tell_to_stop(attempt, watch)
            return stays_s > self.settings.grace_s
        return True

    def _tell_to_stop(self, attempt: Attempt, watch: _Watch) -> None:
        """Once in a while: it has its time between the asking and the killing."""
        if self._clock() - watch.told_to_stop_s > self.settings.grace_s:
            self.executor.stop(attempt.submission_id)
            watch.told_to_stop_s = self._clock()

    def _look_at_begun(self, job: Job, attempt: Attempt, attempt_dir: AttemptDir, watch: _Watch) -> End | None:
        """None as long as it lives."""
        patience_s = self.settings.patience_s
        if watch.silence_s(attempt_dir.beats(), self._clock(), most_s=patience_s / 4) <= patience_s:
            self._report(attempt, read_status(attempt_dir), watch)
        else:
            seen = self.executor.look(attempt.submission_id)
            if seen.status in ("ended", "unknown"):
                # Created once: if its own last word comes at this moment, one of the two is the end, for both sides.
                attempt_dir.end(verdict := self._verdict(job, attempt, attempt_dir, seen))
                return attempt_dir.ended() or verdict
        self._maybe_stop(job, attempt, attempt_dir, watch)
        return None

    def _look_at_unbegun(self, job: Job, attempt: Attempt, attempt_dir: AttemptDir, watch: _Watch, *, given_up: bool) -> End | None:
        """None where it may still begin. Who takes the fence makes sure that it does not.

        given_up: a dispatcher has taken it before, and got no further.
        """
        seen = self.executor.look(attempt.submission_id)
        if seen.status == "running" and watch.running_since_s is None:
            watch.running_since_s = self._clock()
        late = watch.running_since_s is not None and self._clock() - watch.running_since_s > self.settings.begin_s
        past = self._is_past_its_deadline(job)
        if not (given_up or job.cancelling or late or past or seen.status == "ended"):
            if seen.status == "unknown":
                self._start(job, attempt)
            return None
        if not given_up and not attempt_dir.claim_start(GIVEN_UP + self.leadership.holder):
            return None
        if job.cancelling:
            return End("cancelled", "cancelled before it began")
        if past:
            return End("timed_out", TOO_LATE)
        why = f"did not begin within {self.settings.begin_s:g} s" if late else seen.message or "was given up before it began"
        return End(_cause(seen), why[:500])

    def _is_past_its_deadline(self, job: Job) -> bool:
        """A cluster with a queue of its own may keep an attempt for hours. What has run before only waits to go on."""
        if job.start_by_s is None or self.store.now() <= job.start_by_s:
            return False
        return self.store.begun([job.id]).get(job.id, (0, None))[1] is None

    def _report(self, attempt: Attempt, status: StepStatus, watch: _Watch) -> None:
        self.store.started(self.leadership.held, attempt) if attempt.started_s is None else None
        if status.progress and dict(status.progress) != watch.reported:
            watch.reported = dict(status.progress)
            resumed_from = str(status.facts.get("resumed_from", ""))
            self.store.report(self.leadership.held, attempt, status.progress, resumed_from=resumed_from)

    def _maybe_stop(self, job: Job, attempt: Attempt, attempt_dir: AttemptDir, watch: _Watch) -> None:
        """Ask for a final checkpoint where it is cancelled or its time is over; have it ended where it does not listen."""
        reason: StopReason | None = "cancelled" if job.cancelling else None
        # Of one that is silent since this process looks, the hours may be those of a machine that was off.
        over = job.time_limit_s and attempt.started_s and self.store.now() - attempt.started_s > job.time_limit_s and watch.heard
        reason = reason or ("timed_out" if over else None)
        if reason is None:
            return
        asked = self.store.ask_stop(self.leadership.held, attempt, reason)
        attempt_dir.ask_stop(reason)
        waited_s = self.store.now() - (asked.stop_asked_s or self.store.now())
        if waited_s > self.settings.grace_s:
            self._tell_to_stop(attempt, watch)

    def _verdict(self, job: Job, attempt: Attempt, attempt_dir: AttemptDir, seen: ExecutorStatus) -> End:
        """Of an attempt that is gone without a last word: what it made, then what it was asked, then what the executor says."""
        run = read_status(attempt_dir).facts.get("run", "") if job.kind == "train" else ""
        last_s = attempt_dir.last_heartbeat_s()
        if run and exists(run):
            if open_folder(run).size(UNDELIVERED) is None or job.cancelling:
                return End("succeeded", result=run, ended_s=last_s)
            return End("lost", "it was trained, and fell silent before MLflow had all of it", ended_s=last_s)
        if attempt.stop_reason:
            return End(attempt.stop_reason, "ended without a last word", ended_s=last_s)
        said = _in_short(seen)
        told = f"it fell silent, and is {seen.status} to the cluster{': ' + said if said else ''}"
        return End(_cause(seen), told[:500], ended_s=last_s)

    def _end(self, job: Job, attempt: Attempt, attempt_dir: AttemptDir, end: End) -> None:
        """Written down: how far it came, and what became of it."""
        status = read_status(attempt_dir)
        if status.progress:
            progress = finished(status.progress) if end.cause == "succeeded" else dict(status.progress)
            resumed_from = str(status.facts.get("resumed_from", ""))
            self.store.report(self.leadership.held, attempt, progress, resumed_from=resumed_from)
        times = {"began_s": end.began_s, "ended_s": end.ended_s}
        state = self.store.end(self.leadership.held, attempt, end.cause, message=end.message, result=end.result, **times)
        told = f": {end.message}" if end.message else ""
        events.say(f"job {job.id}: attempt {attempt.number} {end.cause}{told}; the job is {state}")

    def _attempt_dir(self, attempt: Attempt) -> AttemptDir:
        return attempt_dir_of(self.settings.root, attempt.submission_id)

    # --- what is away

    def _patiently(self, job: Job, attempt: Attempt, action: Callable[[Job, Attempt], None]) -> None:
        """One attempt's trouble is not the others'."""
        name = attempt.submission_id
        try:
            action(job, attempt)
        except StaleLease:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the others' jobs must go on
            self._trouble(name, error)
        else:
            self._trouble(name, None)

    def _trouble(self, name: str, error: BaseException | None) -> None:
        """Said when it begins, and when it is over."""
        line = (str(error) if isinstance(error, AWAY) else f"{type(error).__name__}: {error}").partition("\n")[0] if error else ""
        if line and self._troubles.get(name) != line:
            events.warn(f"{name}: {line}; trying again")
        elif not line and name in self._troubles:
            events.say(f"{name}: all well again")
        if line:
            self._troubles[name] = line
        else:
            self._troubles.pop(name, None)


def _in_short(seen: ExecutorStatus) -> str:
    """What the executor knows of it, without the log that it may quote, and without what Ray thinks could have been."""
    return seen.message.partition(", last available logs")[0].partition("Some common causes")[0].strip()


def _cause(seen: ExecutorStatus) -> Cause:
    """What the executor's own words mean."""
    said = _in_short(seen).lower()
    if "memory" in said:
        return "out_of_memory"
    if "preempted" in said:
        return "preempted"
    return "node_lost" if "node" in said else "lost"
