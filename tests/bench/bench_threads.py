"""Threads of torch beside a program that keeps a core busy: one for each free core against one for each core."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from zsbir.base.cores import usable_cores
from zsbir.model.encoder import Encoder
from zsbir.training.computing import computing
from zsbir.training.forecast import seconds_per_image
from zsbir.training.precision import autocast


@pytest.fixture
def busy_core() -> Iterator[None]:
    """A program that does nothing else than keep one core busy."""
    program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield
    program.kill()
    program.wait()


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
@pytest.mark.usefixtures("busy_core")
def test_threads_by_what_is_free_are_no_slower_than_one_for_each_core(ratio, monkeypatch):
    """Forward and backward pass of a ResNet18 over 16 images of 128 px."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    encoder = Encoder("resnet18", 512, 128).to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (16, 3, 128, 128), dtype=torch.uint8)

    def passes() -> int:
        seconds_per_image(encoder, images, autocast("auto", torch.device("cpu")))
        return 2 * len(images)

    def by_what_is_free() -> int:
        with computing():
            return passes()

    assert ratio("free threads beside a busy core", by_what_is_free, passes, rounds=3) > 0.9
