"""Semantic knowledge preservation: the student keeps predicting for a class what the teacher predicted for its photos.

Class-oriented targets prepared before training are the paper's; softmax with temperature, the weights per sample and where the
head sits are this project's choice.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def preservation(
    logits: Float[Tensor, "b t"],
    target: Float[Tensor, "b t"],
    sample_weight: Float[Tensor, "b"] | None = None,
    *,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Return the cross-entropy against soft labels: the weighted mean of -T^2 sum_k target_k log softmax(logits / T)_k.

    T is `temperature`. Its square keeps the size of the gradient as T grows (Hinton et al., 2015), where the targets were made with
    the same T.

    `target` rows are distributions: q of each sample's class. `sample_weight` (default: all one) chooses domains;
    where it sums to zero the loss is zero.
    """
    per_sample = -(temperature**2) * (target * (logits / temperature).log_softmax(dim=1)).sum(dim=1)
    if sample_weight is None:
        return per_sample.mean()
    return (per_sample * sample_weight).sum() / sample_weight.sum().clamp_min(1.0)
