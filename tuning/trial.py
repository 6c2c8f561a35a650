"""One trial: a training like any other, that tells Ray Tune its scores on the dev classes and ends when Tune says so."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune

from zsbir.base.errors import Busy, InputError, Interrupted, RunError
from zsbir.train import InputUris, Settings, train
from zsbir.training.config import TrainConfig
from zsbir.training.context import LocalContext
from zsbir.training.loop import DEV_SCORE

BUSY_S = 90.0
"""Seconds a trial waits for the process that had its run before: a killed sweep's may be at its end, or its lease not yet stale."""

ERROR = "error"
"""The key under which a trial reports, as its last word, what trying again would not mend."""


class TuneContext(LocalContext):
    """A training in this process, inside a trial of Ray Tune."""

    def __init__(self) -> None:
        super().__init__()
        # Ray says how many cores this trial holds; torch would take all of the machine.
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))

    def report(self, metrics: dict[str, float]) -> None:
        """To Ray Tune, which answers a stopped trial by ending its thread."""
        try:
            tune.report({"step": int(metrics["step"]), DEV_SCORE: metrics[DEV_SCORE]})
        except SystemExit:
            raise Interrupted("stopped by the sweep") from None


@dataclass(frozen=True)
class TrialTask:
    """What each trial trains: a point of the space over the base configuration. Plain values, so that it travels to any process."""

    base: TrainConfig
    uris: InputUris
    settings: Settings

    def config(self, point: dict[str, Any]) -> TrainConfig:
        """The configuration of a point. InputError where it is none."""
        return self.base.replace(**point)

    def __call__(self, config: dict[str, Any]) -> None:
        """Ray Tune's trainable: `config` holds the trial's point."""
        try:
            self._train(self.config(config["point"]))
        except (InputError, RunError) as error:
            tune.report({ERROR: str(error)})
        except Interrupted:
            return

    def _train(self, config: TrainConfig) -> None:
        context = None if self.settings.num_workers else TuneContext()
        until = time.monotonic() + BUSY_S
        while True:
            try:
                train(config, self.uris, self.settings, context)
            except Busy:
                if time.monotonic() > until:
                    raise
                time.sleep(1)
            else:
                return
