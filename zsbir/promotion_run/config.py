"""The fields of a promotion, and what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from zsbir.base.config import Config
from zsbir.base.layout import MLFLOW_EXPERIMENT
from zsbir.base.storage import default_root
from zsbir.promotion.address import DEFAULT_MODEL, MODEL_PATTERN
from zsbir.promotion.gate import GateConfig


class PromoteConfig(GateConfig):
    """What decides whether the model is promoted."""

    min_recall: float = Field(
        0.99, ge=0, le=1, description="lowest recall@10 of sketches in the index, compared with a slow exact ranking, that passes"
    )


class Settings(Config):
    """Where the models are registered."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")
    experiment: str = Field(MLFLOW_EXPERIMENT, description="MLflow experiment of the runs")
    model: str = Field(DEFAULT_MODEL, pattern=f"^{MODEL_PATTERN}$", description="registered model, one for each application")


@dataclass(frozen=True)
class PromotionRequest:
    """What the user asks for. force_reason: why the model becomes champion whatever the comparison says; "": not forced.

    report: of the model; other_reports: of the same training with other seeds; champion_reports: none: those it was promoted by.
    """

    report: str
    index: str
    other_reports: tuple[str, ...] = ()
    champion_reports: tuple[str, ...] = ()
    force_reason: str = ""
    dry_run: bool = False
