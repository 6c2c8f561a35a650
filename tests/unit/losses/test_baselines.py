"""The losses that the method is compared with, against plain loops over the formulas of their papers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from zsbir.base.config import Config
from zsbir.losses.loss import Loss, LossBatch, Shapes
from zsbir.losses.registry import loss_kind

SHAPES = Shapes(embedding_dim=6, feature_dim=4, classes=5)
NAMES = ("supcon", "proxy_anchor", "triplet", "multi_similarity")


def made(name: str, **fields) -> Loss:
    torch.manual_seed(3)
    loss_class = loss_kind(name).load()
    return loss_class(loss_class.Fields(**fields), SHAPES).double()


def batch(seed: int = 0, spread: float = 1.0) -> LossBatch:
    """Four of five classes, two sketches and two photos of each. spread: 0 lays every class on one point."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.tensor([0, 1, 3, 4]).repeat_interleave(4)
    centres = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    embeddings = normalize(centres[classes] + spread * torch.randn(16, 6, generator=generator, dtype=torch.float64), dim=1)
    return LossBatch(embeddings, torch.zeros(16, 4), classes, torch.tensor([0, 0, 1, 1]).repeat(4), torch.ones(16))


def cosines(batch: LossBatch) -> list[list[float]]:
    return (batch.embeddings @ batch.embeddings.T).tolist()


def slow_supcon(batch: LossBatch, temperature: float, positives: str) -> float:
    cosine, classes, domains = cosines(batch), batch.classes.tolist(), batch.domains.tolist()
    terms = []
    for a in range(16):
        others = [i for i in range(16) if i != a]
        mine = [i for i in others if classes[i] == classes[a] and (positives == "all" or domains[i] != domains[a])]
        below = sum(math.exp(cosine[a][i] / temperature) for i in others)
        terms.append(-sum(math.log(math.exp(cosine[a][p] / temperature) / below) for p in mine) / len(mine))
    return sum(terms) / len(terms)


def slow_proxy_anchor(batch: LossBatch, proxies: torch.Tensor, margin: float, scale: float) -> float:
    cosine = (batch.embeddings @ normalize(proxies, dim=1).T).tolist()
    classes = batch.classes.tolist()
    pull = push = 0.0
    for proxy in range(5):
        own = [cosine[i][proxy] for i in range(16) if classes[i] == proxy]
        if own:
            pull += math.log(1 + sum(math.exp(-scale * (s - margin)) for s in own)) / len(set(classes))
        push += math.log(1 + sum(math.exp(scale * (cosine[i][proxy] + margin)) for i in range(16) if classes[i] != proxy)) / 5
    return pull + push


def slow_triplet(batch: LossBatch, margin: float) -> float:
    rows, classes, domains = batch.embeddings.tolist(), batch.classes.tolist(), batch.domains.tolist()
    total = 0.0
    for a in range(16):
        across = [(math.dist(rows[a], rows[i]), classes[i] == classes[a]) for i in range(16) if domains[i] != domains[a]]
        total += max(0, max(d for d, mine in across if mine) - min(d for d, mine in across if not mine) + margin)
    return total / 16


def slow_multi_similarity(batch: LossBatch, up: float, down: float, threshold: float, margin: float) -> float:
    cosine, classes = cosines(batch), batch.classes.tolist()
    total = 0.0
    for a in range(16):
        positive = [cosine[a][i] for i in range(16) if i != a and classes[i] == classes[a]]
        negative = [cosine[a][i] for i in range(16) if classes[i] != classes[a]]
        pulled = [s for s in positive if s - margin < max(negative)]
        pushed = [s for s in negative if s + margin > min(positive)]
        total += math.log(1 + sum(math.exp(-up * (s - threshold)) for s in pulled)) / up
        total += math.log(1 + sum(math.exp(down * (s - threshold)) for s in pushed)) / down
    return total / 16


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [0.2, 1.0])
@pytest.mark.parametrize("positives", ["all", "other_domain"])
def test_supcon(seed, spread, positives):
    ours = made("supcon", supcon_temperature=0.2, supcon_positives=positives)
    given = batch(seed, spread)
    assert ours(given)[0].item() == pytest.approx(slow_supcon(given, 0.2, positives))


@pytest.mark.parametrize("seed", range(3))
def test_proxy_anchor(seed):
    ours = made("proxy_anchor", proxy_anchor_margin=0.2, proxy_anchor_scale=16.0)
    given = batch(seed)
    assert ours(given)[0].item() == pytest.approx(slow_proxy_anchor(given, ours.proxies, 0.2, 16.0))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [0.2, 1.0])
def test_triplet(seed, spread):
    given = batch(seed, spread)
    assert made("triplet", triplet_margin=0.3)(given)[0].item() == pytest.approx(slow_triplet(given, 0.3), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [0.0, 0.2, 1.0])
def test_multi_similarity(seed, spread):
    given = batch(seed, spread)
    expected = slow_multi_similarity(given, 2.0, 50.0, 0.5, 0.1)
    assert made("multi_similarity")(given)[0].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_gradient_is_that_of_finite_differences(name, spread):
    loss, given = made(name), batch(spread=spread)
    noise = 1e-3 * torch.randn(16, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)  # equal points have no side
    raw = (given.embeddings + noise).requires_grad_()
    assert torch.autograd.gradcheck(lambda raw: loss(given._replace(embeddings=normalize(raw, dim=1)))[0], raw, atol=1e-5)


@pytest.mark.parametrize("name", ["supcon", "proxy_anchor", "multi_similarity"])
def test_a_batch_of_one_class_has_a_finite_loss(name):
    given = batch()._replace(classes=torch.zeros(16, dtype=torch.long))
    loss, _ = made(name)(given)
    assert torch.isfinite(loss)


def test_the_proxies_learn_faster_than_the_new_layers():
    assert made("proxy_anchor").rate_factor == 100
    assert made("proxy_anchor", proxy_anchor_rate_factor=10).rate_factor == 10


def test_fields_are_those_of_a_configuration():
    assert all(issubclass(loss_kind(name).load().Fields, Config) for name in NAMES)
