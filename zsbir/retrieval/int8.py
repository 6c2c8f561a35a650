"""Products of int8 vectors, by numkong where it is installed and the processor has instructions for them.

Letters: n rows, q queries, d dimensions.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float32, Int8

MOST_DIMENSIONS = 1 << 16
"""Dimensions up to which sums of products of int8 stay far below 2^31, the limit of the instructions' accumulators."""


@cache
def library() -> Any:
    """Return the module numkong, or None: not installed, no vector instructions on this processor, or wrong sums on it.

    It is asked for sums that are known, with the largest numbers there are. The bounds of a search hold only where the sums do.
    """
    try:
        import numkong
    except ImportError:
        return None
    instructions = [name for name, there in numkong.get_capabilities().items() if there and name != "serial"]
    return numkong if instructions and _sums_are_right(numkong) else None


def products(rows: Int8[np.ndarray, "n d"], queries: Int8[np.ndarray, "q d"]) -> Float32[np.ndarray, "n q"]:
    """Return the products of all pairs: whole numbers, exact below 2^24 and rounded to float32 once above."""
    return _products(library(), rows, queries)


def _products(numkong: Any, rows: Int8[np.ndarray, "n d"], queries: Int8[np.ndarray, "q d"]) -> Float32[np.ndarray, "n q"]:
    if len(queries) == 1:
        result = np.empty((len(rows), 1), np.float32)
        numkong.cdist(rows, queries, metric="dot", out=result)
        return result
    # The queries are packed, not the rows: a packed gallery would be a second copy of it.
    exact: np.ndarray = np.asarray(numkong.dots_packed(rows, numkong.dots_pack(queries)))
    return exact.astype(np.float32)


def _sums_are_right(numkong: Any) -> bool:
    """Return whether products of random and of extreme vectors, of lengths that fill registers and that do not, are right."""
    random = np.random.default_rng(0)
    for dimensions in (1, 63, 512, 1000, MOST_DIMENSIONS):
        rows = random.integers(-127, 128, (9, dimensions)).astype(np.int8)
        rows[:3] = np.array([127, -127, 0], np.int8)[:, None]
        right = rows.astype(np.int64) @ rows.T.astype(np.int64)
        for queries in (rows, rows[:1]):
            try:
                found = _products(numkong, rows, queries)
            except (TypeError, ValueError, RuntimeError):
                return False
            if not np.array_equal(found, right[:, : len(queries)].astype(np.float32)):
                return False
    return True
