"""A cluster of several machines for a file's tests, and trainings on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers.cluster import Box, Training, box, reason_why_not

from zsbir import artifacts


@pytest.fixture(scope="module")
def machines() -> Iterator[Box]:
    """A head and three nodes with a store beside them, none of which runs yet."""
    if reason := reason_why_not():
        pytest.skip(reason)
    with box(3) as made:
        yield made


@pytest.fixture
def cluster(machines: Box, monkeypatch: pytest.MonkeyPatch) -> Box:
    """The same, with an environment of the test that leads to its store."""
    for name, value in machines.store_environment().items():
        monkeypatch.setenv(name, value)
    return machines


@pytest.fixture
def inputs(cluster: Box, dataset: str, knowledge: str) -> list[str]:
    """The tiny data set and knowledge in that store, as flags of a training."""
    root = f"s3://{cluster.facts.store['bucket']}/inputs"
    copied = artifacts._parse(["copy", knowledge, root])
    return ["--dataset", artifacts._parse(["copy", dataset, root]), "--knowledge", copied]


@pytest.fixture
def train(cluster: Box, inputs: list[str], tmp_path: Path) -> Iterator[Callable[..., Training]]:
    """Start a training with these flags; it is killed at the end."""
    started: list[Training] = []

    def begin(*more: str) -> Training:
        started.append(Training(cluster, inputs, f"{tmp_path.name}-{len(started)}".replace("_", "-"), tmp_path, *more))
        return started[-1]

    yield begin
    for training in started:
        training.end()
