"""The configuration of the objective, apart from it so that a command line can read it without loading torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from zsbir.base.config import Config
from zsbir.model.choices import HeadPlace

Mining = Literal["hard", "all"]
"""Which quadruplets of an anchor count: the hardest one, or the mean over all."""


class ObjectiveConfig(Config):
    """Weights, margins and forms of the losses: what sweeps vary."""

    weight_quadruplet: float = Field(1.0, ge=0, description="weight of the domain-aware quadruplet loss")
    weight_classification: float = Field(1.0, ge=0, description="weight of the semantic classification loss")
    weight_preservation: float = Field(0.3, ge=0, description="weight of the semantic knowledge preservation loss")
    margin_cross: float = Field(0.2, ge=0, description="quadruplet margin against negatives of the other domain")
    margin_same: float = Field(0.2, ge=0, description="quadruplet margin against negatives of the anchor's own domain")
    mining: Mining = Field("hard", description="quadruplets of each anchor: the hardest, or the mean over all")
    temperature: float = Field(0.05, gt=0, description="temperature of the cosine classifiers")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of the classification loss")
    preservation_place: HeadPlace = Field("embedding", description="where the teacher-label head sits")
    preservation_domains: Literal["both", "photo", "sketch"] = Field("both", description="domains taught by preservation")
    preservation_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="preservation weight over training: constant, or falling to zero along a cosine"
    )
