"""Exact ranking by cosine similarity: the same bits on every machine, in bounded memory.

Letters: q queries, g gallery photos, d dimensions, r relevant photos of a query, k results asked for, n rows.

The score is this project's choice. An ordinary matrix product sums in an order that changes with its shape and the number of
threads, so the last bits of a score, and with them ties and ranks, would depend on the chunk size. Here each unit vector is
rounded to a grid of 2^-26 (finer than float32's own error) and multiplied as integers held in float64: every partial sum is an
integer below 2^53, hence exact, whatever the order of summation, the tile or the BLAS. The exact sum is rounded to float32, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64

from zsbir.base.errors import InputError

GRID_BITS = 26
"""Unit vectors are rounded to multiples of 2^-26: 2 x 26 bits of product and one of sum are float64's 53."""

CHUNK_PAIRS = 1 << 22
"""Query-photo pairs scored at a time, about 32 bytes each in flight (128 MiB)."""

NORMALISE_ROWS = 4096
"""Rows normalised at a time, in float64."""


class Ranked(NamedTuple):
    """Where the relevant photos of some queries of one class stand in their rankings."""

    rows: Int64[np.ndarray, "q"]
    """Positions of these queries in the input."""
    positions: Int64[np.ndarray, "q r"]
    """Ranks of the relevant photos, counted from 1, ascending."""
    ties: Int64[np.ndarray, "q"]
    """Relevant photos that share their score with an irrelevant one, so that gallery order decided their rank."""


def on_grid(embeddings: Float[np.ndarray, "n d"], *, name: str = "embeddings") -> Int32[np.ndarray, "n d"]:
    """Rows scaled to length 1 and rounded to integers, in units of 2^-26. A row of zeros stays zero: its cosine counts as 0.

    Raises InputError for anything but a matrix of finite numbers with at least one row and column.
    """
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise InputError(f"{name}: expected a matrix of at least one row and column, got shape {embeddings.shape}")
    grid = np.empty(embeddings.shape, np.int32)
    for start in range(0, len(embeddings), NORMALISE_ROWS):
        rows = embeddings[start : start + NORMALISE_ROWS].astype(np.float64)
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise InputError(f"{name}: row {start + int(bad.argmax())} holds NaN or infinity; look at the training's loss")
        # The largest component first, so that squares neither overflow nor vanish.
        rows /= np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        lengths = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
        grid[start : start + NORMALISE_ROWS] = np.rint(rows * (2.0**GRID_BITS / np.maximum(lengths, 1.0)))
    return grid


def grid_scores(queries: Int32[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"]) -> Float32[np.ndarray, "q g"]:
    """Cosines of rows that lie on the grid already; `gallery` holds the integers as float64."""
    products: np.ndarray = queries.astype(np.float64) @ gallery.T
    products *= 2.0 ** (-2 * GRID_BITS)
    return products.astype(np.float32)


def scores(queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"]) -> Float32[np.ndarray, "q g"]:
    """Cosine similarity of every query with every photo, in [-1, 1]. All q x g at once: `search` is the one with bounded memory.

    Raises InputError as `on_grid` does, and where the dimensions differ.
    """
    query_grid, gallery_grid = _on_one_grid(queries, gallery)
    return grid_scores(query_grid, gallery_grid)


def search(
    queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"], k: int
) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
    """The k best photos of each query (all g where k is larger): gallery positions, and scores, best first.

    Equal scores stand in gallery order. Raises InputError as `scores` does, and for k below 1.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    query_grid, gallery_grid = _on_one_grid(queries, gallery)
    k = min(k, len(gallery))
    indices = np.empty((len(queries), k), np.int64)
    best = np.empty((len(queries), k), np.float32)
    for rows in chunks(len(queries), len(gallery)):
        block = grid_scores(query_grid[rows], gallery_grid)
        keys = _keys(block)
        if k < len(gallery):
            keys = np.partition(keys, k - 1, axis=1)[:, :k]
        keys.sort(axis=1)
        indices[rows] = _columns(keys)
        best[rows] = np.take_along_axis(block, indices[rows], axis=1)
    return indices, best


def relevant_positions(
    queries: Float[np.ndarray, "q d"],
    query_labels: Int[np.ndarray, "q"],
    gallery: Float[np.ndarray, "g d"],
    gallery_labels: Int[np.ndarray, "g"],
    *,
    chunk_pairs: int = CHUNK_PAIRS,
) -> Iterator[Ranked]:
    """The ranks of all relevant photos (those of the query's class), for every query, class by class.

    Every metric of a ranking follows from these. Raises InputError as `scores` does.
    """
    query_grid, gallery_grid = _on_one_grid(queries, gallery)
    order = np.argsort(query_labels, kind="stable")
    for rows in chunks(len(queries), len(gallery), chunk_pairs):
        chunk = order[rows]
        block = grid_scores(query_grid[chunk], gallery_grid)
        labels = query_labels[chunk]
        # Within a chunk the queries of one class are neighbours, and have the same number of relevant photos.
        cuts = np.flatnonzero(np.diff(labels)) + 1
        for part, same in zip(np.split(chunk, cuts), np.split(block, cuts), strict=True):
            relevant = gallery_labels == query_labels[part[0]]
            yield Ranked(part, *positions_in(same, relevant))


def positions_in(
    block: Float32[np.ndarray, "q g"], relevant: Bool[np.ndarray, "g"]
) -> tuple[Int64[np.ndarray, "q r"], Int64[np.ndarray, "q"]]:
    """Ranks (from 1, ascending) of the photos marked in `relevant`, for each row of scores, and how many of them are tied."""
    keys = _keys(block)
    keys.sort(axis=1)
    hits = relevant[_columns(keys)]
    positions = np.nonzero(hits)[1].reshape(len(block), -1) + 1
    values = keys >> 32
    ties = _tied(values, hits)
    return positions, ties


def _tied(values: Int64[np.ndarray, "q g"], hits: Bool[np.ndarray, "q g"]) -> Int64[np.ndarray, "q"]:
    """Relevant photos in runs of equal values that also hold an irrelevant one."""
    starts = np.ones(values.shape, bool)
    starts[:, 1:] = values[:, 1:] != values[:, :-1]
    run = np.cumsum(starts.ravel()) - 1
    size, inside = np.bincount(run), np.bincount(run, weights=hits.ravel()).astype(np.int64)
    row_of_run = np.nonzero(starts)[0]
    mixed = np.where(inside < size, inside, 0)
    return np.bincount(row_of_run, weights=mixed, minlength=len(values)).astype(np.int64)


def chunks(queries: int, gallery: int, chunk_pairs: int = CHUNK_PAIRS) -> Iterator[slice]:
    """Slices of the queries of at most `chunk_pairs` query-photo pairs, at least one query each."""
    step = max(1, chunk_pairs // max(1, gallery))
    for start in range(0, queries, step):
        yield slice(start, min(queries, start + step))


def _on_one_grid(queries: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    query_grid, gallery_grid = on_grid(queries, name="queries"), on_grid(gallery, name="gallery")
    if query_grid.shape[1] != gallery_grid.shape[1]:
        raise InputError(
            f"queries have {query_grid.shape[1]} dimensions, the gallery {gallery_grid.shape[1]}; embed both with one encoder"
        )
    return query_grid, gallery_grid.astype(np.float64)


def _keys(block: Float32[np.ndarray, "q g"]) -> Int64[np.ndarray, "q g"]:
    """One integer a pair whose ascending order is: score descending, then gallery order."""
    bits = (block + np.float32(0.0)).view(np.int32)  # + 0.0 turns -0.0, which has other bits, into 0.0
    ascending = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    return (~ascending).astype(np.int64) << 32 | np.arange(block.shape[1], dtype=np.int64)


def _columns(keys: Int64[np.ndarray, "q g"]) -> Int64[np.ndarray, "q g"]:
    return keys & 0xFFFFFFFF
