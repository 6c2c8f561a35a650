"""Measurements: ratios within one run against a stated limit, printed with what they were measured on. Run by `make bench`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

import jaxtyping
import pytest
from bench.machine import described


@pytest.fixture(autouse=True, scope="session")
def no_shape_checks() -> Iterator[None]:
    """What is measured runs as it does in production: there nobody checks the shapes of annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def rate(work: Callable[[], int]) -> float:
    """Items a second of one call."""
    began = time.perf_counter()
    items = work()
    return items / (time.perf_counter() - began)


@pytest.fixture
def ratio() -> Callable[..., float]:
    """Ratio of two rates, measured in turn so that a noisy machine disturbs both alike; the median of the rounds."""

    def measure(name: str, ours: Callable[[], int], bare: Callable[[], int], *, rounds: int = 5) -> float:
        pairs = [(rate(ours), rate(bare)) for _ in range(rounds)]
        value = median(a / b for a, b in pairs)
        middle = tuple(median(column) for column in zip(*pairs, strict=True))
        print(f"\n{name}: {value:.2f} of the bare rate ({middle[0]:.1f} against {middle[1]:.1f} a second, {rounds} rounds)")
        print(described())
        return value

    return measure
