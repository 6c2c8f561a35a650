"""What a measurement was made on, for the line beside its figures."""

from __future__ import annotations

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from zsbir.base.cores import usable_cores

READ_BYTES = 1 << 29
"""More than any processor's cache holds."""


@cache
def memory_gb_per_s() -> float:
    """Return the gigabytes a second that a thread on each usable core reads together, the best of five passes over READ_BYTES.

    One instruction for every 64 bytes (numpy's bitwise or), so that memory is what limits it; other programs take their share.
    """
    parts, best = np.array_split(np.ones(READ_BYTES // 8, np.uint64), usable_cores()), 0.0
    with ThreadPoolExecutor(len(parts)) as pool:
        for _ in range(5):
            began = time.perf_counter()
            list(pool.map(np.bitwise_or.reduce, parts))
            best = max(best, READ_BYTES / (time.perf_counter() - began) / 1e9)
    return best


def described() -> str:
    """Return cores, processor, load, and how fast memory is read, in one line."""
    load = os.getloadavg()[0]
    cores = usable_cores()
    return f"{cores} cores, {platform.machine()}, load {load:.1f}, memory read at {memory_gb_per_s():.1f} GB/s by {cores} threads"
