"""One trial: a training that reports its scores on the dev classes to Ray Tune, and ends when Tune stops it."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from ray import tune

from zsbir.base import code, events
from zsbir.base.errors import Busy, InputError, Interrupted, RunError, naming
from zsbir.recipes import field_text, shortened
from zsbir.train import train
from zsbir.training.config import TrainConfig
from zsbir.training.context import LocalContext
from zsbir.training.loop import DEV_SCORE
from zsbir.training_run.plan import InputUris, Settings

BUSY_S = 90.0
"""Seconds a trial waits for another process to release its run: one may be ending after a kill, or its lease not yet stale."""

ENDING_S = 30.0
"""Seconds that the process of a trial waits at its end for the thread that trained."""

SEED_DONE = "seed_done"
"""The key under which a trial of several seeds reports the place of the one that it has just finished, from 0."""

ERROR = "error"
"""The key under which a trial reports, last of all, an error that trying again would not fix."""


class TuneContext(LocalContext):
    """A training in this process, inside a trial of Ray Tune."""

    def __init__(self) -> None:
        super().__init__()
        # Ray sets how many cores this trial holds; torch would use all cores of the machine.
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))

    def report(self, metrics: dict[str, float]) -> None:
        """Report the score on the dev classes to Ray Tune."""
        _report({"step": int(metrics["step"]), DEV_SCORE: metrics[DEV_SCORE]})


def _report(values: dict[str, Any]) -> None:
    """Report to Ray Tune, which stops a trial by raising SystemExit here."""
    try:
        tune.report(values)
    except SystemExit:
        raise Interrupted("stopped by the sweep") from None


@dataclass(frozen=True)
class TrialTask:
    """What each trial trains: a point of the space over the base configuration. Plain values, which can be sent to any process.

    seeds: how many each trial trains, one after another. code: that of the process that made this value, which the trials must run,
    too.
    """

    base: TrainConfig
    uris: InputUris
    settings: Settings
    seeds: int = 1
    code: Mapping[str, str] = field(default_factory=code.running_code)

    def config(self, point: dict[str, Any]) -> TrainConfig:
        """Return the configuration of a point. Raises InputError if it is not valid."""
        return self.base.replace(**point)

    def configs(self, point: dict[str, Any]) -> list[TrainConfig]:
        """Return the configurations that a trial trains: of a point, with its seed and those that follow."""
        first = self.config(point)
        return [first, *(first.replace(seed=first.seed + more) for more in range(1, self.seeds))]

    def __call__(self, config: dict[str, Any]) -> None:
        """Train one trial, as Ray Tune's trainable. config: holds the trial's number and point."""
        # Ray Tune calls this in a thread and ends the process of a stopped trial without waiting for it. What a thread frees while
        # the interpreter ends crashes the process, and an MLflow run may be left open.
        atexit.register(threading.current_thread().join, ENDING_S)
        os.environ[events.PART] = f"trial {config['number']}"  # the sweep itself prints the scores
        try:
            code.check_same(self.code)
            self._train_seeds(self.configs(config["point"]), trial_name(config["number"], config["point"]))
        except (InputError, RunError) as error:
            tune.report({ERROR: str(error)})
        except Interrupted:
            return

    def _train_seeds(self, configs: Sequence[TrainConfig], name: str) -> None:
        """Train a configuration for each seed, in order; a seed that is done is found. An error says which seed it is of."""
        if len(configs) == 1:
            self._train(configs[0], name)
            return
        for place, config in enumerate(configs):
            with naming(f"seed {config.seed}"):
                self._train(config, shortened(f"{name} seed={config.seed}"))
            _report({SEED_DONE: place})

    def _train(self, config: TrainConfig, name: str) -> None:
        settings = self.settings.replace(run_name=name)
        context = None if self.settings.num_workers else TuneContext()
        until = time.monotonic() + BUSY_S
        while True:
            try:
                train(config, self.uris, settings, context)
            except Busy:
                if time.monotonic() > until:
                    raise
                time.sleep(1)
            else:
                return


def trial_name(number: int, point: Mapping[str, Any]) -> str:
    """Return what people see a trial by in MLflow: "trial 3: margin_cross=0.31 weight_quadruplet=0.5"."""
    return shortened(f"trial {number}: {' '.join(field_text(field, value) for field, value in point.items())}")
