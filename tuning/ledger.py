"""The plan of a sweep, and the ledger that begins trials by it and writes down in the table what happens to them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuning.config import Search
from tuning.space import Space
from tuning.suggest import most_trials, suggest
from tuning.table import Further, Scores, Table, Trial, leader
from tuning.trial import TrialTask
from zsbir.base import events, watch
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import InputError
from zsbir.base.parquet import read_numbers
from zsbir.training.forecast import shown_minutes
from zsbir.training.loop import DEV_METRIC, DEV_SCORE
from zsbir.training_run.plan import resolve


@dataclass(frozen=True)
class Plan:
    """What a sweep does, apart from how its trials train.

    known: points to start from. trials: the largest number of them. steps: of a whole trial. grace: steps before the first
    decision, 0 for no early stopping. reduction: one in this many trials goes on at a decision. budget_s: seconds for all trials,
    0 for no limit. seeds: trainings of a trial.
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
    seeds: int = 1


class Ledger:
    """Begins trials and writes the table, on behalf of Ray Tune's searcher, scheduler and callback."""

    def __init__(self, plan: Plan, task: TrialTask, table: Table):
        self.plan, self.task, self.table = plan, task, table
        self._waiting = [trial.number for trial in table.trials if not trial.ended]
        self._numbers: dict[str, int] = {}
        self._spent_s = sum(trial.seconds for trial in table.trials)
        self._running: dict[int, float] = {}
        self._seeds_done: dict[int, int] = {}
        self._used_up = False
        self.most = most_trials(plan.search, plan.space, plan.known, plan.trials)

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
                self._seeds_done[number] = 0
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
            run, *others = (resolve(config, self.task.uris, self.task.settings).run for config in self.task.configs(point))
        except InputError as error:
            self.table.begin(Trial(number, origin, point))
            self.end(number, "failed", str(error))
            return None
        self.table.begin(Trial(number, origin, point, run=run, further=tuple(map(Further, others))))
        return number

    def _finish_if_trained(self, number: int) -> bool:
        """End a trial whose runs are all finished, with the scores of their histories. Return whether they are."""
        runs = self.table.trial(number).runs
        if not all(map(exists, runs)):
            return False
        for place in range(len(runs)):
            self._copy_scores(number, place)
        self.end(number, "finished")
        return True

    def _copy_scores(self, number: int, place: int = 0) -> None:
        """Copy the scores of the finished run of a seed that are not in the table: trained earlier, or just before a kill."""
        trial = self.table.trial(number)
        found = _scores_of(trial.runs[place])
        if place:
            if trial.further[place - 1].scores != found:
                self.table.scored_further(number, place - 1, found)
            return
        known = {step for step, _ in trial.scores}
        for step, score in found:
            if step not in known:
                self.table.scored(number, step, score, stopped=False)

    def is_at_further_seed(self, number: int) -> bool:
        """Return whether a trial trains another seed than its first; its time counts until now."""
        self._count_time(number)
        return self._seeds_done.get(number, 0) > 0

    def seed_done(self, number: int, place: int) -> None:
        """Record that a trial has finished, or found, the training of one of its seeds, the place-th from 0."""
        self._count_time(number)
        self._seeds_done[number] = place + 1
        if self.table.trial(number).ended:
            return
        self._copy_scores(number, place)
        self._report_scores()
        trial = self.table.trial(number)
        mean = f"{DEV_SCORE} {trial.score:.3f} in the mean so far" if trial.score is not None else "no score"
        events.say(f"trial {number}, seed {place + 1} of {len(trial.runs)} done: {mean}; {self._still_to_come()}")

    def scored(self, number: int, step: int, score: float, *, stopped: bool) -> None:
        """Record the score of a trial on the dev classes at a step. stopped: whether the trial ends there for being poor."""
        self._count_time(number)
        self.table.scored(number, step, score, stopped=stopped)
        self._report_scores()
        events.say(f"{self._standing(number, step, score)}{', stopped early' if stopped else ''}; {self._still_to_come()}")

    def _standing(self, number: int, step: int, score: float) -> str:
        """Return a trial's score beside the best of all trials so far."""
        best = leader(self.table.trials)
        line = f"trial {number}, step {step}/{self.plan.steps}: {DEV_SCORE} {score:.3f}"
        if best is None or best.best is None or best.score is None:
            return line
        if len(best.curves) > 1:
            return f"{line} (best {best.score:.3f}, trial {best.number} in the mean of {len(best.curves)} seeds)"
        at, value = best.best
        if (best.number, at) == (number, step):
            return f"{line} (the best so far)"
        return f"{line} (best {value:.3f}, trial {best.number} at step {at})"

    def end(self, number: int, state: Any, error: str = "") -> None:
        """Record how a trial has ended; a failure is a warning, since the sweep goes on."""
        self.table.end(number, state, error=error)
        ended = sum(trial.ended for trial in self.table.trials)
        events.publish(events.ProgressEvent("sweep", ended, self.most, "trial", per_s=0.0))
        self._report_scores()
        trial = self.table.trial(number)
        if trial.state == "failed":
            events.warn(f"trial {number} failed: {trial.error}; the sweep goes on")

    def _report_scores(self) -> None:
        """Report to the watcher of a queued job, for each trial, its best score so far and the best of all trials up to it."""
        trials = self.table.trials
        for count, trial in enumerate(trials, 1):
            best = leader(trials[:count])
            if trial.score is not None:
                scores = {DEV_SCORE: trial.score} | ({f"{DEV_SCORE}_best": best.score} if best and best.score is not None else {})
                watch.record_metrics(trial.number, scores, keep=True)
        best = leader(trials)
        if best and best.score is not None:
            watch.record_score(best.score, DEV_METRIC, "dev")

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

    def _still_to_come(self) -> str:
        """Return how many trials have ended and are running, and how long the rest takes as far as one can tell."""
        ended = sum(trial.ended for trial in self.table.trials)
        return f"{ended} of {self.most} trials ended, {len(self._still_running())} running{self._time_left()}"

    def _still_running(self) -> list[Trial]:
        """Return the trials that train; one that was just stopped has ended, though its process may not have."""
        return [trial for number in self._running if not (trial := self.table.trial(number)).ended]

    def _time_left(self) -> str:
        """Return the time that is left, as far as speed and length of the trials so far tell; empty where they do not."""
        steps = sum(trial.steps for trial in self.table.trials)
        seconds = sum(trial.seconds for trial in self.table.trials if trial.scores)
        if not steps or not seconds:
            return ""
        lengths = [trial.steps for trial in self.table.trials if trial.ended and trial.scores]
        usual = sum(lengths) / len(lengths) if lengths else self.plan.steps * self.plan.seeds
        running = self._still_running()
        to_come = sum(max(0.0, usual - trial.steps) for trial in running)
        to_come += usual * max(0, self.most - len(self.table))
        # The place of a trial that was just stopped is taken by the next one, as long as there is one.
        at_once = max(1, min(len(self._running), len(running) + max(0, self.most - len(self.table))))
        left_s = to_come * seconds / steps / at_once
        if self.plan.budget_s:
            spent_s = sum(trial.seconds for trial in self.table.trials)
            left_s = min(left_s, max(0.0, self.plan.budget_s - spent_s) / at_once)
        return f", {shown_minutes(left_s)} left"


def _scores_of(uri: str) -> Scores:
    """Return the scores on the dev classes in the history of a finished run."""
    run = Artifact(uri, "run")
    history = read_numbers(run.file("history.parquet"), run.address("history.parquet")).to_pylist()
    return tuple((int(row["step"]), float(row[DEV_SCORE])) for row in history if row.get(DEV_SCORE) is not None)
