"""Ray Tune around a sweep's trials: it says who runs and who is stopped early; the table says what is true.

Each start of a sweep is a fresh Tune experiment over the trials that have not ended. What Tune itself writes is never read again.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

# Ctrl-C ends a sweep like any other command: the table has all that is needed to go on.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
# Our own lines tell the story.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import pyarrow.parquet as pq
import ray
from ray import tune
from ray.tune import Callback, FailureConfig
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tuning.space import Space
from tuning.suggest import Search, suggest
from tuning.table import Table, Trial
from tuning.trial import ERROR, TrialTask
from zsbir.base import events, watch
from zsbir.base.arrow import arrow_filesystem
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import InputError
from zsbir.base.storage import Folder
from zsbir.train import Settings, resolve
from zsbir.training.loop import DEV_SCORE

BOOKKEEPING = ".ray"
TUNE_RETRIES = 1
"""How often Tune starts a trial again whose process was lost; it goes on from its run's last checkpoint."""


@dataclass(frozen=True)
class Plan:
    """What a sweep does, apart from how its trials train.

    known: points to start from. trials: how many at most. steps: of a whole trial. grace: steps before the first decision, 0 for no
    early stopping; reduction: at each decision one in so many goes on. budget_s: time for all, 0 for no limit.
    """

    space: Space
    known: Sequence[dict[str, Any]]
    search: Search
    seed: int
    trials: int
    steps: int
    grace: int
    reduction: float
    budget_s: float


def run_trials(ledger: Ledger, folder: Folder, *, at_once: int) -> None:
    """Train until the plan is fulfilled, the space used up, or the time over. What happens is in the table.

    Must be called inside a Ray cluster. place: the sweep's folder; at_once: trials that train at the same time.
    """
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    task = ledger.task
    path, filesystem = arrow_filesystem(folder.sub(BOOKKEEPING).uri)
    try:
        tune.Tuner(
            tune.with_resources(task.__call__, _resources(task.settings)),
            tune_config=tune.TuneConfig(
                search_alg=NextTrial(ledger),
                scheduler=EarlyStopping(ledger),
                num_samples=-1,
                max_concurrent_trials=at_once,
                # A stopped trial may need seconds to leave; Tune then takes the next one for failed, and waits for ever.
                reuse_actors=False,
                time_budget_s=ledger.seconds_left(at_once) or None,
                trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=uuid.uuid4().hex[:8],
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=TUNE_RETRIES),
                callbacks=[Recorder(ledger)],
                verbose=0,
            ),
        ).fit()
    finally:
        folder.sub(BOOKKEEPING).clear()


def _resources(settings: Settings) -> dict[str, float]:
    """A trial that trains in its own process holds its CPUs; one with workers holds none, or they would wait for it for ever."""
    if settings.num_workers:
        return {"cpu": 0, "node:__internal_head__": 0.001}
    return {"cpu": settings.cpus_per_worker, **({"gpu": settings.gpus_per_worker} if settings.gpus_per_worker else {})}


def trials_at_once(settings: Settings, limit: int) -> int:
    """How many trials the connected cluster holds, at most `limit` (0: no limit)."""
    have, workers = ray.cluster_resources(), max(1, settings.num_workers)
    fit = [have.get("CPU", 0) / (workers * settings.cpus_per_worker)]
    if settings.gpus_per_worker:
        fit.append(have.get("GPU", 0) / (workers * settings.gpus_per_worker))
    return max(1, min(int(min(fit)), limit or 10**6))


class Ledger:
    """The one who writes the table, on behalf of Tune's searcher, scheduler and callback."""

    def __init__(self, plan: Plan, task: TrialTask, table: Table):
        self.plan, self.task, self.table = plan, task, table
        self._waiting = [trial.number for trial in table.trials if not trial.ended]
        self._numbers: dict[str, int] = {}
        self._spent_s = sum(trial.seconds for trial in table.trials)
        self._running: dict[int, float] = {}
        self._used_up = False

    def number(self, trial_id: str) -> int:
        """The number of the trial that Tune knows by this id."""
        return self._numbers[trial_id]

    def is_done(self) -> bool:
        """Whether there is nothing left to begin."""
        return not self._waiting and (len(self.table) >= self.plan.trials or self._used_up)

    def seconds_left(self, at_once: int) -> float:
        """Of the time budget, by the clock, at least one; 0 where there is none."""
        return max(1.0, (self.plan.budget_s - self._spent_s) / at_once) if self.plan.budget_s else 0.0

    def next_trial(self, trial_id: str) -> Trial | None:
        """The trial to start now: one that was begun before, else a new one. None when there is no more."""
        while not self.is_done():
            number = self._waiting.pop(0) if self._waiting else self._begin()
            if number is not None and not self._settle(number):
                self._numbers[trial_id] = number
                self._running[number] = time.monotonic()
                return self.table.trial(number)
        return None

    def _begin(self) -> int | None:
        plan = self.plan
        found = suggest(plan.search, plan.space, plan.known, self.table.trials, seed=plan.seed)
        if found is None:
            self._used_up = True
            return None
        origin, point = found
        number = len(self.table)
        try:
            run = resolve(self.task.config(point), self.task.uris, self.task.settings).run
        except InputError as error:
            self.table.begin(Trial(number, origin, point))
            self.end(number, "failed", str(error))
            return None
        self.table.begin(Trial(number, origin, point, run=run))
        return number

    def _settle(self, number: int) -> bool:
        """Whether the trial's run is there already: then it has ended, and its scores are in its history."""
        run = self.table.trial(number).run
        if not exists(run):
            return False
        self._take_scores(number)
        self.end(number, "finished")
        return True

    def _take_scores(self, number: int) -> None:
        """Scores of a finished run that never came here: it was trained before, or its driver was killed at the end."""
        trial = self.table.trial(number)
        known = {step for step, _ in trial.scores}
        history = pq.read_table(Artifact(trial.run, "run").file("history.parquet")).to_pylist()
        for row in history:
            if row.get(DEV_SCORE) is not None and row["step"] not in known:
                self.table.scored(number, int(row["step"]), float(row[DEV_SCORE]), stopped=False)

    def scored(self, number: int, step: int, score: float, *, stopped: bool) -> None:
        """An evaluation came in."""
        self._count_time(number)
        self.table.scored(number, step, score, stopped=stopped)
        self._show()
        best = max((trial for trial in self.table.trials if trial.score is not None), key=lambda trial: trial.score or 0.0)
        leader = "the best so far" if best.number == number else f"best so far {best.score:.3f}, trial {best.number}"
        verdict = ", stopped early" if stopped else ""
        events.say(f"trial {number} step {step}/{self.plan.steps}: dev mAP@all {score:.3f} ({leader}){verdict}{self._time_left()}")

    def end(self, number: int, state: Any, error: str = "") -> None:
        """A trial has ended."""
        self.table.end(number, state, error=error)
        ended = sum(trial.ended for trial in self.table.trials)
        events.publish(events.ProgressEvent("sweep", ended, self.plan.trials, "trial", per_s=0.0))
        self._show()
        trial = self.table.trial(number)
        if trial.state == "failed":
            events.warn(f"trial {number} failed: {trial.error}; the sweep goes on")

    def _show(self) -> None:
        """For who watches: a row a trial, with its best score so far, and the best of all up to it."""
        best = float("-inf")
        for trial in self.table.trials:
            if trial.score is not None:
                best = max(best, trial.score)
                watch.record_metrics(trial.number, {DEV_SCORE: trial.score, f"{DEV_SCORE}_best": best}, keep=True)

    def left(self, number: int) -> None:
        """A trial's process is done with it."""
        self._count_time(number)
        self._running.pop(number, None)

    def _count_time(self, number: int) -> None:
        """At every score, so that a killed sweep knows what it has spent."""
        now = time.monotonic()
        if number in self._running:
            self.table.spent(number, now - self._running[number])
            self._running[number] = now

    def completed(self, number: int) -> None:
        """Tune has no more to do for a trial: finished if its run is there, else left for the next time."""
        self.left(number)
        if not self.table.trial(number).ended:
            self._settle(number)

    def _time_left(self) -> str:
        ended = [trial for trial in self.table.trials if trial.ended and trial.seconds]
        to_come = self.plan.trials - sum(trial.ended for trial in self.table.trials)
        if not ended or to_come < 1:
            return ""
        minutes = sum(trial.seconds for trial in ended) / len(ended) * to_come / max(1, len(self._running)) / 60
        return f"; {to_come} of {self.plan.trials} trials to come, about {minutes:.0f} min left"


class NextTrial(Searcher):  # type: ignore[misc]  # ray has no types for mypy
    """Tune asks for configurations; the ledger has them."""

    def __init__(self, ledger: Ledger):
        super().__init__()  # without a metric: a trial may report an error alone
        self._ledger = ledger

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """Metric and mode are ours."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The point of the next trial, or the end."""
        trial = self._ledger.next_trial(trial_id)
        return Searcher.FINISHED if trial is None else {"number": trial.number, "point": trial.point}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The recorder is told too."""

    def save(self, checkpoint_path: str) -> None:
        """The table is all there is to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called: every start is a fresh experiment."""


class EarlyStopping(FIFOScheduler):  # type: ignore[misc]
    """ASHA (Li et al. 2018, in Ray Tune) on the best dev score so far. Score and decision enter the table together.

    What was decided before a restart is told to it again, and nothing is decided twice.
    """

    def __init__(self, ledger: Ledger):
        super().__init__()
        self._ledger, plan = ledger, ledger.plan
        self._asha: Any = None
        self._told: dict[int, set[int]] = {}
        if 0 < plan.grace < plan.steps:
            self._asha = ASHAScheduler(
                time_attr="step",
                metric="best",
                mode="max",
                max_t=plan.steps,
                grace_period=plan.grace,
                reduction_factor=plan.reduction,
                stop_last_trials=False,
            )

    def _catch_up(self) -> None:
        """Tell it what is in the table and did not come through here: before a restart, or by a run that was found."""
        for trial in self._ledger.table.trials:
            for step, _ in trial.scores:
                if step not in self._told.get(trial.number, ()):
                    self._judge(trial.number, step, trial.best_until(step) or 0.0)

    def _judge(self, number: int, step: int, best: float) -> bool:
        """Whether to stop. The last evaluation stops nobody: the work is done."""
        trial = SimpleNamespace(trial_id=number)
        if number not in self._told:
            self._told[number] = set()
            self._asha.on_trial_add(None, trial)
        self._told[number].add(step)
        if step >= self._ledger.plan.steps:
            return False
        return bool(self._asha.on_trial_result(None, trial, {"step": step, "best": best}) == TrialScheduler.STOP)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Record, and decide."""
        ledger, number = self._ledger, self._ledger.number(trial.trial_id)
        if ERROR in result:
            ledger.end(number, "failed", str(result[ERROR]))
            return str(TrialScheduler.STOP)
        if DEV_SCORE not in result or result.get("done") or ledger.table.trial(number).ended:
            return str(TrialScheduler.CONTINUE)
        step, score = int(result["step"]), float(result[DEV_SCORE])
        if step in {at for at, _ in ledger.table.trial(number).scores}:
            return str(TrialScheduler.CONTINUE)  # said again by a training that was resumed
        stopped = False
        if self._asha is not None:
            self._catch_up()
            stopped = self._judge(number, step, max(score, ledger.table.trial(number).best_until(step) or 0.0))
        ledger.scored(number, step, score, stopped=stopped)
        return str(TrialScheduler.STOP if stopped else TrialScheduler.CONTINUE)

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """Metric and mode are ours."""
        return True


class Recorder(Callback):  # type: ignore[misc]
    """How trials end."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its function has returned, or it was stopped."""
        self._ledger.completed(self._ledger.number(trial.trial_id))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its process was lost more often than Tune starts it again, or it met an error nobody expected."""
        number = self._ledger.number(trial.trial_id)
        self._ledger.left(number)
        lines = (trial.get_error() or "its process was lost").strip().splitlines()
        self._ledger.end(number, "failed", lines[-1][:300])
