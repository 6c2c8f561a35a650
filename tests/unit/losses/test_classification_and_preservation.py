from __future__ import annotations

import math

import pytest
import torch

from zsbir.losses.classification import classification
from zsbir.losses.preservation import preservation


def log_softmax(row):
    top = max(row)
    total = math.log(sum(math.exp(value - top) for value in row)) + top
    return [value - total for value in row]


@pytest.fixture
def logits():
    return torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_classification_equals_a_plain_loop(logits, smoothing):
    classes = torch.tensor([0, 1, 2, 3, 4, 0])
    slow = 0.0
    for row, label in zip(logits.tolist(), classes.tolist(), strict=True):
        logs = log_softmax(row)
        target = [smoothing / 5 + (1 - smoothing) * (k == label) for k in range(5)]
        slow -= sum(t * log for t, log in zip(target, logs, strict=True))
    assert classification(logits, classes, label_smoothing=smoothing).item() == pytest.approx(slow / 6, abs=1e-12)


@pytest.mark.parametrize("weights", [None, [1, 0, 1, 0, 1, 1], [0] * 6])
def test_preservation_equals_a_plain_loop(logits, weights):
    target = torch.rand(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    target = target / target.sum(dim=1, keepdim=True)
    slow, total = 0.0, 0.0
    for row, goal, weight in zip(logits.tolist(), target.tolist(), weights or [1] * 6, strict=True):
        slow -= weight * sum(q * log for q, log in zip(goal, log_softmax(row), strict=True))
        total += weight
    sample_weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    assert preservation(logits, target, sample_weight).item() == pytest.approx(slow / max(total, 1), abs=1e-12)


def test_gradients_are_those_of_finite_differences(logits):
    target = torch.rand(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).softmax(dim=1)
    raw = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: preservation(x, target), raw)
    assert torch.autograd.gradcheck(lambda x: classification(x, torch.tensor([0, 1, 2, 3, 4, 0]), label_smoothing=0.1), raw)


def test_preservation_is_least_where_the_student_says_what_the_teacher_said():
    target = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
    same = preservation(target.log(), target).item()
    assert same == pytest.approx(-sum(q * math.log(q) for q in (0.7, 0.2, 0.1)))
    assert preservation(torch.zeros(1, 3, dtype=torch.float64), target).item() > same
