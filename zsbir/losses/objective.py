"""The weighted sum of the three losses over the global batch, and what it reports of each."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from zsbir.base.config import Config
from zsbir.data.schema import DOMAINS
from zsbir.losses.classification import classification
from zsbir.losses.preservation import preservation
from zsbir.losses.quadruplet import Mining, quadruplet
from zsbir.model.heads import HeadPlace, Heads


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


class Objective(nn.Module):
    """L = w_quad L_quad + w_cls L_cls + w_skp L_skp over gathered embeddings.

    class_index: maps a data set's class id to its row in the classifier, -1 for classes not trained on.
    knowledge: per trained class the teacher's distribution, or None where preservation has no weight.
    """

    class_index: Tensor
    knowledge: Tensor

    def __init__(
        self,
        config: ObjectiveConfig,
        heads: Heads | nn.Module,
        class_index: Int[Tensor, "ids"],
        knowledge: Float[Tensor, "c t"] | None,
    ):
        super().__init__()
        self.config, self.heads = config, heads
        self.register_buffer("class_index", class_index, persistent=False)
        self.register_buffer("knowledge", torch.empty(0) if knowledge is None else knowledge, persistent=False)

    def forward(
        self,
        embeddings: Float[Tensor, "b d"],
        features: Float[Tensor, "b f"],
        class_id: Int[Tensor, "b"],
        domain: Int[Tensor, "b"],
        progress: float = 0.0,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """(the total, each term and figure by name without gradient). `progress`: share of the training done, 0 to 1.

        Every term is computed and reported, those of weight zero included; preservation where the heads have one for it.
        """
        config = self.config
        classes = self.class_index[class_id]
        class_logits, teacher_logits = self.heads(embeddings, features)
        quad = quadruplet(
            embeddings,
            classes,
            domain,
            margin_cross=config.margin_cross,
            margin_same=config.margin_same,
            mining=config.mining,
        )
        semantic = classification(class_logits, classes, label_smoothing=config.label_smoothing)
        total = config.weight_quadruplet * quad.loss + config.weight_classification * semantic
        figures = {"loss_quadruplet": quad.loss, "loss_classification": semantic}
        if teacher_logits is not None:
            kept = preservation(teacher_logits, self.knowledge[classes], self._taught(domain))
            total = total + config.weight_preservation * self._schedule(progress) * kept
            figures["loss_preservation"] = kept
        figures |= {"loss": total, **dict(zip(quad._fields[1:], quad[1:], strict=True))}
        return total, {name: value.detach() for name, value in figures.items()}

    def _taught(self, domain: Int[Tensor, "b"]) -> Float[Tensor, "b"] | None:
        if self.config.preservation_domains == "both":
            return None
        return (domain == DOMAINS.index(self.config.preservation_domains)).float()

    def _schedule(self, progress: float) -> float:
        return 1.0 if self.config.preservation_schedule == "constant" else 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
