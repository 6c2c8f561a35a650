"""Supervised contrastive loss (Khosla et al., NeurIPS 2020), as a baseline and as a further term."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zsbir.losses.baseline_config import SupConFields
from zsbir.losses.loss import Loss, LossBatch


class SupCon(Loss):
    """The mean over anchors of the mean over their positives of -log softmax, over all other images, of cosine / temperature.

    The paper's form with the sum outside the logarithm (its equation 2). Positives of the other domain alone are this project's
    choice, for sketches and photos.
    """

    Fields = SupConFields
    fields: SupConFields

    def forward(self, batch: LossBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss. Anchors without a positive in the batch do not count."""
        logits = batch.embeddings @ batch.embeddings.T / self.fields.supcon_temperature
        itself = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logs = logits.masked_fill(itself, -torch.inf).log_softmax(dim=1)
        positive = (batch.classes[:, None] == batch.classes) & ~itself
        if self.fields.supcon_positives == "other_domain":
            positive &= batch.domains[:, None] != batch.domains
        count = positive.sum(dim=1)
        per_anchor = -logs.masked_fill(~positive, 0).sum(dim=1) / count.clamp_min(1)
        return per_anchor.sum() / (count > 0).sum().clamp_min(1), {}
