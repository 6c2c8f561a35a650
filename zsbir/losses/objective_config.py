"""The configuration of the objective, apart from it so that a command line can read it without loading torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zsbir.base import limits
from zsbir.base.config import Added, Config
from zsbir.model.choices import ClassifierStart, HeadPlace

Mining = Literal["hard", "semi_hard", "all", "soft"]
"""Which quadruplets of an anchor count (`zsbir.losses.quadruplet.quadruplet`)."""


class ObjectiveConfig(Config):
    """Weights, margins and forms of the losses."""

    weight_quadruplet: float = Field(1.0, ge=0, description="weight of the domain-aware quadruplet loss")
    weight_classification: float = Field(1.0, ge=0, description="weight of the semantic classification loss")
    weight_preservation: float = Field(0.3, ge=0, description="weight of the semantic knowledge preservation loss")
    margin_cross: float = Field(0.2, ge=0, description="quadruplet margin against negatives of the other domain")
    margin_same: float = Field(0.2, ge=0, description="quadruplet margin against negatives of the anchor's own domain")
    mining: Mining = Field(
        "hard",
        description="quadruplets of each anchor: the hardest, the hardest beyond its positive, all, or all weighed by hardness",
    )
    mining_temperature: Annotated[float, Added(neutral=0.1)] = Field(
        0.1, gt=0, description="soft mining: distance over which the weight of a pair falls; towards 0 the hardest alone counts"
    )
    quadruplet_memory: Annotated[int, Added(neutral=0)] = Field(
        0, ge=0, le=limits.MEMORY_BATCHES, description="past batches whose embeddings are positives and negatives too"
    )
    margin_ambiguity: Annotated[float, Added(neutral=0.0)] = Field(
        0.0, ge=0, le=1, description="share of the margins that the class about which the teacher is least sure loses; others less"
    )
    temperature: float = Field(0.05, gt=0, description="temperature of the cosine classifiers")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of the classification loss")
    classifier_start: Annotated[ClassifierStart, Added(neutral="random")] = Field(
        "random",
        description="first weights of the seen-class classifier: random; fixed: random and never trained; prototypes: the teacher's"
        " mean features of each class; fixed_prototypes: those and never trained",
    )
    preservation_place: HeadPlace = Field("embedding", description="where the teacher-label head sits")
    preservation_domains: Literal["both", "photo", "sketch"] = Field("both", description="domains taught by preservation")
    preservation_temperature: Annotated[float, Added(neutral=1.0)] = Field(
        1.0, gt=0, description="T of the student's softmax in preservation; the loss is multiplied by its square"
    )
    preservation_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="preservation weight over training: constant, or falling to zero along a cosine"
    )
