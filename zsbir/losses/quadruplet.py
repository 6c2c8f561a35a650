"""Domain-aware quadruplet loss: a positive from the other domain, a negative from either domain.

The idea is the paper's; the formula, the margins and the mining are this project's choice (docs/method.md).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from zsbir.losses.objective_config import Mining

Hinges = tuple[Float[Tensor, "b"], Float[Tensor, "b"]]
"""Of each anchor: the hinge, and whether it is violated, or the share of its pairs that do."""


Margin = float | Float[Tensor, "b"]
"""A margin for all anchors, or one for each."""


class Others(NamedTuple):
    """Images that are compared with the anchors of a batch and are no anchors themselves, as those of past batches."""

    embeddings: Float[Tensor, "m d"]
    classes: Int[Tensor, "m"]
    domains: Int[Tensor, "m"]


class Quadruplets(NamedTuple):
    """The loss, and figures of the batch: shares of anchors in violation, mean distances (all scalars, no gradient)."""

    loss: Tensor
    violate_cross_frac: Tensor
    violate_same_frac: Tensor
    distance_positive: Tensor
    distance_negative_cross: Tensor
    distance_negative_same: Tensor


def pairwise_distances(embeddings: Float[Tensor, "b d"], others: Float[Tensor, "m d"] | None = None) -> Float[Tensor, "b m"]:
    """Return Euclidean distances between unit vectors, by d^2 = 2 - 2 cos. others: None for the same vectors.

    Clamped at 1e-4, since the root's gradient is infinite at zero: there the gradient is zero instead.
    """
    cosine = embeddings @ (embeddings if others is None else others).T
    return (2 - 2 * cosine).clamp_min(1e-8).sqrt()


def quadruplet(
    embeddings: Float[Tensor, "b d"],
    classes: Int[Tensor, "b"],
    domains: Int[Tensor, "b"],
    *,
    margin_cross: Margin = 0.2,
    margin_same: Margin = 0.2,
    mining: Mining = "hard",
    temperature: float = 0.1,
    memory: Others | None = None,
) -> Quadruplets:
    """Compute L = mean over anchors of [d(a,p) - d(a,n_x) + m_cross]_+ + [d(a,p) - d(a,n_s) + m_same]_+.

    p: a's class, other domain. n_x: other class, other domain. n_s: other class, own domain. Embeddings are unit vectors; every
    anchor needs at least one p, n_x and n_s in the batch, which the batch plan guarantees. memory: further images to choose p, n_x
    and n_s from. mining:

    hard        the farthest p and the nearest negatives of each anchor
    semi_hard   the farthest p, and the nearest negatives that are farther still; the nearest of all where none is
    all         the mean over every (p, n) of each anchor
    soft        every p and n, weighed by how hard they are: `temperature` times the logarithm of summed exponentials in place of
                the largest and the smallest distance, and of 1 + exp in place of [ ]_+; towards 0 the same as `hard`
    """
    pool = Others(embeddings, classes, domains)
    if memory is not None:
        pool = Others(*(torch.cat(pair) for pair in zip(pool, memory, strict=True)))
    distances = pairwise_distances(embeddings, pool.embeddings)
    same_class = classes[:, None] == pool.classes[None, :]
    same_domain = domains[:, None] == pool.domains[None, :]
    positive, cross, same = same_class & ~same_domain, ~same_class & ~same_domain, ~same_class & same_domain

    def hinges(negative: Bool[Tensor, "b m"], margin: Margin) -> Hinges:
        if mining == "soft":
            return soft_hinges(distances, positive, negative, margin, temperature)
        return {"hard": hard_hinges, "semi_hard": semi_hard_hinges, "all": all_hinges}[mining](
            distances, positive, negative, margin
        )

    hinge_cross, violate_cross = hinges(cross, margin_cross)
    hinge_same, violate_same = hinges(same, margin_same)
    with torch.no_grad():
        means = [distances[mask].mean() for mask in (positive, cross, same)]
    return Quadruplets((hinge_cross + hinge_same).mean(), violate_cross.mean(), violate_same.mean(), *means)


def hard_hinges(
    distances: Float[Tensor, "b m"], positive: Bool[Tensor, "b m"], negative: Bool[Tensor, "b m"], margin: Margin
) -> Hinges:
    """Return per anchor the hinge at the farthest positive and the nearest negative, and whether it is violated (1 or 0)."""
    farthest = distances.masked_fill(~positive, -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(~negative, torch.inf).amin(dim=1)
    return _hinge(farthest - nearest + margin)


def semi_hard_hinges(
    distances: Float[Tensor, "b m"], positive: Bool[Tensor, "b m"], negative: Bool[Tensor, "b m"], margin: Margin
) -> Hinges:
    """Return per anchor the hinge at the farthest positive and the nearest negative beyond it (Schroff et al., CVPR 2015).

    Where no negative is farther than the farthest positive, the nearest of all counts.
    """
    farthest = distances.masked_fill(~positive, -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(~negative, torch.inf).amin(dim=1)
    beyond = distances.masked_fill(~negative | (distances <= farthest[:, None]), torch.inf).amin(dim=1)
    return _hinge(farthest - torch.where(beyond.isinf(), nearest, beyond) + margin)


def soft_hinges(
    distances: Float[Tensor, "b m"],
    positive: Bool[Tensor, "b m"],
    negative: Bool[Tensor, "b m"],
    margin: Margin,
    temperature: float,
) -> Hinges:
    """Return per anchor a hinge to which all its positives and negatives contribute, by how hard they are.

    The gradient is shared out by two softmaxes, so no single pair, perhaps a wrong label, takes all of it.
    """
    far = temperature * (distances / temperature).masked_fill(~positive, -torch.inf).logsumexp(dim=1)
    near = -temperature * (-distances / temperature).masked_fill(~negative, -torch.inf).logsumexp(dim=1)
    away = far - near + margin
    return temperature * softplus(away / temperature), (away.detach() > 0).to(away.dtype)


def all_hinges(
    distances: Float[Tensor, "b m"], positive: Bool[Tensor, "b m"], negative: Bool[Tensor, "b m"], margin: Margin
) -> Hinges:
    """Return per anchor the mean hinge over all its (positive, negative) pairs, and the share of those in violation.

    The negatives of an anchor are sorted once: those that violate a positive's margin are the first ones, and their distances are
    a running sum. So memory and time grow with the square of the batch and its logarithm, not with its cube.
    """
    negatives = distances.masked_fill(~negative, torch.inf).sort(dim=1).values
    sums = negatives.masked_fill(negatives.isinf(), 0).cumsum(dim=1)
    margin = margin[:, None] if isinstance(margin, Tensor) else margin
    reach = (distances.detach() + margin).contiguous()
    violating = torch.searchsorted(negatives.detach().contiguous(), reach)  # how many lie below d(a, p) + margin
    violated = sums.gather(1, (violating - 1).clamp_min(0))
    hinge = (violating * (distances + margin) - violated) * (positive & (violating > 0))
    pairs = positive.sum(dim=1) * negative.sum(dim=1)
    return hinge.sum(dim=1) / pairs, (violating * positive).sum(dim=1) / pairs


def _hinge(away: Float[Tensor, "b"]) -> Hinges:
    hinge = away.clamp_min(0)
    return hinge, (hinge.detach() > 0).to(hinge.dtype)
