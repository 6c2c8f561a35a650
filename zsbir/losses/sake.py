"""The objective of SAKE (Liu et al., ICCV 2019), as a baseline: classification, and a teacher that is asked about every photo."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zsbir.base.config import Config
from zsbir.data.domains import DOMAINS
from zsbir.losses.baseline_config import SakeFields
from zsbir.losses.loss import Loss, LossBatch, Shapes
from zsbir.losses.preservation import preservation
from zsbir.model.backbones import network_of, split
from zsbir.model.encoder import Normalise
from zsbir.model.weights import open_weights


class Sake(Loss):
    """Cross-entropy over the seen classes, plus that against the teacher's own labels for each photo, by two linear heads.

    Both stand on the embedding before it is a unit vector. Without the similarities of WordNet by which the paper weighs the
    teacher's labels, and with one network for both domains, without its domain indicator: so this is its objective in our network.
    """

    Fields = SakeFields
    fields: SakeFields
    reads_images = True

    def __init__(self, fields: Config, shapes: Shapes):
        super().__init__(fields, shapes)
        weights = open_weights(self.fields.sake_teacher, backbone=self.fields.sake_backbone)
        kind = network_of(self.fields.sake_backbone)
        whole = kind.build(len(weights.labels))
        whole.load_state_dict(weights.state)
        trunk, last = split(whole.eval().requires_grad_(False), kind.classifier)
        # A tuple hides the teacher from the module: it is not trained, and checkpoints need not hold it.
        self._teacher = (nn.Sequential(Normalise(kind.mean, kind.std), trunk, last).eval(),)
        self.classifier = nn.Linear(shapes.embedding_dim, shapes.classes)
        self.preserver = nn.Linear(shapes.embedding_dim, len(weights.labels))

    def forward(self, batch: LossBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss, and its two terms."""
        assert batch.images is not None, "the batch of a loss with `reads_images` has its images"
        raw = batch.embeddings * batch.lengths[:, None]
        known = cross_entropy(self.classifier(raw), batch.classes)
        photo = batch.domains == DOMAINS.index("photo")
        kept = preservation(self.preserver(raw[photo]), self._asked(batch.images[photo]), temperature=self.fields.sake_temperature)
        return known + self.fields.sake_preservation * kept, {"classification": known, "preservation": kept}

    @torch.no_grad()
    def _asked(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n t"]:
        teacher = self._teacher[0].to(images.device).eval()
        logits: Tensor = teacher(images)
        return (logits.float() / self.fields.sake_temperature).softmax(dim=1)
