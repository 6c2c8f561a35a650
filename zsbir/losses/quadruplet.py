"""Domain-aware quadruplet loss: a positive from the other domain, a negative from either domain.

The idea is the paper's; the formula, the margins and the mining are this project's choice (docs/method.md).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zsbir.losses.objective_config import Mining


class Quadruplets(NamedTuple):
    """The loss, and what it says of the batch: shares of anchors in violation, mean distances (all scalars, no gradient)."""

    loss: Tensor
    violate_cross_frac: Tensor
    violate_same_frac: Tensor
    distance_positive: Tensor
    distance_negative_cross: Tensor
    distance_negative_same: Tensor


def pairwise_distances(embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b b"]:
    """Euclidean distances between unit vectors, by d^2 = 2 - 2 cos.

    Clamped at 1e-4, since the root's gradient is infinite at zero: there the gradient is zero instead.
    """
    cosine = embeddings @ embeddings.T
    return (2 - 2 * cosine).clamp_min(1e-8).sqrt()


def quadruplet(
    embeddings: Float[Tensor, "b d"],
    classes: Int[Tensor, "b"],
    domains: Int[Tensor, "b"],
    *,
    margin_cross: float = 0.2,
    margin_same: float = 0.2,
    mining: Mining = "hard",
) -> Quadruplets:
    """L = mean over anchors of [d(a,p) - d(a,n_x) + m_cross]_+ + [d(a,p) - d(a,n_s) + m_same]_+.

    p: a's class, other domain. n_x: other class, other domain. n_s: other class, own domain. `hard` takes the farthest p and
    the nearest negatives of each anchor; `all` takes the mean over every (p, n) of each anchor. Embeddings are unit vectors;
    every anchor needs at least one p, n_x and n_s in the batch, which the batch plan guarantees.
    """
    distances = pairwise_distances(embeddings)
    same_class = classes[:, None] == classes[None, :]
    same_domain = domains[:, None] == domains[None, :]
    positive, cross, same = same_class & ~same_domain, ~same_class & ~same_domain, ~same_class & same_domain
    hinges = _hard_hinges if mining == "hard" else _all_hinges
    hinge_cross, violate_cross = hinges(distances, positive, cross, margin_cross)
    hinge_same, violate_same = hinges(distances, positive, same, margin_same)
    with torch.no_grad():
        means = [distances[mask].mean() for mask in (positive, cross, same)]
    return Quadruplets((hinge_cross + hinge_same).mean(), violate_cross.mean(), violate_same.mean(), *means)


def _hard_hinges(
    distances: Float[Tensor, "b b"], positive: Bool[Tensor, "b b"], negative: Bool[Tensor, "b b"], margin: float
) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
    """Per anchor: the hinge at the farthest positive and the nearest negative, and whether it is violated (1 or 0)."""
    farthest = distances.masked_fill(~positive, -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(~negative, torch.inf).amin(dim=1)
    hinge = (farthest - nearest + margin).clamp_min(0)
    return hinge, (hinge.detach() > 0).to(hinge.dtype)


def _all_hinges(
    distances: Float[Tensor, "b b"], positive: Bool[Tensor, "b b"], negative: Bool[Tensor, "b b"], margin: float
) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
    """Per anchor: the mean hinge over all its (positive, negative) pairs, and the share of those in violation."""
    hinge = (distances[:, :, None] - distances[:, None, :] + margin).clamp_min(0)
    pairs = (positive[:, :, None] & negative[:, None, :]).to(hinge.dtype)
    count = pairs.sum(dim=(1, 2))
    return (hinge * pairs).sum(dim=(1, 2)) / count, ((hinge.detach() > 0) * pairs).sum(dim=(1, 2)) / count
