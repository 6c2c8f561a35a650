"""Batch-hard triplet loss across domains (Hermans et al., 2017), as a baseline: the quadruplet without its second negative."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from zsbir.losses.baseline_config import TripletFields
from zsbir.losses.loss import Loss, LossBatch
from zsbir.losses.quadruplet import hard_hinges, pairwise_distances


class Triplet(Loss):
    """The mean over anchors of [d(a, farthest positive) - d(a, nearest negative) + margin]_+, both of the other domain."""

    Fields = TripletFields
    fields: TripletFields

    def forward(self, batch: LossBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss, and the share of anchors that violate the margin."""
        same_class = batch.classes[:, None] == batch.classes
        other_domain = batch.domains[:, None] != batch.domains
        hinges, violated = hard_hinges(
            pairwise_distances(batch.embeddings), same_class & other_domain, ~same_class & other_domain, self.fields.triplet_margin
        )
        return hinges.mean(), {"violate_frac": violated.mean()}
