"""How many threads torch computes with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from zsbir.base.cores import free_cores


@contextmanager
def free_threads() -> Iterator[None]:
    """Let torch compute inside with as many threads as cores are free when it begins. OMP_NUM_THREADS, where it is set, wins.

    Threads of torch wait for each other many times a step: one that must share its core holds up all others.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, free_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)
