"""How this process computes on the CPU: with how many threads, and what becomes of the memory that a step frees."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from zsbir.base.cores import free_cores

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
_MIB = 1 << 20


@contextmanager
def computing() -> Iterator[None]:
    """Let torch compute inside with as many threads as cores are free when it begins. OMP_NUM_THREADS, where it is set, wins.

    Threads of torch wait for each other many times a step: one that must share its core holds up all others. The process keeps
    the memory that it frees, also afterwards.
    """
    keep_freed_memory()
    if os.environ.get("OMP_NUM_THREADS"):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, free_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees for its next tensors, instead of giving it back to the system.

    glibc maps each large tensor anew by default, and the system fills its pages with zeros first: a tenth of the time of a training
    step on a CPU (tests/bench/bench_memory.py). The process stays as large as its largest moment, so a service that runs for days
    should not call this. Does nothing where there is another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_MMAP_THRESHOLD, 1024 * _MIB) or mallopt(_MMAP_THRESHOLD, 32 * _MIB)  # the most that older versions take
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 256 * _MIB)
