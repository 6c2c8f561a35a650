"""Approximate search by faiss's HNSW, for galleries that a scan is too slow for, with exact scores.

Letters: n rows of the gallery, d dimensions, q queries, k results.
"""

from __future__ import annotations

from collections.abc import Callable
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

    def __init__(self, scan: Scan, index: Any, effort: int = EFFORT):
        """Take a graph that faiss has built over the rows of a scan; callers make one by `build` or `load`.

        effort: candidates that a search keeps.
        """
        self._scan, self._index, self._effort = scan, index, effort

    @staticmethod
    def build(
        scan: Scan,
        *,
        links: int = LINKS,
        effort: int = BUILD_EFFORT,
        threads: int | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> Graph:
        """Link all rows of a scan: hours of a core for ten million. Two builds may differ, as faiss uses threads.

        links: from 8 to 128; faiss's M. effort: candidates kept while a row is linked, at least 1. threads: how many faiss uses
        from now on in this process; None leaves them as they are. advance: called with the number of rows just linked.
        """
        _use(threads)
        if not graph_file.LINKS[0] <= links <= graph_file.LINKS[1]:
            raise InputError(f"links must be from {graph_file.LINKS[0]} to {graph_file.LINKS[1]}, got {links}")
        index = _empty(scan, links)
        index.hnsw.efConstruction = effort
        for start in range(0, len(scan), BLOCK):
            rows = _unit(scan, start)
            index.add(rows)
            if advance:
                advance(len(rows))
        return Graph(scan, index)

    @staticmethod
    def load(scan: Scan, path: Path, *, where: str = "", effort: int = EFFORT, threads: int | None = None) -> Graph:
        """Read the graph of the same rows. Raises InputError for a file that is damaged or of another number of rows.

        where: what an error calls the file; none: its path. effort: candidates kept in searches that do not say. threads: as for
        `build`.
        """
        _use(threads)
        links = graph_file.load(path, len(scan), where or str(path))
        index = _empty(scan, int(links.entry[1]))
        for start in range(0, len(scan), BLOCK):
            index.storage.add(_unit(scan, start))
        graph_file.into_faiss(index, links)
        return Graph(scan, index, effort)

    def save(self, path: Path) -> None:
        """Write the links, and not the vectors."""
        graph_file.save(path, graph_file.from_faiss(self._index))

    def answers(self, k: int, *, among: Bool[np.ndarray, "n"] | None = None) -> bool:
        """Return whether a search is answered by the graph: not where few rows take part, or k is a large share of them."""
        wanted = self._scan.wanted(among)
        living = len(self._scan) if wanted is None else int(np.count_nonzero(wanted))
        return k >= 1 and living * SELECTIVE > len(self._scan) and k * SELECTIVE <= living

    def search(
        self,
        queries: Float32[np.ndarray, "q d"],
        k: int,
        *,
        among: Bool[np.ndarray, "n"] | None = None,
        effort: int | None = None,
    ) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
        """Find k good rows of each query, as `Scan.search` finds the best: scores are exact, equal ones in gallery order.

        The scan answers where `answers` says no, and where the graph finds fewer than k.
        effort: candidates kept; more find more and take longer; None: those that the graph was opened with.
        """
        if not self.answers(k, among=among):
            return self._scan.search(queries, k, among=among)
        grid = self._scan.on_grid(queries)
        kept = max(self._effort if effort is None else effort, 2 * k)
        candidates = self._candidates(grid, 2 * k, kept, self._scan.wanted(among))
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

    def recall(self, queries: Float32[np.ndarray, "q d"], k: int, *, effort: int | None = None) -> Float64[np.ndarray, "q"]:
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


def _use(threads: int | None) -> None:
    """Let faiss compute with so many threads in this process."""
    import faiss

    if threads:
        faiss.omp_set_num_threads(threads)


def _empty(scan: Scan, links: int) -> Any:
    import faiss

    return faiss.IndexHNSWFlat(scan.rows.dimensions, links, faiss.METRIC_INNER_PRODUCT)


def _unit(scan: Scan, start: int) -> Float32[np.ndarray, "_ d"]:
    """Return rows from `start`, scaled to length 1."""
    rows = exact.on_grid(scan.rows.between(start, min(start + BLOCK, len(scan))), name="gallery")
    unit: np.ndarray = (rows * 2.0**-exact.GRID_BITS).astype(np.float32)
    return unit
