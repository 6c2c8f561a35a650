"""The weighted sum of the three losses over the global batch, and what it reports of each."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zsbir.data.domains import DOMAINS
from zsbir.losses.classification import classification
from zsbir.losses.objective_config import ObjectiveConfig
from zsbir.losses.preservation import preservation
from zsbir.losses.quadruplet import quadruplet
from zsbir.model.heads import Heads


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
