"""The plan of a sweep, and the ledger that begins trials by it and writes down in the table what happens to them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuning.config import Search
from tuning.space import Space
from tuning.suggest import suggest
from tuning.table import Table, Trial
from tuning.trial import TrialTask
from zsbir.base import events, watch
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import InputError
from zsbir.base.parquet import read_numbers
from zsbir.training.loop import DEV_METRIC, DEV_SCORE
from zsbir.training_run.plan import resolve


@dataclass(frozen=True)
class Plan:
    """What a sweep does, apart from how its trials train.

    known: points to start from. trials: the largest number of them. steps: of a whole trial. grace: steps before the first
    decision, 0 for no early stopping. reduction: one in this many trials goes on at a decision. budget_s: seconds for all trials,
    0 for no limit.
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


class Ledger:
    """Begins trials and writes the table, on behalf of Ray Tune's searcher, scheduler and callback."""

    def __init__(self, plan: Plan, task: TrialTask, table: Table):
        self.plan, self.task, self.table = plan, task, table
        self._waiting = [trial.number for trial in table.trials if not trial.ended]
        self._numbers: dict[str, int] = {}
        self._spent_s = sum(trial.seconds for trial in table.trials)
        self._running: dict[int, float] = {}
        self._used_up = False

    def number(self, trial_id: str) -> int:
        """Return the number of the trial that has this id in Ray Tune."""
        return self._numbers[trial_id]

    def is_done(self) -> bool:
        """Return whether there is nothing left to begin."""
        return not self._waiting and (len(self.table) >= self.plan.trials or self._used_up)

    def seconds_left(self, at_once: int) -> float:
        """Return the seconds of wall time left in the budget, at least 1; 0 if there is no budget."""
        return max(1.0, (self.plan.budget_s - self._spent_s) / at_once) if self.plan.budget_s else 0.0

    def next_trial(self, trial_id: str) -> Trial | None:
        """Return the trial to start now: one that was begun before, else a new one. None when there are no more."""
        while not self.is_done():
            number = self._waiting.pop(0) if self._waiting else self._begin()
            if number is not None and not self._finish_if_trained(number):
                self._numbers[trial_id] = number
                self._running[number] = time.monotonic()
                return self.table.trial(number)
        return None

    def _begin(self) -> int | None:
        """Add a new trial to the table and return its number; None if the space is used up, or the configuration is not valid."""
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

    def _finish_if_trained(self, number: int) -> bool:
        """End a trial whose run is finished, with the scores of its history. Return whether it is."""
        run = self.table.trial(number).run
        if not exists(run):
            return False
        self._copy_scores(number)
        self.end(number, "finished")
        return True

    def _copy_scores(self, number: int) -> None:
        """Copy the scores of a finished run that are not in the table: trained earlier, or just before its sweep was killed."""
        trial = self.table.trial(number)
        known = {step for step, _ in trial.scores}
        run = Artifact(trial.run, "run")
        history = read_numbers(run.file("history.parquet"), run.address("history.parquet")).to_pylist()
        for row in history:
            if row.get(DEV_SCORE) is not None and row["step"] not in known:
                self.table.scored(number, int(row["step"]), float(row[DEV_SCORE]), stopped=False)

    def scored(self, number: int, step: int, score: float, *, stopped: bool) -> None:
        """Record an evaluation."""
        self._count_time(number)
        self.table.scored(number, step, score, stopped=stopped)
        self._report_scores()
        best = max((trial for trial in self.table.trials if trial.score is not None), key=lambda trial: trial.score or 0.0)
        leader = "the best so far" if best.number == number else f"best so far {best.score:.3f}, trial {best.number}"
        verdict = ", stopped early" if stopped else ""
        events.say(f"trial {number} step {step}/{self.plan.steps}: dev mAP@all {score:.3f} ({leader}){verdict}{self._time_left()}")

    def end(self, number: int, state: Any, error: str = "") -> None:
        """End a trial."""
        self.table.end(number, state, error=error)
        ended = sum(trial.ended for trial in self.table.trials)
        events.publish(events.ProgressEvent("sweep", ended, self.plan.trials, "trial", per_s=0.0))
        self._report_scores()
        trial = self.table.trial(number)
        if trial.state == "failed":
            events.warn(f"trial {number} failed: {trial.error}; the sweep goes on")

    def _report_scores(self) -> None:
        """Report to the watcher of a queued job, for each trial, its best score so far and the best of all trials up to it."""
        best = float("-inf")
        for trial in self.table.trials:
            if trial.score is not None:
                best = max(best, trial.score)
                watch.record_metrics(trial.number, {DEV_SCORE: trial.score, f"{DEV_SCORE}_best": best}, keep=True)
        if best > float("-inf"):
            watch.record_score(best, DEV_METRIC, "dev")

    def left(self, number: int) -> None:
        """Note that a trial is no longer training."""
        self._count_time(number)
        self._running.pop(number, None)

    def _count_time(self, number: int) -> None:
        """Add the time since the last call; called at every score, so that a killed sweep knows what it has spent."""
        now = time.monotonic()
        if number in self._running:
            self.table.spent(number, now - self._running[number])
            self._running[number] = now

    def completed(self, number: int) -> None:
        """End a trial that Ray Tune is done with if its run is finished; else the next start of the sweep goes on with it."""
        self.left(number)
        if not self.table.trial(number).ended:
            self._finish_if_trained(number)

    def _time_left(self) -> str:
        ended = [trial for trial in self.table.trials if trial.ended and trial.seconds]
        to_come = self.plan.trials - sum(trial.ended for trial in self.table.trials)
        if not ended or to_come < 1:
            return ""
        minutes = sum(trial.seconds for trial in ended) / len(ended) * to_come / max(1, len(self._running)) / 60
        return f"; {to_come} of {self.plan.trials} trials to come, about {minutes:.0f} min left"
