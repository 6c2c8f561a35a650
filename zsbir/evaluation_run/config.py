"""The fields of an evaluation. Importing this module loads no torch."""

from __future__ import annotations

from pydantic import Field

from zsbir.base.config import Config
from zsbir.base.layout import MLFLOW_EXPERIMENT
from zsbir.base.storage import default_root
from zsbir.evaluation.protocol import PROTOCOLS
from zsbir.training.config import Precision


class EvaluateConfig(Config):
    """What decides the contents of the report."""

    protocol: str = Field("zero_shot", description=f"evaluation protocol: {', '.join(PROTOCOLS)}")
    precision: Precision = Field("auto", description="autocast of the forward pass; auto: bf16 where the hardware gains by it")
    grid_rows: int = Field(12, ge=1, le=60, description="queries in the retrieval grid, taken from the classes in turn")
    seed: int = Field(0, ge=0, description="seed of the choice of the queries shown")


class Settings(Config):
    """Where the report is stored and logged."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")
    tracking: bool = Field(True, description="log the report to the run's MLflow run")
    experiment: str = Field(MLFLOW_EXPERIMENT, description="MLflow experiment")
