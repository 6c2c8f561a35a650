"""The weighted sum of the three losses over the global batch, and what it reports of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from zsbir.base.errors import InputError
from zsbir.data.domains import DOMAINS
from zsbir.losses.classification import classification
from zsbir.losses.loss import Loss, LossBatch
from zsbir.losses.memory import Memory
from zsbir.losses.objective_config import ObjectiveConfig
from zsbir.losses.preservation import preservation
from zsbir.losses.quadruplet import quadruplet
from zsbir.model.encoder import Encoded
from zsbir.model.heads import Heads


class Objective(nn.Module):
    """L = w_quad L_quad + w_cls L_cls + w_skp L_skp over gathered embeddings, plus each further loss times its weight.

    class_index: maps a data set's class id to its row in the classifier, -1 for classes not trained on.
    knowledge: per trained class the teacher's distribution, or None where nothing asks for it.
    further: losses by name, each with its weight. memory: of past batches, for the quadruplet loss.
    """

    class_index: Tensor
    knowledge: Tensor
    margin_share: Tensor | None

    def __init__(
        self,
        config: ObjectiveConfig,
        heads: Heads,
        class_index: Int[Tensor, "ids"],
        knowledge: Float[Tensor, "c t"] | None,
        *,
        further: Mapping[str, tuple[float, Loss]] | None = None,
        memory: Memory | None = None,
    ):
        super().__init__()
        self.config, self.heads = config, heads
        # With a prefix, since a ModuleDict refuses what its own methods are called, such as "update".
        self.further = nn.ModuleDict({f"loss_{name}": loss for name, (_, loss) in (further or {}).items()})
        self.memory = memory
        self._weights = {name: weight for name, (weight, _) in (further or {}).items()}
        self.register_buffer("class_index", class_index, persistent=False)
        self.register_buffer("knowledge", torch.empty(0) if knowledge is None else knowledge, persistent=False)
        shares = margin_shares(knowledge, config.margin_ambiguity) if knowledge is not None and config.margin_ambiguity else None
        self.register_buffer("margin_share", shares, persistent=False)

    def forward(
        self,
        encoded: Encoded,
        class_id: Int[Tensor, "b"],
        domain: Int[Tensor, "b"],
        progress: float = 0.0,
        images: UInt8[Tensor, "b 3 h w"] | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the total, and each term and figure by name without gradient. `progress`: share of the training done, 0 to 1.

        images: for further losses that read them.

        Every term is computed and reported, those of weight zero included; preservation where the heads have one for it.
        """
        config = self.config
        classes = self.class_index[class_id]
        class_logits, teacher_logits = self.heads(encoded)
        share = 1.0 if self.margin_share is None else self.margin_share[classes]
        quad = quadruplet(
            encoded.embeddings,
            classes,
            domain,
            margin_cross=config.margin_cross * share,
            margin_same=config.margin_same * share,
            mining=config.mining,
            temperature=config.mining_temperature,
            memory=self.memory.read() if self.memory else None,
        )
        semantic = classification(class_logits, classes, label_smoothing=config.label_smoothing)
        total = config.weight_quadruplet * quad.loss + config.weight_classification * semantic
        figures = {"loss_quadruplet": quad.loss, "loss_classification": semantic}
        if teacher_logits is not None:
            kept = preservation(
                teacher_logits, self.knowledge[classes], self._taught(domain), temperature=config.preservation_temperature
            )
            total = total + config.weight_preservation * self._schedule(progress) * kept
            figures["loss_preservation"] = kept
        batch = LossBatch(encoded.embeddings, encoded.features, classes, domain, encoded.lengths, progress, images)
        for (name, weight), loss in zip(self._weights.items(), self.further.values(), strict=True):
            term, more = _numbers(name, *loss(batch))
            total = total + weight * term
            figures |= {f"loss_{name}": term, **{f"{name}_{figure}": value for figure, value in more.items()}}
        if self.memory and self.training:
            self.memory.write(encoded.embeddings, classes, domain)
        figures |= {"loss": total, **dict(zip(quad._fields[1:], quad[1:], strict=True))}
        return total, {name: value.detach() for name, value in figures.items()}

    def learned(self) -> dict[str, nn.Module]:
        """Return what belongs into a checkpoint, by name."""
        parts: dict[str, nn.Module | None] = {"heads": self.heads, "further": self.further or None, "memory": self.memory}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def reads_images(self) -> bool:
        """Whether a further loss reads the images of a batch."""
        return any(loss.reads_images for loss in self.further.values())

    def _taught(self, domain: Int[Tensor, "b"]) -> Float[Tensor, "b"] | None:
        if self.config.preservation_domains == "both":
            return None
        return (domain == DOMAINS.index(self.config.preservation_domains)).float()

    def _schedule(self, progress: float) -> float:
        return 1.0 if self.config.preservation_schedule == "constant" else 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def margin_shares(knowledge: Float[Tensor, "c t"], ambiguity: float) -> Float[Tensor, "c"]:
    """Return the share of the margins that each class keeps: 1 where the teacher is surest, 1 - `ambiguity` where it is least sure.

    How sure it is, is the entropy of the class's distribution; in between the share falls with it linearly (this project's choice).
    """
    entropy = torch.special.entr(knowledge.double()).sum(dim=1)
    doubt = (entropy - entropy.min()) / (entropy.max() - entropy.min()).clamp_min(1e-9)
    shares: Float[Tensor, "c"] = 1 - ambiguity * doubt
    return shares.to(knowledge.dtype)


def _numbers(name: str, term: Any, figures: Mapping[str, Any]) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return what a further loss has computed. Raises InputError where it is not one number each."""
    values = {"the loss": term, **{f"its figure {figure!r}": value for figure, value in figures.items()}}
    tensors = {what: torch.as_tensor(value) for what, value in values.items()}
    wrong = next((what for what, tensor in tensors.items() if tensor.numel() != 1), None)
    if wrong is not None:
        raise InputError(f"the loss {name!r}: {wrong} has the shape {tuple(tensors[wrong].shape)}, and must be one number")
    first, *others = (tensor.reshape(()) for tensor in tensors.values())
    return first, dict(zip(figures, others, strict=True))
