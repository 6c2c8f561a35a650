"""Fast estimates of exact scores, each with a proof of how wrong it can be.

Letters: n rows, q queries, d dimensions, r rows estimated at a time, p pairs of a row and a query.

**What is estimated.** `exact` scores the vectors on its grid, w for a query and u for a row, whole multiples of 2^-26, and rounds
w.u to float32. Scaling a vector to length 1 and rounding it moves each number by at most 2^-27 (and a little for float64, 2^-40 in
all), so the lengths of w and u are at most U = 1 + 2^-16 and differ from 1 by no more than that, up to 2^16 dimensions.

Every estimate has the form t y, with y in float32 and t > 0 of the query alone, and |t y - w.u| <= a + b e, with a and b of the
query and e of the row. A row is left out only where k others are certainly better; `leaders` covers the rounding of w.u.

**By codes.** u = s c + r with |r| <= e, and w = t p + v with |v| known, where c and p are int8 (`codes.encode`). Then
w.u - t s (p.c) = v.u + t p.r, and by Cauchy and Schwarz |v.u| <= |v| U and |t p.r| <= |t p| e. The product p.c is exact up to 2^24
and rounded once above, and y = s (p.c) is rounded once more: a relative error of 2^-23 (1 + 2^-24), of a number t y that is at most
|t p| |s c| <= 2U 2U, because rounding to the nearest code never leaves out more than there is. So that error is below 2^-20.
a = |v| U + ROUNDING and b = |t p|.

**By float32.** x is a row as it is stored, i the inverse of its length in float32, and w' the query rounded to float32. A sum of d
products in float32 in any order, fused or not, is off by at most g |x| |w'|, with g = d 2^-24 / (1 - d 2^-24) <= 1.004 d 2^-24
(Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), and by d 2^-126 for what underflows, which is below 2^-49 |x|
because |x| >= 2^-60. |w' - w| <= 2^-24 U. Scaling by i, which is 2^-23 off at most, and rounding the result add less than 2^-21.
And x / |x| differs from u by at most sqrt(d) 2^-27 + 2^-40. So a = 1.01 d 2^-24 + sqrt(d) 2^-26 + ROUNDING, b = 1 and e = 0.
Nothing is said of rows of extreme length: y = 0 and e = UNKNOWN. A row of zeros has y = 0, which is its score.

ROUNDING, 2^-19, also covers what computing the bounds themselves in float64 leaves out, a few times 2^-53 of numbers below 8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int8, Int32, Int64

from zsbir.retrieval import int8
from zsbir.retrieval.codes import OTHER_LENGTH, Codes, encode, lengths
from zsbir.retrieval.exact import GRID_BITS
from zsbir.retrieval.rows import Rows

LONGEST_UNIT = 1 + 2.0**-16
"""U: no vector on the grid is longer."""

ROUNDING = 2.0**-19
"""What every bound adds for the rounding of its own arithmetic."""

UNKNOWN = np.float32(4)
"""An error that makes every score possible: scores lie between -U^2 and U^2, and an estimate of 0 with this error says nothing."""


class Asked(NamedTuple):
    """Queries as an estimate needs them: the score is t y, give or take a + b e."""

    vectors: Int8[np.ndarray, "q d"] | Float32[np.ndarray, "q d"]
    t: Float64[np.ndarray, "q"]
    a: Float64[np.ndarray, "q"]
    b: Float64[np.ndarray, "q"]


Where = slice | Int64[np.ndarray, "r"]
"""Rows, by their numbers or from one to before another."""


class Estimate(ABC):
    """A fast and slightly wrong score of every row."""

    own_threads: bool
    """Its products for several queries use all cores by themselves."""

    block_pairs: int
    """Pairs of a row and a query to estimate at a time, at most."""

    @abstractmethod
    def ask(self, queries: Int32[np.ndarray, "q d"]) -> Asked:
        """Return what `values` needs of queries that `exact.on_grid` made."""

    @abstractmethod
    def values(self, where: Where, asked: Asked) -> Float32[np.ndarray, "r q"]:
        """Return y for these rows and all queries."""

    @abstractmethod
    def errors(self, where: Where) -> Float32[np.ndarray, "r"]:
        """Return e for these rows."""


class ByCodes(Estimate):
    """Estimates from int8 codes in memory."""

    own_threads = False
    block_pairs = 1 << 17  # half a megabyte of products, which stays in the processor's cache

    def __init__(self, codes: Codes):
        self._codes = codes

    def ask(self, queries: Int32[np.ndarray, "q d"]) -> Asked:
        """Return the queries as codes, and the bounds of the module's text."""
        coded = encode(queries)
        left_out = coded.error.astype(np.float64) * LONGEST_UNIT + ROUNDING
        return Asked(coded.values, coded.scale.astype(np.float64), left_out, lengths(coded) * (1 + 2.0**-20))

    def values(self, where: Where, asked: Asked) -> Float32[np.ndarray, "r q"]:
        """Return s (p.c)."""
        result = int8.products(self._codes.values[where], asked.vectors)
        result *= self._codes.scale[where, None]
        return result

    def errors(self, where: Where) -> Float32[np.ndarray, "r"]:
        """Return the lengths of what the codes leave out."""
        errors: np.ndarray = self._codes.error[where]
        return errors


class ByFloats(Estimate):
    """Estimates from the float vectors themselves, in the parts that they lie in."""

    own_threads = True
    block_pairs = 1 << 20  # the threads of a matrix product wait for each other at the end of each block

    def __init__(self, rows: Rows, inverse: Float32[np.ndarray, "n"]):
        self._rows, self._inverse = rows, inverse

    def ask(self, queries: Int32[np.ndarray, "q d"]) -> Asked:
        """Return the queries in float32, and the bounds of the module's text."""
        count, dimensions = queries.shape
        error = 1.01 * dimensions * 2.0**-24 + dimensions**0.5 * 2.0**-26 + ROUNDING
        one = np.ones(count)
        return Asked((queries * 2.0**-GRID_BITS).astype(np.float32), one, np.full(count, error), one)

    def values(self, where: Where, asked: Asked) -> Float32[np.ndarray, "r q"]:
        """Return i (x.w'), and 0 for rows of extreme length."""
        rows = self._rows.between(where.start, where.stop) if isinstance(where, slice) else self._rows.take(where)
        inverse = self._inverse[where]
        with np.errstate(over="ignore", invalid="ignore"):  # of rows of extreme length alone
            # One query by products of vectors: BLAS would use threads of its own for a matrix, which wait for busy cores.
            one = len(asked.vectors) == 1
            result: np.ndarray = np.vecdot(rows, asked.vectors[0])[:, None] if one else rows @ asked.vectors.T
            result *= inverse[:, None]
        result[inverse == OTHER_LENGTH] = 0
        return result

    def errors(self, where: Where) -> Float32[np.ndarray, "r"]:
        """Return 0, and UNKNOWN for rows of extreme length."""
        errors: np.ndarray = (self._inverse[where] == OTHER_LENGTH) * UNKNOWN
        return errors

    def pairs(
        self, rows: Int64[np.ndarray, "p"], queries: Int64[np.ndarray, "p"], asked: Asked
    ) -> tuple[Float32[np.ndarray, "p"], Float32[np.ndarray, "p"]]:
        """Return y and e for pairs of a row and a query: t and b are 1."""
        inverse = self._inverse[rows]
        with np.errstate(over="ignore", invalid="ignore"):
            result: np.ndarray = np.vecdot(self._rows.take(rows), asked.vectors[queries])
            result *= inverse
        extreme = inverse == OTHER_LENGTH
        result[extreme] = 0
        return result, extreme * UNKNOWN
