"""Ray Tune around a sweep's trials: it runs them and stops poor ones early; the table is the record of what happened.

Each start of a sweep is a new Tune experiment over the trials that have not ended. What Tune itself writes is never read again.
"""

from __future__ import annotations

import logging
import os
import uuid
from types import SimpleNamespace
from typing import Any

# Ctrl-C ends a sweep like any other command: the table has all that is needed to go on.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
# The sweep prints its own lines.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

from ray import tune
from ray.tune import Callback, FailureConfig
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tuning.ledger import Ledger
from tuning.trial import ERROR, SEED_DONE
from zsbir.base.arrow import arrow_filesystem
from zsbir.base.storage import Folder
from zsbir.edge.ray_room import Need, nodes_alive
from zsbir.training.loop import DEV_SCORE
from zsbir.training_run.plan import Settings

BOOKKEEPING = ".ray"
TUNE_RETRIES = 1
"""How often Tune restarts a trial whose process was lost; it goes on from its run's last checkpoint."""


def run_trials(ledger: Ledger, folder: Folder, *, at_once: int) -> None:
    """Train until all trials of the plan have ended, the space is used up, or the time is over.

    Must be called while connected to a Ray cluster. folder: the sweep's folder; at_once: trials that train at the same time.
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
                # A stopped trial may need seconds to end; Tune would count the next one in its actor as failed, and wait for ever.
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
    """Return what a trial itself holds: its CPUs and GPUs, or nothing if Ray workers, which need them, train it."""
    if settings.num_workers:
        return {"cpu": 0, "node:__internal_head__": 0.001}
    return {"cpu": settings.cpus_per_worker, **({"gpu": settings.gpus_per_worker} if settings.gpus_per_worker else {})}


def trials_at_once(settings: Settings, limit: int) -> int:
    """Return how many trials fit in the connected cluster at the same time, at most `limit` (0: no limit)."""
    workers, limit = max(1, settings.num_workers), limit or 10**6
    each = Need(limit * workers, settings.cpus_per_worker, settings.gpus_per_worker)
    return max(1, min(each.fitting(nodes_alive()) // workers, limit))


class NextTrial(Searcher):  # type: ignore[misc]  # ray has no types for mypy
    """Ray Tune's searcher: gives it the ledger's next trial."""

    def __init__(self, ledger: Ledger):
        super().__init__()  # without a metric: a trial may report an error alone
        self._ledger = ledger

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """Return True: metric and mode are set here."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Return the point of the next trial, or FINISHED."""
        trial = self._ledger.next_trial(trial_id)
        return Searcher.FINISHED if trial is None else {"number": trial.number, "point": trial.point}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: Recorder handles it."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the table is already saved."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: every start is a new experiment."""


class EarlyStopping(FIFOScheduler):  # type: ignore[misc]
    """ASHA (Li et al. 2018, Ray Tune's) on the best dev score so far. Score and decision are written to the table together.

    After a restart ASHA gets all scores in the table again, and no trial is judged twice at the same step. Of trials with several
    seeds the first is judged, in each trial the same one: the others are trained only where it was not stopped.
    """

    def __init__(self, ledger: Ledger):
        super().__init__()
        self._ledger, plan = ledger, ledger.plan
        self._asha: Any = None
        self._judged: dict[int, set[int]] = {}
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
        """Give ASHA the scores in the table that it has not had: from before a restart, or of a run that was found."""
        for trial in self._ledger.table.trials:
            for step, _ in trial.scores:
                if step not in self._judged.get(trial.number, ()):
                    self._judge(trial.number, step, trial.best_until(step) or 0.0)

    def _judge(self, number: int, step: int, best: float) -> bool:
        """Return whether to stop a trial, but never at its last step, when the work is done."""
        trial = SimpleNamespace(trial_id=number)
        if number not in self._judged:
            self._judged[number] = set()
            self._asha.on_trial_add(None, trial)
        self._judged[number].add(step)
        if step >= self._ledger.plan.steps:
            return False
        return bool(self._asha.on_trial_result(None, trial, {"step": step, "best": best}) == TrialScheduler.STOP)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Record a score and decide whether the trial goes on."""
        ledger, number = self._ledger, self._ledger.number(trial.trial_id)
        if ERROR in result:
            ledger.end(number, "failed", str(result[ERROR]))
            return str(TrialScheduler.STOP)
        if SEED_DONE in result:
            ledger.seed_done(number, int(result[SEED_DONE]))
        if SEED_DONE in result or ledger.is_at_further_seed(number):
            return str(TrialScheduler.CONTINUE)  # the scores of a further seed are read at its end, and stop nobody
        if DEV_SCORE not in result or result.get("done") or ledger.table.trial(number).ended:
            return str(TrialScheduler.CONTINUE)
        step, score = int(result["step"]), float(result[DEV_SCORE])
        if step in {at for at, _ in ledger.table.trial(number).scores}:
            return str(TrialScheduler.CONTINUE)  # a resumed training reports its scores again
        stopped = False
        if self._asha is not None:
            self._catch_up()
            stopped = self._judge(number, step, max(score, ledger.table.trial(number).best_until(step) or 0.0))
        ledger.scored(number, step, score, stopped=stopped)
        return str(TrialScheduler.STOP if stopped else TrialScheduler.CONTINUE)

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """Return True: metric and mode are set here."""
        return True


class Recorder(Callback):  # type: ignore[misc]
    """Ray Tune's callback: records how trials end."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial whose function has returned, or that was stopped."""
        self._ledger.completed(self._ledger.number(trial.trial_id))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial that raised an error, or whose process was lost more often than TUNE_RETRIES."""
        number = self._ledger.number(trial.trial_id)
        self._ledger.left(number)
        lines = (trial.get_error() or "its process was lost").strip().splitlines()
        self._ledger.end(number, "failed", lines[-1][:300])
