"""Unit vectors as int8, each with its own scale and with the length of what rounding left out.

Letters: n vectors, d dimensions.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int32, Int64, UInt64

from zsbir.retrieval.exact import GRID_BITS, NORMALISE_ROWS, on_grid
from zsbir.retrieval.rows import Rows
from zsbir.retrieval.threads import Threads

LARGEST = 127
"""Largest code. -128 is not used, so that a code and its negative are alike."""

LONGEST = 2.0**60
"""Lengths of rows from 1 / LONGEST to LONGEST are safe in float32: no product overflows, and what underflows is far below 2^-60."""

OTHER_LENGTH = np.float32(-1)
"""Stands in place of the inverse length of a row whose length is not in that range."""


class Codes(NamedTuple):
    """Vectors u, each as whole numbers c times a scale s."""

    values: Int8[np.ndarray, "n d"]
    """c, from -127 to 127."""
    scale: Float32[np.ndarray, "n"]
    """s, by which c is multiplied."""
    error: Float32[np.ndarray, "n"]
    """No less than the length of u - s c."""


def encode(grid: Int32[np.ndarray, "n d"]) -> Codes:
    """Return the codes of vectors that `exact.on_grid` made, up to 2^16 dimensions. A row of zeros has zeros and no error.

    u = grid 2^-26 has 27 bits, s c has 31, and s is above 2^-16 for a row of length 1: their difference is exact in float64. The
    sum of its squares is off by a factor of 2^-36 at most, and the factor put on the error covers this and its rounding to float32.
    """
    units = grid * 2.0**-GRID_BITS
    largest = np.maximum(units.max(axis=1), -units.min(axis=1))
    scale = np.where(largest > 0, largest / LARGEST, 1.0).astype(np.float32)
    codes = np.rint(units / scale[:, None])
    units -= codes * scale[:, None]
    error = np.sqrt(np.einsum("nd,nd->n", units, units)) * (1 + 2.0**-20)
    return Codes(codes.astype(np.int8), scale, error.astype(np.float32))


class Prepared(NamedTuple):
    """What a scan keeps of a gallery in memory: d + 12 bytes a row, or 4 without codes."""

    inverse: Float32[np.ndarray, "n"]
    """1 / length of each row, 0 for a row of zeros, OTHER_LENGTH for a length that float32 products do not bear."""
    codes: Codes | None
    """None where int8 products are not to be had."""
    twins: Int64[np.ndarray, "n"] | None
    """For each row the first row with the same unit vector, itself included; None where all rows differ."""


def prepare(rows: Rows, threads: Threads, *, with_codes: bool) -> Prepared:
    """Read a gallery once, block by block.

    Beyond what it returns it takes 8 bytes a row, and a block for each thread. Raises InputError for NaN or infinity.
    """
    count, width = len(rows), rows.dimensions
    inverse = np.empty(count, np.float32)
    codes = (
        Codes(np.empty((count, width), np.int8), np.empty(count, np.float32), np.empty(count, np.float32)) if with_codes else None
    )
    marks = np.empty(count, np.uint64)
    # Unpredictable, so that nobody can make vectors that share a mark; no answer depends on them.
    factors = np.frombuffer(os.urandom(8 * -(-width // 2)), np.uint64) | np.uint64(1)

    def block(start: int) -> None:
        some = rows.between(start, min(start + NORMALISE_ROWS, count))
        here = slice(start, start + len(some))
        grid = on_grid(some, name="gallery", first_row=start)
        inverse[here] = _inverse_lengths(some)
        if codes:
            for whole, part in zip(codes, encode(grid), strict=True):
                whole[here] = part
        marks[here] = _marks(grid, factors)

    threads.run(block, range(0, count, NORMALISE_ROWS))
    return Prepared(inverse, codes, _twins(rows, marks))


def _inverse_lengths(rows: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n"]:
    wide = rows.astype(np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    safe = (lengths >= 1 / LONGEST) & (lengths <= LONGEST)
    inverse: np.ndarray = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=safe).astype(np.float32)
    inverse[~safe & (lengths > 0)] = OTHER_LENGTH
    return inverse


def _marks(grid: Int32[np.ndarray, "n d"], factors: UInt64[np.ndarray, "_"]) -> UInt64[np.ndarray, "n"]:
    """Return a number for each row that equal rows share, and others almost never do."""
    even = grid if grid.shape[1] % 2 == 0 else np.pad(grid, ((0, 0), (0, 1)))
    words = even.view(np.uint64)
    words = words ^ words >> np.uint64(29)
    words *= factors
    marks: np.ndarray = words.sum(axis=1, dtype=np.uint64)
    return marks


def _twins(rows: Rows, marks: UInt64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"] | None:
    """Return the first row with the same unit vector for each row, where `marks` lets one suspect any; None where all differ.

    Rows whose marks agree are compared. A twin that went unnoticed would cost time and change no result.
    """
    if (np.diff(np.sort(marks)) != 0).all():
        return None
    _, first, inverse = np.unique(marks, return_index=True, return_inverse=True)
    twins: np.ndarray = np.asarray(first[inverse])
    later = np.flatnonzero(twins != np.arange(len(twins)))
    for start in range(0, len(later), NORMALISE_ROWS):
        pairs = later[start : start + NORMALISE_ROWS]
        other = pairs[~_same(rows.take(pairs), rows.take(twins[pairs]))]
        twins[other] = other
    return twins


def _same(left: Float32[np.ndarray, "n d"], right: Float32[np.ndarray, "n d"]) -> Bool[np.ndarray, "n"]:
    """Return which pairs of rows have one unit vector on the grid."""
    same: np.ndarray = (left == right).all(axis=1)
    rest = np.flatnonzero(~same)
    if len(rest):
        same[rest] = (on_grid(left[rest]) == on_grid(right[rest])).all(axis=1)
    return same


def lengths(codes: Codes) -> Float64[np.ndarray, "n"]:
    """Return the length of s c for each vector."""
    wide = codes.values.astype(np.float64)
    result: np.ndarray = codes.scale * np.sqrt(np.einsum("nd,nd->n", wide, wide))
    return result
