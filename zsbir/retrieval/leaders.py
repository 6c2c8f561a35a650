"""The rows that may be among the k best of a query, by estimates with an error bound.

k rows have sums of at least L, the k-th largest lower bound. A row whose upper bound is below L - SAME_SCORE has a smaller score
than each of those k, after rounding too, so it is not among the k best, whatever the order of equal scores.

Letters: q queries, p pairs of a query and a row, k results, m rows that may be among them.
"""

from __future__ import annotations

from threading import Lock

import numpy as np
from jaxtyping import Float64, Int64

SAME_SCORE = 2.0**-22
"""Two sums that differ by more have different scores. Scores are sums rounded to float32, below 2 in magnitude, so that neighbours
among them lie at most 2^-23 apart: rounding moves either sum by half of that, and cannot close a gap of more than 2^-23. The other
half covers what this file computes in float64."""


class Leaders:
    """For each query the rows offered so far that can be among its k best. Several threads may offer.

    What is dropped is dropped for good: a row that k others certainly beat is not among the k best of a larger set either.
    """

    def __init__(self, queries: int, k: int, most: int):
        """k: results wanted, at least 1. most: rows to keep for a query, at least k; it is given up where there are more."""
        self._k, self._most, self._queries = k, most, queries
        self._kept = _Pairs.none()
        self._new: list[_Pairs] = []
        self._new_count, self._patience = 0, 0
        self._lock = Lock()
        self.floors = np.full(queries, -np.inf)
        """A row whose upper bound is below this need not be offered; infinite for a query that was given up."""

    def offer(
        self,
        queries: Int64[np.ndarray, "p"],
        rows: Int64[np.ndarray, "p"],
        middle: Float64[np.ndarray, "p"],
        error: Float64[np.ndarray, "p"],
    ) -> None:
        """Take pairs that were not offered before, with the middle and the error of their sums."""
        with self._lock:
            self._new.append(_Pairs(queries, rows, middle, error))
            self._new_count += len(rows)
            if self._new_count > self._patience:
                self._drop()

    def rows(self) -> list[Int64[np.ndarray, "_"] | None]:
        """Return for each query the numbers of the rows that are left, ascending; None where it was given up."""
        with self._lock:
            self._drop()
            kept = self._kept
        if self._queries == 1:
            return [None if self.floors[0] == np.inf else np.sort(kept.rows)]
        order = np.lexsort((kept.rows, kept.queries))
        parts = np.split(kept.rows[order], np.cumsum(np.bincount(kept.queries, minlength=self._queries))[:-1])
        return [None if floor == np.inf else part for floor, part in zip(self.floors, parts, strict=True)]

    def _drop(self) -> None:
        """Raise the floors by what was offered since the last time, and drop what lies below them."""
        if not self._new:
            return
        pairs = _Pairs.joined([self._kept, *self._new])
        lower = pairs.middle - pairs.error
        # Sums lie within 8 of 0, so 32 keeps queries apart. The key may misplace sums that are 2^-40 apart.
        order = (pairs.queries * 32.0 - lower).argsort()
        counts = np.bincount(pairs.queries, minlength=self._queries)
        full = (counts >= self._k).nonzero()[0]
        kth = order[(counts.cumsum() - counts)[full] + self._k - 1]
        floors = self.floors.copy()
        floors[full] = np.maximum(floors[full], lower[kth] - SAME_SCORE)
        pairs = pairs.reaching(floors)
        if len(pairs.rows) > self._most and (over := np.bincount(pairs.queries, minlength=self._queries) > self._most).any():
            floors[over] = np.inf
            pairs = pairs.reaching(floors)
        self.floors = floors  # in one step: other threads read it without the lock
        self._kept, self._new, self._new_count = pairs, [], 0
        # As many new ones as there are already: so each is looked at a few times only, however many stay.
        self._patience = len(pairs.rows) + self._k


class _Pairs:
    """Pairs of a query and a row, with the middle and the error of their sums."""

    def __init__(
        self,
        queries: Int64[np.ndarray, "p"],
        rows: Int64[np.ndarray, "p"],
        middle: Float64[np.ndarray, "p"],
        error: Float64[np.ndarray, "p"],
    ):
        self.queries, self.rows, self.middle, self.error = queries, rows, middle, error

    @staticmethod
    def none() -> _Pairs:
        return _Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))

    @staticmethod
    def joined(some: list[_Pairs]) -> _Pairs:
        return _Pairs(
            np.concatenate([one.queries for one in some]),
            np.concatenate([one.rows for one in some]),
            np.concatenate([one.middle for one in some]),
            np.concatenate([one.error for one in some]),
        )

    def reaching(self, floors: Float64[np.ndarray, "q"]) -> _Pairs:
        """Return the pairs whose upper bound reaches the floor of their query."""
        stay = (self.middle + self.error >= floors[self.queries]).nonzero()[0]
        return _Pairs(self.queries[stay], self.rows[stay], self.middle[stay], self.error[stay])
