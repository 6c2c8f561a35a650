from __future__ import annotations

import itertools
import math

import pytest
import torch

from zsbir.losses.quadruplet import pairwise_distances, quadruplet


def batch(classes: int = 3, per_class: int = 2, dim: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = classes * 2 * per_class
    embeddings = torch.randn(size, dim, dtype=torch.float64, generator=generator)
    embeddings = embeddings / embeddings.norm(dim=1, keepdim=True)
    label = torch.arange(classes).repeat_interleave(2 * per_class)
    domain = torch.arange(2).repeat_interleave(per_class).repeat(classes)
    order = torch.randperm(size, generator=generator)
    return embeddings[order], label[order], domain[order]


def slow_quadruplet(embeddings, classes, domains, margin_cross, margin_same, mining):
    """Every anchor, positive and negative in plain loops, distances by coordinates."""
    rows, labels, sides = embeddings.tolist(), classes.tolist(), domains.tolist()
    total = 0.0
    for a in range(len(rows)):
        distance = [math.dist(rows[a], other) for other in rows]
        others = range(len(rows))
        positive = [distance[i] for i in others if labels[i] == labels[a] and sides[i] != sides[a]]
        cross = [distance[i] for i in others if labels[i] != labels[a] and sides[i] != sides[a]]
        same = [distance[i] for i in others if labels[i] != labels[a] and sides[i] == sides[a]]
        if mining == "hard":
            total += max(0, max(positive) - min(cross) + margin_cross) + max(0, max(positive) - min(same) + margin_same)
        else:
            for negatives, margin in ((cross, margin_cross), (same, margin_same)):
                hinges = [max(0, p - n + margin) for p, n in itertools.product(positive, negatives)]
                total += sum(hinges) / len(hinges)
    return total / len(rows)


@pytest.mark.parametrize("mining", ["hard", "all"])
@pytest.mark.parametrize("margins", [(0.2, 0.2), (0.0, 0.7), (1.5, 0.1)])
@pytest.mark.parametrize("seed", range(4))
def test_equals_plain_loops_over_all_quadruplets(mining, margins, seed):
    embeddings, classes, domains = batch(seed=seed, classes=4, per_class=3)
    fast = quadruplet(embeddings, classes, domains, margin_cross=margins[0], margin_same=margins[1], mining=mining)
    slow = slow_quadruplet(embeddings, classes, domains, margins[0], margins[1], mining)
    assert fast.loss.item() == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_gradient_is_that_of_finite_differences(mining):
    embeddings, classes, domains = batch(seed=3)

    def loss(raw):
        return quadruplet(torch.nn.functional.normalize(raw, dim=1), classes, domains, mining=mining).loss

    assert torch.autograd.gradcheck(loss, embeddings.clone().requires_grad_(), atol=1e-6)


def test_distances_at_known_angles():
    angles = torch.tensor([0.0, math.pi / 3, math.pi / 2, math.pi], dtype=torch.float64)
    points = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert pairwise_distances(points)[0, 1:].tolist() == pytest.approx([1.0, math.sqrt(2), 2.0])


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_perfect_clusters_cost_nothing_and_violate_nothing(mining):
    label, domain = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    result = quadruplet(torch.eye(2)[label], label, domain, mining=mining)
    assert result.loss == 0
    assert result.violate_cross_frac == result.violate_same_frac == 0
    assert result.distance_negative_cross == pytest.approx(math.sqrt(2))


def test_domains_apart_violate_the_same_domain_margin_only_against_their_own():
    """Sketches at one pole, photos at the other: the own-domain negative is at distance 0, the positive at 2."""
    label, domain = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    poles = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])[domain]
    result = quadruplet(poles, label, domain, margin_cross=0.2, margin_same=0.2)
    assert result.violate_same_frac == 1
    assert result.loss.item() == pytest.approx(0.2 + 2.2, abs=1e-3)


def test_identical_embeddings_have_a_finite_gradient():
    raw = torch.ones(8, 4, requires_grad=True)
    label, domain = torch.arange(2).repeat_interleave(4), torch.arange(2).repeat(4)
    quadruplet(torch.nn.functional.normalize(raw, dim=1), label, domain).loss.backward()
    assert torch.isfinite(raw.grad).all()


def test_shapes_that_do_not_fit_are_refused():
    embeddings, classes, domains = batch()
    with pytest.raises(Exception, match=r"classes|domains"):
        quadruplet(embeddings, classes[:-1], domains)
