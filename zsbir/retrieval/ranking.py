"""Candidates of several queries ranked by their exact scores.

Letters: q queries, d dimensions, n rows of the gallery, p pairs of a query and a candidate, k results.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Int32, Int64

from zsbir.retrieval import exact
from zsbir.retrieval.rows import Rows
from zsbir.retrieval.threads import Threads

EXACT_PAIRS = 512
"""Pairs of a query and a row that one thread scores exactly at a time."""

RANKED_PAIRS = 1 << 18
"""Queries are ranked together while they have no more pairs than this, so that memory stays bounded."""


class Ranking:
    """Rows of a gallery, of which candidates are scored and ranked as `exact.search` does it."""

    def __init__(self, rows: Rows, twins: Int64[np.ndarray, "n"] | None, threads: Threads):
        """twins: for each row the first row with the same vector, which is scored in its place; None where all rows differ."""
        self._rows, self._twins, self._threads = rows, twins, threads

    def best(
        self, grid: Int32[np.ndarray, "q d"], candidates: list[Int64[np.ndarray, "_"]], k: int
    ) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
        """Return the k best candidates of each query and their scores, best first; equal scores in gallery order.

        grid: queries from `exact.on_grid`. candidates: for each query at least k rows, ascending.
        """
        found, scores = np.empty((len(grid), k), np.int64), np.empty((len(grid), k), np.float32)
        for few in _few(candidates):
            some = self._scores(grid[few], candidates[few])
            for number, (rows, own) in enumerate(zip(candidates[few], some, strict=True), few.start):
                order = np.argsort(-own, kind="stable")[:k]
                found[number], scores[number] = rows[order], own[order]
        return found, scores

    def _scores(self, grid: Int32[np.ndarray, "q d"], candidates: list[Int64[np.ndarray, "_"]]) -> list[Float32[np.ndarray, "_"]]:
        """Return the exact score of each candidate."""
        rows, queries = np.concatenate(candidates), repeated(candidates)
        places: slice | Int64[np.ndarray, "p"] = slice(None)
        if self._twins is not None:
            pairs, places = np.unique(queries * len(self._rows) + self._twins[rows], return_inverse=True)
            queries, rows = np.divmod(pairs, len(self._rows))
        scores = np.empty(len(rows), np.float32)

        def block(start: int) -> None:
            here = slice(start, start + EXACT_PAIRS)
            photos = exact.on_grid(self._rows.take(rows[here]), name="gallery")
            scores[here] = exact.pair_scores(grid[queries[here]], photos)

        self._threads.run(block, range(0, len(rows), EXACT_PAIRS))
        return np.split(scores[places], np.cumsum([len(some) for some in candidates])[:-1])


def repeated(candidates: list[Int64[np.ndarray, "_"]]) -> Int64[np.ndarray, "p"]:
    """Return for each candidate of each query the number of the query."""
    return np.repeat(np.arange(len(candidates)), [len(rows) for rows in candidates])


def _few(candidates: list[Int64[np.ndarray, "_"]]) -> Iterator[slice]:
    """Yield runs of queries that have no more than RANKED_PAIRS rows together, or are one query."""
    start, rows = 0, 0
    for stop, more in enumerate(map(len, candidates)):
        if stop > start and rows + more > RANKED_PAIRS:
            yield slice(start, stop)
            start, rows = stop, 0
        rows += more
    yield slice(start, len(candidates))
