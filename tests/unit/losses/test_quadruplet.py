from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch

from zsbir.losses.objective_config import Mining
from zsbir.losses.quadruplet import Others, pairwise_distances, quadruplet

MININGS = get_args(Mining)
TEMPERATURE = 0.1
"""The default of soft mining."""


def batch(classes: int = 3, per_class: int = 2, dim: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = classes * 2 * per_class
    embeddings = torch.randn(size, dim, dtype=torch.float64, generator=generator)
    embeddings = embeddings / embeddings.norm(dim=1, keepdim=True)
    label = torch.arange(classes).repeat_interleave(2 * per_class)
    domain = torch.arange(2).repeat_interleave(per_class).repeat(classes)
    order = torch.randperm(size, generator=generator)
    return embeddings[order], label[order], domain[order]


def soft_hinge(positive, negatives, margin):
    far = TEMPERATURE * math.log(sum(math.exp(p / TEMPERATURE) for p in positive))
    near = -TEMPERATURE * math.log(sum(math.exp(-n / TEMPERATURE) for n in negatives))
    return TEMPERATURE * math.log(1 + math.exp((far - near + margin) / TEMPERATURE))


def semi_hard_hinge(positive, negatives, margin):
    beyond = [n for n in negatives if n > max(positive)]
    return max(0, max(positive) - min(beyond or negatives) + margin)


def mean_hinge(positive, negatives, margin):
    hinges = [max(0, p - n + margin) for p, n in itertools.product(positive, negatives)]
    return sum(hinges) / len(hinges)


SLOW_HINGES = {
    "hard": lambda positive, negatives, margin: max(0, max(positive) - min(negatives) + margin),
    "semi_hard": semi_hard_hinge,
    "all": mean_hinge,
    "soft": soft_hinge,
}


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
        hinge = SLOW_HINGES[mining]
        total += hinge(positive, cross, float(margin_cross[a])) + hinge(positive, same, float(margin_same[a]))
    return total / len(rows)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("margins", [(0.2, 0.2), (0.0, 0.7), (1.5, 0.1)])
@pytest.mark.parametrize("seed", range(4))
def test_equals_plain_loops_over_all_quadruplets(mining, margins, seed):
    embeddings, classes, domains = batch(seed=seed, classes=4, per_class=3)
    fast = quadruplet(embeddings, classes, domains, margin_cross=margins[0], margin_same=margins[1], mining=mining)
    cross, same = ([margin] * len(classes) for margin in margins)
    slow = slow_quadruplet(embeddings, classes, domains, cross, same, mining)
    assert fast.loss.item() == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("mining", MININGS)
def test_each_anchor_may_have_margins_of_its_own(mining):
    embeddings, classes, domains = batch(seed=5, classes=4, per_class=3)
    cross, same = torch.rand(2, len(classes), dtype=torch.float64)
    fast = quadruplet(embeddings, classes, domains, margin_cross=cross, margin_same=same, mining=mining)
    slow = slow_quadruplet(embeddings, classes, domains, cross, same, mining)
    assert fast.loss.item() == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("mining", MININGS)
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


def test_a_remembered_image_is_a_positive_and_a_negative_like_any_other_and_no_anchor():
    embeddings, classes, domains = batch(classes=6, per_class=2)
    now, before = slice(0, 12), slice(12, None)
    memory = Others(embeddings[before], classes[before], domains[before])
    found = quadruplet(embeddings[now], classes[now], domains[now], memory=memory, mining="all").loss.item()
    rows = embeddings.tolist()
    expected = 0.0
    for a in range(12):
        distance = [math.dist(rows[a], other) for other in rows]
        kinds = [(bool(classes[i] == classes[a]), bool(domains[i] == domains[a])) for i in range(len(rows))]
        positive, cross, same = (
            [d for d, k in zip(distance, kinds, strict=True) if k == kind] for kind in ((1, 0), (0, 0), (0, 1))
        )
        expected += mean_hinge(positive, cross, 0.2) + mean_hinge(positive, same, 0.2)
    assert found == pytest.approx(expected / 12)


def test_soft_mining_at_a_low_temperature_is_hard_mining():
    embeddings, classes, domains = batch(seed=2, classes=5)
    soft = quadruplet(embeddings, classes, domains, mining="soft", temperature=1e-4).loss.item()
    assert soft == pytest.approx(quadruplet(embeddings, classes, domains, mining="hard").loss.item(), abs=1e-3)


def test_all_quadruplets_of_a_large_batch_need_no_memory_by_its_cube():
    """768 images: every (anchor, positive, negative) at once would be 3.6 GB; the sorted form keeps tables of 768 x 768."""
    embeddings, classes, domains = batch(classes=96, per_class=4)
    embeddings = embeddings.float().requires_grad_()
    with torch.profiler.profile(profile_memory=True) as profile:
        quadruplet(embeddings, classes, domains, mining="all").loss.backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 20 * 768 * 768 * 8
