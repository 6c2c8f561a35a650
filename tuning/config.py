"""What a sweep does, where its trials run, and the request that holds both. Importing this module does not load Ray or torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from tuning.space import SPACES
from zsbir.base.config import Added, Config
from zsbir.training.config import TrainConfig
from zsbir.training_run.plan import InputUris, Settings

Search = Literal["tpe", "random", "grid"]
"""How the next configuration is chosen (`tuning.suggest`)."""


class SweepConfig(Config):
    """What a sweep tries, and for how long."""

    outside_identity = frozenset({"space"})  # the ranges and choices in it are in the digest

    space: str = Field("losses", description=f"what varies: {', '.join(SPACES)}, or a YAML file of ranges and choices")
    search: Search = Field("tpe", description="how configurations are chosen: Optuna's TPE, random, or grid")
    trials: int = Field(16, ge=1, description="largest number of trials, trial 0 (the recipe as it is) included")
    budget_minutes: float = Field(0, ge=0, description="minutes for the whole sweep, restarts included; 0: no limit")
    early_stopping: Literal["asha", "none"] = Field("asha", description="whether poor trials are stopped early")
    grace_steps: int = Field(0, ge=0, description="steps before a trial may be stopped; 0: until the first evaluation")
    reduction: float = Field(
        2.0, gt=1, description="one in this many trials goes on at a decision; the next decision is at this many times the steps"
    )
    seeds_per_trial: Annotated[int, Added(neutral=1)] = Field(
        1, ge=1, le=100, description="seeds that each trial trains, from the recipe's on; its score is their mean"
    )
    sweep_seed: int = Field(0, ge=0, description="seed of the search; the trainings have their own")


class SweepSettings(Config):
    """Where trials run. Nothing here changes what is computed."""

    at_once: int = Field(0, ge=0, description="trials at the same time; 0: as many as the cluster's CPUs and GPUs hold")
    retry_failed: bool = Field(False, description="train failed trials again")


@dataclass(frozen=True)
class SweepRequest:
    """A sweep as the user asks for it. base: what trial 0 trains; start_from: fields of further configurations to try first."""

    base: TrainConfig
    uris: InputUris
    config: SweepConfig
    start_from: Sequence[dict[str, Any]]
    settings: Settings
    where: SweepSettings
