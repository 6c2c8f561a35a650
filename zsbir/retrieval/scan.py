"""Exact search by estimates that are proven: the answers of `exact.search`, several times faster.

Letters: n rows of the gallery, d dimensions, q queries, k results, m rows that may be among them, r rows of a block.

Three steps, each of which sees only what the one before could not exclude:

1. All rows are estimated from int8 codes in memory, a quarter of the floats (`estimates.ByCodes`).
2. What may be among the k best, some hundred of a million rows, is estimated from the floats, which may lie on disk.
3. What is left, k and a few, is scored and ranked by `exact`.

Where int8 products are not to be had, or where the codes leave more than one row in MANY_LEFT, the second step sees all rows
instead: this is the float product over the gallery. Whichever way is taken, the answer is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from zsbir.base.errors import InputError
from zsbir.retrieval import exact, int8
from zsbir.retrieval.codes import prepare
from zsbir.retrieval.estimates import Asked, ByCodes, ByFloats, Estimate
from zsbir.retrieval.leaders import Leaders
from zsbir.retrieval.ranking import Ranking, repeated
from zsbir.retrieval.rows import Rows
from zsbir.retrieval.threads import Threads

MANY_LEFT = 8
"""Where more than one row in so many may be among the best, to gather them costs as much as to read all."""

MANY_WANTED = 8
"""Where k is more than one row in so many, all of them are scored exactly: estimates would exclude little."""

GROUP = 64
"""Queries estimated together; the codes are read from memory once for all of them."""

FIRST_ROWS = 512
"""Rows of the first block. The best of them exclude most of what follows, and each block is four times the one before."""

BLOCK_ROWS = 1 << 14
"""Rows of a block at most."""

SPARSE = 4
"""Where a block has no more than one wanted row in so many, the wanted ones are gathered; else all are estimated."""

MOST_PAIRS = 1 << 22
"""Pairs of a query and a row kept at most, about 60 bytes each while they are sorted. A query that needs more is scored exactly."""

SMALL = 1 << 23
"""Numbers of a gallery up to which one thread is as fast as several: it is done before they have started."""

CLOSER_PAIRS = 4096
"""Pairs of a query and a row that one thread estimates from floats at a time."""


class Scan:
    """Float vectors prepared for exact search: an int8 copy in memory with its error bounds; the vectors may be mapped from disk.

    All methods may be called from several threads.
    """

    def __init__(
        self,
        parts: Sequence[Float32[np.ndarray, "_ d"]],
        *,
        alive: Bool[np.ndarray, "n"] | None = None,
        threads: int | None = None,
        codes: bool = True,
    ):
        """Read all vectors once, in blocks.

        parts: the segments of an index, in gallery order; kept, not copied. alive: False for rows that no search may find.
        threads: how many to use; by default one for each usable core. codes: False for the float product alone.
        Raises InputError for parts without a row, of different widths, or with NaN or infinity.
        """
        self.rows = Rows(parts)
        """The vectors themselves."""
        if alive is not None and alive.shape != (len(self.rows),):
            raise InputError(f"alive: expected {len(self.rows)} values, one for each row, got shape {alive.shape}")
        self._alive = None if alive is None else alive.copy()
        self._threads = Threads(threads)
        bounded = self.rows.dimensions <= int8.MOST_DIMENSIONS
        prepared = prepare(self.rows, self._threads, with_codes=codes and bounded and int8.library() is not None)
        self.ranking = Ranking(self.rows, prepared.twins, self._threads)
        """Exact scores of candidates."""
        self._by_codes = ByCodes(prepared.codes) if prepared.codes else None
        self._by_floats = ByFloats(self.rows, prepared.inverse) if bounded else None
        self.memory_bytes = sum(
            array.nbytes for array in (prepared.inverse, *(prepared.codes or ()), prepared.twins) if array is not None
        )
        """Bytes kept in memory beside the vectors themselves."""

    def __len__(self) -> int:
        """Return the number of rows, dead ones too."""
        return len(self.rows)

    def search(
        self, queries: Float32[np.ndarray, "q d"], k: int, *, among: Bool[np.ndarray, "n"] | None = None
    ) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
        """Find the k best rows of each query: numbers of rows and scores, best first; equal scores in gallery order.

        They are those of `exact.search` over the living rows, and among these over those marked in `among`. Where fewer than k
        rows are left, all of them. Raises InputError as `exact.search` does, and for a mask of another length.
        """
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        grid = self.on_grid(queries)
        wanted = self.wanted(among)
        living = len(self.rows) if wanted is None else int(np.count_nonzero(wanted))
        k = min(k, living)
        found, scores = np.empty((len(grid), k), np.int64), np.empty((len(grid), k), np.float32)
        for start in range(0, len(grid) if k else 0, GROUP):
            group = grid[start : start + GROUP]
            here = slice(start, start + GROUP)
            found[here], scores[here] = self.ranking.best(group, self._left(group, k, wanted, living), k)
        return found, scores

    def on_grid(self, queries: Float32[np.ndarray, "q d"]) -> Int32[np.ndarray, "q d"]:
        """Return queries as `exact.on_grid` does. Raises InputError as it does, and for another number of dimensions."""
        grid = exact.on_grid(queries, name="queries")
        if grid.shape[1] != self.rows.dimensions:
            raise InputError(
                f"queries have {grid.shape[1]} dimensions, the gallery {self.rows.dimensions}; embed both with one encoder"
            )
        return grid

    def wanted(self, among: Bool[np.ndarray, "n"] | None) -> Bool[np.ndarray, "n"] | None:
        """Return which rows take part in a search among some; None for all."""
        if among is None:
            return self._alive
        if among.shape != (len(self.rows),):
            raise InputError(f"among: expected {len(self.rows)} values, one for each row, got shape {among.shape}")
        return among if self._alive is None else among & self._alive

    def _left(
        self, grid: Int32[np.ndarray, "q d"], k: int, wanted: Bool[np.ndarray, "n"] | None, living: int
    ) -> list[Int64[np.ndarray, "_"]]:
        """Return for each query the rows that may be among its k best, ascending."""
        left: list[Int64[np.ndarray, "_"] | None] = [None] * len(grid)
        some = [bool(query.any()) for query in grid]
        if k * MANY_WANTED <= living:
            for estimate, most in ((self._by_codes, living // MANY_LEFT), (self._by_floats, living)):
                still = np.flatnonzero([rows is None and any_ for rows, any_ in zip(left, some, strict=True)])
                if estimate and len(still):
                    found = self._leaders(estimate, grid[still], k, most, wanted).rows()
                    if estimate is self._by_codes:
                        found = self._closer(grid[still], found, k)
                    for number, rows in zip(still.tolist(), found, strict=True):
                        left[number] = rows
        every = _numbers(len(self.rows), wanted) if any(rows is None for rows in left) else np.empty(0, np.int64)
        # All scores of a query of zeros are 0: the first in gallery order are the best.
        return [(every if any_ else every[:k]) if rows is None else rows for rows, any_ in zip(left, some, strict=True)]

    def _leaders(
        self, estimate: Estimate, grid: Int32[np.ndarray, "q d"], k: int, most: int, wanted: Bool[np.ndarray, "n"] | None
    ) -> Leaders:
        """Estimate all wanted rows for all queries; return what stays of each query."""
        asked = estimate.ask(grid)
        leaders = Leaders(len(grid), k, max(2 * k, min(most, MOST_PAIRS // len(grid))))
        blocks = list(_blocks(len(self.rows), estimate.block_pairs // len(grid)))

        def block(number: int) -> None:
            _offer(estimate, asked, leaders, slice(*blocks[number]), wanted)

        # The first block alone: with what it excludes, all others have little to offer.
        block(0)
        alone = (estimate.own_threads and len(grid) > 1) or len(self.rows) * self.rows.dimensions * len(grid) <= SMALL
        self._threads.run(block, range(1, len(blocks)), alone=alone)
        return leaders

    def _closer(
        self, grid: Int32[np.ndarray, "q d"], left: list[Int64[np.ndarray, "_"] | None], k: int
    ) -> list[Int64[np.ndarray, "_"] | None]:
        """Return those of each query's rows that may be among its k best by the estimate from floats."""
        assert self._by_floats is not None
        estimate, asked = self._by_floats, self._by_floats.ask(grid)
        rows = np.concatenate([np.empty(0, np.int64) if some is None else some for some in left])
        queries = repeated([rows[:0] if some is None else some for some in left])
        leaders = Leaders(len(left), k, len(self.rows))

        def block(start: int) -> None:
            here = slice(start, start + CLOSER_PAIRS)
            values, errors = estimate.pairs(rows[here], queries[here], asked)
            leaders.offer(queries[here], rows[here], values.astype(np.float64), asked.a[queries[here]] + errors)

        self._threads.run(block, range(0, len(rows), CLOSER_PAIRS))
        return [None if some is None else closer for some, closer in zip(left, leaders.rows(), strict=True)]


def _blocks(rows: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield the first row of each block, of at most `most` rows, and the row behind its last one."""
    start, size = 0, FIRST_ROWS
    while start < rows:
        stop = min(rows, start + min(size, most, BLOCK_ROWS))
        yield start, stop
        start, size = stop, 4 * size


def _offer(estimate: Estimate, asked: Asked, leaders: Leaders, block: slice, wanted: Bool[np.ndarray, "n"] | None) -> None:
    """Estimate the wanted rows of a block for all queries, and offer to each query's leaders what may be among its best."""
    where: slice | Int64[np.ndarray, "r"] = block
    mask = None
    if wanted is not None:
        mask = wanted[block]
        living = int(np.count_nonzero(mask))
        if living * SPARSE <= len(mask):
            where, mask = block.start + np.flatnonzero(mask), None
        if not living:
            return
    values, errors = estimate.values(where, asked), estimate.errors(where)
    floors = leaders.floors
    hits = values >= _enough(floors, asked, float(errors.max()))
    if mask is not None:
        hits &= mask[:, None]
    places, queries = np.divmod(hits.ravel().nonzero()[0], len(floors))
    if not len(places):
        return
    middle = asked.t[queries] * values[places, queries]
    error = asked.a[queries] + asked.b[queries] * errors[places]
    rows = places + block.start if isinstance(where, slice) else where[places]
    leaders.offer(queries, rows, middle, error)


def _numbers(rows: int, wanted: Bool[np.ndarray, "n"] | None) -> Int64[np.ndarray, "_"]:
    return np.arange(rows) if wanted is None else np.flatnonzero(wanted)


def _enough(floors: Float64[np.ndarray, "q"], asked: Asked, error: float) -> Float32[np.ndarray, "q"]:
    """Return the y below which a row whose e is at most `error` cannot reach the floor of each query, rounded down to float32."""
    enough = ((floors - asked.a - asked.b * error) / asked.t).astype(np.float32)
    result: np.ndarray = np.nextafter(enough, np.float32(-np.inf))
    return result
