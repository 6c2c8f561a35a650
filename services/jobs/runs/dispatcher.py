"""The dispatcher: a loop that starts the jobs whose turn it is, watches those that run, and records how they end.

It keeps no state that it cannot rebuild: after a dispatcher was killed, the next one reads the store and the attempts' folders, and
goes on. What an attempt wrote is believed first (end.json, then its heartbeats), and then what the executor says. An attempt is
lost only when its heartbeats have stopped *and* the executor does not know it or says that it has ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from services.common.credentials import has_secret
from services.jobs.queue.dispatching import TOO_LATE
from services.jobs.queue.leader import Leadership
from services.jobs.queue.records import Attempt, Job
from services.jobs.queue.resources import LABELS, Resources
from services.jobs.queue.retries import OutagePolicy
from services.jobs.queue.states import StopReason
from services.jobs.queue.store import Store
from services.jobs.queue.transactions import StaleLease
from services.jobs.runs.attempt_dir import AttemptDir, End, attempt_dir_of
from services.jobs.runs.durations import LAST_JOBS, expected_durations
from services.jobs.runs.executor import Executor, ExecutorStatus, ExecutorUnavailable, Rejected, Task
from services.jobs.runs.model_inputs import has_models
from services.jobs.runs.names import recipe_of
from services.jobs.runs.progress import StepStatus, as_finished, read_status, stages_of
from services.jobs.runs.settings import DispatcherSettings
from services.jobs.runs.steps import computes_in_one_process, resources_of, steps_of
from zsbir.base import events
from zsbir.base.artifact import exists
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import job_steps_uri
from zsbir.base.storage import open_folder
from zsbir.training_run.delivery import UNDELIVERED

UNAVAILABLE = (RunError, InputError, OSError)
"""Errors of storage or of an executor that does not answer: the next round asks again."""

GIVEN_UP = "given up by "
"""How the claim of an attempt begins that a dispatcher keeps from starting. No host name begins like this."""

MESSAGE_LENGTH = 500


@dataclass
class _Observation:
    """What this process has observed of an attempt, by its own clock.

    seen_alive: a heartbeat has come since the first check. exiting_since_s: when its process was first seen to outlast its end.
    """

    checked_s: float
    heartbeat_version: str | None = None
    seen_alive: bool = False
    silent_s: float = 0.0
    running_since_s: float | None = None
    stop_sent_s: float = float("-inf")
    exiting_since_s: float = float("inf")
    models_recorded: bool = False
    reported: dict[str, Any] = field(default_factory=dict)
    expected_s: dict[str, float] | None = None

    def update_silence_s(self, heartbeat_version: str | None, now_s: float, most_s: float) -> float:
        """Take note of a check, and return the seconds without a heartbeat.

        The time between two checks counts for at most `most_s`: while this process could not check, a heartbeat may have come.
        """
        self.seen_alive |= self.heartbeat_version is not None and heartbeat_version != self.heartbeat_version
        is_silent = heartbeat_version == self.heartbeat_version
        self.silent_s = self.silent_s + min(now_s - self.checked_s, most_s) if is_silent else 0.0
        self.heartbeat_version, self.checked_s = heartbeat_version, now_s
        return self.silent_s


class Dispatcher:
    """The dispatcher of a store and an executor. clock: a monotonic clock in seconds, which tests replace."""

    def __init__(
        self, store: Store, executor: Executor, settings: DispatcherSettings, *, clock: Callable[[], float] = time.monotonic
    ):
        self.store, self.executor, self.settings, self._clock = store, executor, settings, clock
        self.leadership = Leadership(store, settings.lease_s, clock=clock)
        self._observations: dict[int, _Observation] = {}
        self._last_errors: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Run rounds until `stop` is set. An error is logged once, and the next round tries again."""
        while not stop.is_set():
            try:
                self.round()
            except StaleLease as error:
                events.warn(str(error))
                self.leadership.lose()
            except Exception as error:  # noqa: BLE001 - whatever the error is, later rounds must go on
                self._log_error("store", error)
            else:
                self._log_recovery("store")
            stop.wait(self.settings.poll_s)
        self.leadership.release()

    def round(self) -> None:
        """Keep the lease, check each live attempt, and start the jobs whose turn it is."""
        lease = self.leadership.hold()
        if lease is None:
            return
        self.store.give_up_late(lease)
        self.store.give_up_dependents(lease)
        live = self.store.live()
        kept = self._observations
        self._observations = {attempt.id: kept.get(attempt.id) or _Observation(self._clock()) for _, attempt in live}
        for job, attempt in live:
            self.leadership.hold()  # a store or a cluster that answers slowly must not make this dispatcher look dead
            self._isolated(job, attempt, self._check)
        limits = self.store.limits()
        while claimed := self.store.claim(lease, limits):
            events.say(f"job {claimed.job_id}: attempt {claimed.number} begins")
            self._observations[claimed.id] = _Observation(self._clock())
            self._isolated(self.store.job(claimed.job_id), claimed, self._start)

    # --- start an attempt

    def _start(self, job: Job, attempt: Attempt) -> None:
        """Write its specification and give it to the executor. Called twice, it starts one process."""
        attempt_dir = self._attempt_dir(attempt)
        attempt_dir.write_spec(self._spec(job, attempt))
        try:
            self.executor.start(self._task(job, attempt))
        except Rejected as error:
            if attempt_dir.claim_start(GIVEN_UP + self.leadership.holder):
                self._record_end(job, attempt, attempt_dir, End("unknown", str(error)))

    def _spec(self, job: Job, attempt: Attempt) -> dict[str, Any]:
        """Return what the attempt is to do, as its folder holds it."""
        queue = attempt.submission_id.rsplit("-", 2)[0]
        # A step that is one process takes as many threads as the job holds CPUs; Ray tells the workers of the others.
        one_process = not resources_of(job.kind, job.config).workers
        return {
            "job": job.id,
            "name": job.name,
            "submission_id": attempt.submission_id,
            "root": self.settings.root,
            "places": list(self.settings.places),
            "memo": job_steps_uri(self.settings.root, f"{queue}-{self._first_of_retries(job)}"),
            "env": self._confinement(job) if one_process else {},
            "steps": [step.as_json() for step in steps_of(job.kind, job.config)],
        }

    def _confinement(self, job: Job) -> dict[str, str]:
        """Return the variables that hold one process to what its job holds. Where GPUs are limited, one without sees none."""
        hidden = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
        hides_gpus = not job.gpus and self.store.limits().count_gpus(job.project)
        return {"OMP_NUM_THREADS": str(max(1, int(job.cpus))), **(hidden if hides_gpus else {})}

    def _task(self, job: Job, attempt: Attempt) -> Task:
        env = {"ZSBIR_ROOT": self.settings.root, "ZSBIR_JOB": attempt.submission_id, "ZSBIR_PLAIN_LOG": "1"}
        if self.settings.tracking_uri and not has_secret(self.settings.tracking_uri):  # Ray shows a job's variables to all users
            env["MLFLOW_TRACKING_URI"] = self.settings.tracking_uri
        return Task(
            submission_id=attempt.submission_id,
            attempt_dir=self._attempt_dir(attempt).uri,
            name=job.name,
            project=job.project,
            priority=job.priority,
            workers=resources_of(job.kind, job.config).workers,
            resources=Resources(**{name: job.amount(name) for name in LABELS}),
            in_one_process=computes_in_one_process(job.kind, job.config),
            env=env,
        )

    def _first_of_retries(self, job: Job) -> int:
        """Return the first of the jobs that go on with each other's work."""
        while job.retry_of is not None:
            job = self.store.job(job.retry_of)
        return job.id

    # --- check an attempt

    def _check(self, job: Job, attempt: Attempt) -> None:
        """Compare what the attempt wrote with what the executor says, and act on it."""
        attempt_dir, seen = self._attempt_dir(attempt), self._observations[attempt.id]
        end = attempt_dir.read_end()
        if end is None:
            claimed_by = attempt_dir.claimed_by()
            if claimed_by and not claimed_by.startswith(GIVEN_UP):
                end = self._check_claimed(job, attempt, attempt_dir, seen)
            else:
                end = self._check_unclaimed(job, attempt, attempt_dir, seen, given_up=bool(claimed_by))
        if end is not None and self._has_exited(attempt, seen, end):
            self._record_models(job, attempt, attempt_dir, seen)
            self._record_end(job, attempt, attempt_dir, end)

    def _check_claimed(self, job: Job, attempt: Attempt, attempt_dir: AttemptDir, seen: _Observation) -> End | None:
        """Check an attempt whose process has begun. Return its end where it is lost, None as long as it is alive."""
        patience_s = self.settings.patience_s
        if seen.update_silence_s(attempt_dir.heartbeat_version(), self._clock(), most_s=patience_s / 4) <= patience_s:
            if seen.expected_s is None:
                seen.expected_s = self._expected_s(job)
            self._report(attempt, read_status(attempt_dir, seen.expected_s), seen)
            self._record_models(job, attempt, attempt_dir, seen)
        else:
            status = self.executor.get_status(attempt.submission_id)
            if status.status in ("ended", "unknown"):
                # The file is created once: if the attempt writes its own end at this moment, both sides read the same one.
                attempt_dir.write_end(end := self._end_of_lost(job, attempt, attempt_dir, status))
                return attempt_dir.read_end() or end
        self._stop_if_due(job, attempt, attempt_dir, seen)
        return None

    def _check_unclaimed(
        self, job: Job, attempt: Attempt, attempt_dir: AttemptDir, seen: _Observation, *, given_up: bool
    ) -> End | None:
        """Check an attempt whose process has not begun. Return its end where it must not begin any more, else None.

        A claim keeps other processes from beginning. given_up: an earlier dispatcher has made it, and got no further.
        """
        status = self.executor.get_status(attempt.submission_id)
        if status.status == "running" and seen.running_since_s is None:
            seen.running_since_s = self._clock()
        is_hung = seen.running_since_s is not None and self._clock() - seen.running_since_s > self.settings.begin_s
        is_late = self._is_past_its_deadline(job)
        if not (given_up or job.cancelling or is_hung or is_late or status.status == "ended"):
            if status.status == "unknown":
                self._start(job, attempt)
            return None
        if not given_up and not attempt_dir.claim_start(GIVEN_UP + self.leadership.holder):
            return None
        if job.cancelling:
            return End("cancelled", "cancelled before it began")
        if is_late:
            return End("timed_out", TOO_LATE)
        if is_hung:
            return End(status.cause, f"did not begin within {self.settings.begin_s:g} s")
        words = ": ".join(filter(None, [status.message, status.log])) or "was given up before it began"
        return End(status.cause, words[:MESSAGE_LENGTH])

    def _has_exited(self, attempt: Attempt, seen: _Observation, end: End) -> bool:
        """Return whether the executor has no process of an attempt that has written its end, or need not be asked any longer.

        A process takes a moment to exit, and the next attempt begins only then: limits hold for processes that are there, not only
        for those that work. A process that does not exit is stopped. After the grace, or while the executor does not answer and can
        start nothing, the end is recorded all the same.
        """
        with suppress(ExecutorUnavailable):
            if self.executor.get_status(attempt.submission_id).status in ("ended", "unknown"):
                return True
            seen.exiting_since_s = min(seen.exiting_since_s, self._clock())
            stays_s = self._clock() - seen.exiting_since_s
            if end.cause != "succeeded" or stays_s > self.settings.patience_s:
                self._stop_process(attempt, seen)
            return stays_s > self.settings.grace_s
        return True

    def _stop_process(self, attempt: Attempt, seen: _Observation) -> None:
        """Have the executor stop the process, at most once per grace: it has its own time between SIGINT and SIGKILL."""
        if self._clock() - seen.stop_sent_s > self.settings.grace_s:
            self.executor.stop(attempt.submission_id)
            seen.stop_sent_s = self._clock()

    def _is_past_its_deadline(self, job: Job) -> bool:
        """Return whether a job has missed the deadline for its first start, as one may in a cluster's own queue."""
        if job.start_by_s is None or self.store.now() <= job.start_by_s:
            return False
        return self.store.attempt_counts([job.id]).get(job.id, (0, None))[1] is None

    def _stop_if_due(self, job: Job, attempt: Attempt, attempt_dir: AttemptDir, seen: _Observation) -> None:
        """Ask an attempt that is cancelled or out of time for a final checkpoint; after the grace, stop its process."""
        reason: StopReason | None = "cancelled" if job.cancelling else None
        # An attempt that this process has not seen alive may be dead for hours, in which the machine was off.
        runs_s = self.store.now() - attempt.started_s if attempt.started_s and seen.seen_alive else 0.0
        reason = reason or ("timed_out" if job.time_limit_s and runs_s > job.time_limit_s else None)
        if reason is None:
            return
        asked = self.store.ask_stop(self.leadership.held, attempt, reason)
        attempt_dir.request_stop(reason)
        waited_s = self.store.now() - (asked.stop_asked_s or self.store.now())
        if waited_s > self.settings.grace_s:
            self._stop_process(attempt, seen)

    def _end_of_lost(self, job: Job, attempt: Attempt, attempt_dir: AttemptDir, status: ExecutorStatus) -> End:
        """Return the end of an attempt that wrote none: by what it made, then by what it was asked, then by the executor's word."""
        run = read_status(attempt_dir).facts.get("run", "") if job.kind == "train" else ""
        last = partial(End, ended_s=attempt_dir.last_heartbeat_s(), ran_s=attempt_dir.last_heartbeat_ran_s())
        if run and exists(run):
            if open_folder(run).size(UNDELIVERED) is None or job.cancelling:
                return last("succeeded", result=run)
            return last("lost", "it was trained, and fell silent before MLflow had all of it")
        if attempt.stop_reason:
            return last(attempt.stop_reason, "ended without a last word")
        words = f"it fell silent, and is {status.status} to the cluster{': ' + status.message if status.message else ''}"
        return last(status.cause, words[:MESSAGE_LENGTH])

    # --- record what is known

    def _report(self, attempt: Attempt, status: StepStatus, seen: _Observation) -> None:
        if attempt.started_s is None:
            self.store.started(self.leadership.held, attempt)
        if status.progress and dict(status.progress) != seen.reported:
            seen.reported = dict(status.progress)
            resumed_from = str(status.facts.get("resumed_from", ""))
            self.store.report(self.leadership.held, attempt, status.progress, resumed_from=resumed_from)

    def _record_models(self, job: Job, attempt: Attempt, attempt_dir: AttemptDir, seen: _Observation) -> None:
        """Record, once for each job, which artifacts the registered models in its configuration stand for."""
        if seen.models_recorded or not has_models(job.kind, job.config):
            return
        if models := attempt_dir.models():
            self.store.record_models(self.leadership.held, attempt, models)
            seen.models_recorded = True

    def _expected_s(self, job: Job) -> dict[str, float]:
        """Return the seconds that each stage took in earlier jobs of the same kind and recipe."""
        recipe = recipe_of(job.kind, job.config)
        earlier = self.store.jobs(states=["succeeded"], kind=job.kind, limit=10 * LAST_JOBS)
        alike = [stages_of(each.progress) for each in earlier if recipe_of(each.kind, each.config) == recipe]
        return expected_durations(alike[:LAST_JOBS])

    def _record_end(self, job: Job, attempt: Attempt, attempt_dir: AttemptDir, end: End) -> None:
        """Record how far the attempt came, and how it ended."""
        status = read_status(attempt_dir)
        if status.progress:
            progress = as_finished(status.progress) if end.cause == "succeeded" else dict(status.progress)
            resumed_from = str(status.facts.get("resumed_from", ""))
            self.store.report(self.leadership.held, attempt, progress, resumed_from=resumed_from)
        state = self.store.end(
            self.leadership.held,
            attempt,
            end.cause,
            message=end.message,
            result=end.result,
            began_s=end.began_s,
            ended_s=end.ended_s,
            ran_s=end.ran_s,
            outages=OutagePolicy(self.settings.outage_pause_s, give_up_s=self.settings.outage_s),
        )
        message = f": {end.message}" if end.message else ""
        events.say(f"job {job.id}: attempt {attempt.number} {end.cause}{message}; the job is {state}")

    def _attempt_dir(self, attempt: Attempt) -> AttemptDir:
        return attempt_dir_of(self.settings.root, attempt.submission_id)

    # --- errors

    def _isolated(self, job: Job, attempt: Attempt, action: Callable[[Job, Attempt], None]) -> None:
        """Do something with one attempt. An error is logged, and does not keep the dispatcher from the other attempts."""
        name = attempt.submission_id
        try:
            action(job, attempt)
        except StaleLease:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the error is, the other jobs must go on
            self._log_error(name, error)
        else:
            self._log_recovery(name)

    def _log_error(self, name: str, error: Exception) -> None:
        """Log an error when it begins or changes, not in every round."""
        line = (str(error) if isinstance(error, UNAVAILABLE) else f"{type(error).__name__}: {error}").partition("\n")[0]
        if self._last_errors.get(name) != line:
            events.warn(f"{name}: {line}; trying again")
        self._last_errors[name] = line

    def _log_recovery(self, name: str) -> None:
        if self._last_errors.pop(name, None) is not None:
            events.say(f"{name}: all well again")
