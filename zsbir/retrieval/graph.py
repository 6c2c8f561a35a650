"""Approximate search by faiss's HNSW, for galleries that a scan is too slow for, with exact scores.

Letters: n rows of the gallery, d dimensions, q queries, k results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from zsbir.base.errors import InputError
from zsbir.retrieval import exact, graph_file
from zsbir.retrieval.recall import EQUAL
from zsbir.retrieval.scan import Scan

PAYS_FROM = 5_000_000
"""Rows from which a graph pays: below, a scan takes less than about a tenth of a second of two cores, and misses nothing."""

LINKS = 32
"""Links of a row on the upper levels, twice as many on the lowest: 260 bytes a row."""

BUILD_EFFORT = 200
"""Candidates kept while a row is linked (efConstruction)."""

EFFORT = 128
"""Candidates kept in a search (efSearch), at least; and never less than twice k."""

SELECTIVE = 16
"""Where no more than one row in so many may be found, the scan answers: a walk through the graph would meet few of them."""

BLOCK = 8192
"""Rows given to faiss at a time."""


class Graph:
    """A graph over the rows of a scan. It may miss photos, and scores those that it finds exactly. For many threads.

    It keeps a copy of all unit vectors in memory, 4 d bytes a row, and its links, 260 bytes a row, beside what the scan keeps.
    """

    def __init__(self, scan: Scan, index: Any):
        """For `build` and `load`."""
        self._scan, self._index = scan, index

    @staticmethod
    def build(scan: Scan, *, links: int = LINKS, effort: int = BUILD_EFFORT) -> Graph:
        """Link all rows of a scan: hours of a core for ten million. Two builds may differ, as faiss uses threads.

        links: from 8 to 128; faiss's M. effort: candidates kept while a row is linked, at least 1.
        """
        if not graph_file.LINKS[0] <= links <= graph_file.LINKS[1]:
            raise InputError(f"links must be from {graph_file.LINKS[0]} to {graph_file.LINKS[1]}, got {links}")
        index = _empty(scan, links)
        index.hnsw.efConstruction = effort
        for start in range(0, len(scan), BLOCK):
            index.add(_unit(scan, start))
        return Graph(scan, index)

    @staticmethod
    def load(scan: Scan, path: Path) -> Graph:
        """Read the graph of the same rows. Raises InputError for a file that is damaged or of another number of rows."""
        links = graph_file.load(path, len(scan))
        index = _empty(scan, int(links.entry[1]))
        for start in range(0, len(scan), BLOCK):
            index.storage.add(_unit(scan, start))
        graph_file.into_faiss(index, links)
        return Graph(scan, index)

    def save(self, path: Path) -> None:
        """Write the links, and not the vectors."""
        graph_file.save(path, graph_file.from_faiss(self._index))

    def search(
        self, queries: Float32[np.ndarray, "q d"], k: int, *, among: Bool[np.ndarray, "n"] | None = None, effort: int = EFFORT
    ) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
        """Find k good rows of each query, as `Scan.search` finds the best: scores are exact, equal ones in gallery order.

        The scan answers where few rows take part, where k is a large share of them, and where the graph finds fewer than k.
        effort: candidates kept; more find more and take longer.
        """
        wanted = self._scan.wanted(among)
        living = len(self._scan) if wanted is None else int(np.count_nonzero(wanted))
        if k < 1 or living * SELECTIVE <= len(self._scan) or k * SELECTIVE > living:
            return self._scan.search(queries, k, among=among)
        grid = self._scan.on_grid(queries)
        candidates = self._candidates(grid, 2 * k, max(effort, 2 * k), wanted)
        found, scores = np.empty((len(grid), k), np.int64), np.empty((len(grid), k), np.float32)
        enough = np.array([len(rows) >= k and bool(query.any()) for rows, query in zip(candidates, grid, strict=True)])
        for answered, numbers in ((True, np.flatnonzero(enough)), (False, np.flatnonzero(~enough))):
            if not len(numbers):
                continue
            found[numbers], scores[numbers] = (
                self._scan.ranking.best(grid[numbers], [candidates[number] for number in numbers], k)
                if answered
                else self._scan.search(queries[numbers], k, among=among)
            )
        return found, scores

    def recall(self, queries: Float32[np.ndarray, "q d"], k: int, *, effort: int = EFFORT) -> Float64[np.ndarray, "q"]:
        """Return for each query the share of its k results that belong there: whose score is no worse than the exact k-th.

        Scores that differ by less than `recall.EQUAL` count as equal. Where queries are not of the kind that people draw, the
        share says little about those.
        """
        _, scores = self.search(queries, k, effort=effort)
        _, best = self._scan.search(queries, k)
        shares: np.ndarray = (scores >= best[:, -1:] - np.float32(EQUAL)).mean(axis=1)
        return shares

    def _candidates(
        self, grid: Int32[np.ndarray, "q d"], count: int, effort: int, wanted: Bool[np.ndarray, "n"] | None
    ) -> list[Int64[np.ndarray, "_"]]:
        """Return the rows that faiss finds for each query, ascending."""
        import faiss

        selector = None if wanted is None else faiss.IDSelectorBitmap(np.packbits(wanted, bitorder="little"))
        parameters = faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
        _, rows = self._index.search((grid * 2.0**-exact.GRID_BITS).astype(np.float32), count, params=parameters)
        return [np.unique(found[found >= 0]) for found in rows]


def _empty(scan: Scan, links: int) -> Any:
    import faiss

    return faiss.IndexHNSWFlat(scan.rows.dimensions, links, faiss.METRIC_INNER_PRODUCT)


def _unit(scan: Scan, start: int) -> Float32[np.ndarray, "_ d"]:
    """Return rows from `start`, scaled to length 1."""
    rows = exact.on_grid(scan.rows.between(start, min(start + BLOCK, len(scan))), name="gallery")
    unit: np.ndarray = (rows * 2.0**-exact.GRID_BITS).astype(np.float32)
    return unit
