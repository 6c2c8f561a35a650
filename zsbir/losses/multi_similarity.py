"""Multi-similarity loss (Wang et al., CVPR 2019), as a baseline and as a further term."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from zsbir.losses.baseline_config import MultiSimilarityFields
from zsbir.losses.loss import Loss, LossBatch


class MultiSimilarity(Loss):
    """Pairs of a batch, mined by their hardest opposite and weighed by how hard they are, of both domains together.

    A positive counts if it is less similar than the most similar negative plus the margin, a negative if it is more similar than
    the least similar positive minus the margin (the paper's equations 11 to 15).
    """

    Fields = MultiSimilarityFields
    fields: MultiSimilarityFields

    def forward(self, batch: LossBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss: the mean over all anchors, zero for those without pairs that count."""
        fields, cosine = self.fields, batch.embeddings @ batch.embeddings.T
        itself = torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
        same = batch.classes[:, None] == batch.classes
        positive, negative = same & ~itself, ~same
        with torch.no_grad():
            hardest_negative = cosine.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)
            hardest_positive = cosine.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
            positive &= cosine - fields.multi_similarity_margin < hardest_negative
            negative &= cosine + fields.multi_similarity_margin > hardest_positive
        away = cosine - fields.multi_similarity_threshold
        pull = _log_1_sum(-fields.multi_similarity_scale_positive * away, positive) / fields.multi_similarity_scale_positive
        push = _log_1_sum(fields.multi_similarity_scale_negative * away, negative) / fields.multi_similarity_scale_negative
        return (pull + push).mean(), {"pairs": (positive.sum() + negative.sum()) / len(cosine)}


def _log_1_sum(exponents: Float[Tensor, "b b"], counted: Tensor) -> Float[Tensor, "b"]:
    """Return log(1 + sum exp) of the counted numbers of each row; 0 for a row without any."""
    nothing = ~counted.any(dim=1, keepdim=True)
    return softplus(exponents.masked_fill(~counted, -torch.inf).masked_fill(nothing, -1e4).logsumexp(dim=1))
