"""Exact ranking by cosine similarity: the same bits for every chunk size and thread count, in bounded memory.

Letters: q queries, g gallery photos, d dimensions, r relevant photos of a query, k results asked for, n rows.

The score is this project's choice. An ordinary matrix product sums in an order that changes with its shape and the number of
threads, so the last bits of a score, and with them ties and ranks, would depend on the chunk size. Here each unit vector is
rounded to a grid of 2^-26 (finer than float32's own error) and multiplied as integers held in float64: every partial sum is an
integer below 2^53, hence exact, whatever the order of summation, the tile or the BLAS. The exact sum is rounded to float32, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64

from zsbir.base.errors import InputError

GRID_BITS = 26
"""Unit vectors are rounded to multiples of 2^-26: 2 x 26 bits of product and one of sum are float64's 53."""

CHUNK_PAIRS = 1 << 24
"""Query-photo pairs scored at a time: 64 MiB of scores."""

CHUNK_QUERIES = 512
"""Queries scored at a time at most; more make the product no faster."""

TILE_PHOTOS = 4096
"""Photos multiplied at a time, converted to float64: the gallery itself stays in 4 bytes a number."""

RANK_PAIRS = 1 << 17
"""Query-photo pairs ranked at a time by one thread, about 30 bytes each in flight: they stay in the processor's cache."""

BUCKETS = 1 << 16
"""Buckets of scores a query at most: with more, fewer photos share one with a relevant photo, at the cost of memory traffic."""

NORMALISE_ROWS = 256
"""Rows normalised at a time, in float64."""


class Ranked(NamedTuple):
    """Ranks of the relevant photos for some queries of one class."""

    rows: Int64[np.ndarray, "q"]
    """Positions of these queries in the input."""
    positions: Int64[np.ndarray, "q r"]
    """Ranks of the relevant photos, counted from 1, ascending."""
    ties: Int64[np.ndarray, "q"]
    """Relevant photos that share their score with an irrelevant one, so that gallery order decided their rank."""


def on_grid(embeddings: Float[np.ndarray, "n d"], *, name: str = "embeddings", first_row: int = 0) -> Int32[np.ndarray, "n d"]:
    """Scale rows to length 1 and round them to integers, in units of 2^-26. A row of zeros stays zero: its cosine counts as 0.

    first_row: number of the first of these rows in the whole that `name` stands for, by which an error names a row.
    Raises InputError for anything but a matrix of finite numbers with at least one row and column.
    """
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise InputError(f"{name}: expected a matrix of at least one row and column, got shape {embeddings.shape}")
    grid = np.empty(embeddings.shape, np.int32)
    for start in range(0, len(embeddings), NORMALISE_ROWS):
        rows = embeddings[start : start + NORMALISE_ROWS].astype(np.float64)
        squares = np.einsum("nd,nd->n", rows, rows)
        if not np.isfinite(squares).all():
            row = first_row + start + int(np.isfinite(squares).argmin())
            raise InputError(f"{name}: row {row} holds NaN or infinity; look at the training's loss")
        rows *= (2.0**GRID_BITS / np.sqrt(np.where(squares > 0, squares, 1.0)))[:, None]
        grid[start : start + NORMALISE_ROWS] = np.rint(rows, out=rows)
    return grid


def grid_scores(queries: Int32[np.ndarray, "q d"], gallery: Int32[np.ndarray, "g d"]) -> Float32[np.ndarray, "q g"]:
    """Return cosines of rows that `on_grid` made: exact sums, each rounded once."""
    result = np.empty((len(queries), len(gallery)), np.float32)
    left = queries * 2.0 ** (-2 * GRID_BITS)
    for start in range(0, len(gallery), TILE_PHOTOS):
        tile = slice(start, start + TILE_PHOTOS)
        result[:, tile] = left @ gallery[tile].astype(np.float64).T
    return result


def pair_scores(queries: Int32[np.ndarray, "n d"], photos: Int32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n"]:
    """Return the cosine of each query with the photo of the same row, of rows that `on_grid` made: the bits of `grid_scores`."""
    result: np.ndarray = np.vecdot(queries * 2.0 ** (-2 * GRID_BITS), photos.astype(np.float64)).astype(np.float32)
    return result


def scores(queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"]) -> Float32[np.ndarray, "q g"]:
    """Return the cosine similarity of every query with every photo, in [-1, 1]: all q x g at once (`search` bounds its memory).

    Raises InputError as `on_grid` does, and where the dimensions differ.
    """
    query_grid, gallery_grid = _on_one_grid(queries, gallery)
    return grid_scores(query_grid, gallery_grid)


def search(
    queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"], k: int
) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
    """Find the k best photos of each query (all g where k is larger): gallery positions and scores, best first.

    Equal scores are ranked in gallery order. Raises InputError as `scores` does, and for k below 1.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    query_grid, gallery_grid = _on_one_grid(queries, gallery)
    k, bits = min(k, len(gallery)), len(gallery).bit_length()
    indices = np.empty((len(queries), k), np.int64)
    best = np.empty((len(queries), k), np.float32)
    for rows in chunks(len(queries), len(gallery)):
        block = grid_scores(query_grid[rows], gallery_grid)
        keys = _sort_keys(np.zeros((1, 1), np.int64), block, np.arange(len(gallery))[None], bits)
        if k < len(gallery):
            keys = np.partition(keys, k - 1, axis=1)[:, :k]
        keys.sort(axis=1)
        indices[rows] = keys & ((1 << bits) - 1)
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
    """Yield the ranks of all relevant photos (those of the query's class), for every query, class by class.

    Every metric of a ranking follows from these. Raises InputError as `scores` does.
    """
    import torch

    query_grid, gallery_grid = _on_one_grid(queries, gallery)
    order = np.argsort(query_labels, kind="stable")
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for rows in chunks(len(queries), len(gallery), chunk_pairs):
            chunk = order[rows]
            block = grid_scores(query_grid[chunk], gallery_grid)
            # Within a chunk the queries of one class are neighbours, and have the same number of relevant photos.
            cuts = np.flatnonzero(np.diff(query_labels[chunk])) + 1
            for part, same in zip(np.split(chunk, cuts), np.split(block, cuts), strict=True):
                relevant = gallery_labels == query_labels[part[0]]
                pieces = [same[few] for few in chunks(len(part), len(gallery), RANK_PAIRS)]
                found = list(pool.map(positions_in, pieces, repeat(relevant)))
                yield Ranked(part, np.concatenate([piece[0] for piece in found]), np.concatenate([piece[1] for piece in found]))


def positions_in(
    block: Float32[np.ndarray, "q g"], relevant: Bool[np.ndarray, "g"]
) -> tuple[Int64[np.ndarray, "q r"], Int64[np.ndarray, "q"]]:
    """Return the ranks (from 1, ascending) of the photos marked in `relevant`, for each row of scores, and how many are tied.

    Sorting whole rows would cost more than the matrix product. A rank is a count, so all scores are counted into narrow
    buckets, best first, and sorted only where a bucket holds a relevant photo. The others only add to the ranks behind them.
    Rows times photos must stay below 2^30, or be one row: a sort key has 64 bits.
    """
    queries, photos = block.shape
    bits = photos.bit_length()
    count = min(1 << bits, BUCKETS)
    buckets = _buckets(block, count)
    wanted = np.zeros(queries * count, bool)
    wanted[buckets[:, np.flatnonzero(relevant)]] = True
    others = np.bincount(buckets.ravel(), minlength=len(wanted))
    others[wanted] = 0
    pushed = np.cumsum(others.reshape(queries, count), axis=1).ravel()

    near = np.flatnonzero(wanted[buckets])
    first = np.searchsorted(near, np.arange(queries + 1) * photos)
    rows = np.repeat(np.arange(queries), np.diff(first))
    keys = np.sort(_sort_keys(rows, block.ravel()[near], near - rows * photos, bits))
    columns = keys & ((1 << bits) - 1)
    hits = np.flatnonzero(relevant[columns])
    row = rows[hits]
    positions = hits - first[row] + pushed[buckets[row, columns[hits]]] + 1
    return positions.reshape(queries, -1), np.bincount(row[_tied(keys >> bits, hits)], minlength=queries)


def _buckets(block: Float32[np.ndarray, "q g"], count: int) -> Int64[np.ndarray, "q g"]:
    """Return a bucket for each score: row times `count`, plus its position between the row's best (0) and worst score.

    Subtracting, scaling and truncating never reverse the order of two scores, and equal scores share a bucket.
    """
    best = block.max(axis=1, keepdims=True)
    span = np.maximum(best - block.min(axis=1, keepdims=True), np.float32(1e-30))
    bucket: np.ndarray = ((best - block) * (np.float32(count - 1) / span)).astype(np.int64)
    bucket += np.arange(len(block))[:, None] * count
    return bucket


def _tied(values: Int64[np.ndarray, "n"], hits: Int64[np.ndarray, "h"]) -> Bool[np.ndarray, "h"]:
    """Return for each hit, a position in the ascending `values`, whether a value beside the hits equals it."""
    tied, twin = np.zeros(len(hits), bool), np.zeros(len(values), bool)
    pairs = np.flatnonzero(values[1:] == values[:-1])
    twin[pairs], twin[pairs + 1] = True, True
    some = np.flatnonzero(twin[hits])
    begin = np.searchsorted(values, values[hits[some]], "left")
    end = np.searchsorted(values, values[hits[some]], "right")
    tied[some] = np.searchsorted(hits, end) - np.searchsorted(hits, begin) < end - begin
    return tied


def chunks(queries: int, gallery: int, chunk_pairs: int = CHUNK_PAIRS) -> Iterator[slice]:
    """Yield slices of the queries of at most `chunk_pairs` query-photo pairs and CHUNK_QUERIES queries, at least one query each."""
    step = min(CHUNK_QUERIES, max(1, chunk_pairs // max(1, gallery)))
    for start in range(0, queries, step):
        yield slice(start, min(queries, start + step))


def _on_one_grid(queries: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    query_grid, gallery_grid = on_grid(queries, name="queries"), on_grid(gallery, name="gallery")
    if query_grid.shape[1] != gallery_grid.shape[1]:
        raise InputError(
            f"queries have {query_grid.shape[1]} dimensions, the gallery {gallery_grid.shape[1]}; embed both with one encoder"
        )
    return query_grid, gallery_grid


def _sort_keys(
    rows: Int64[np.ndarray, "*#n"], scores: Float32[np.ndarray, "*#n"], columns: Int64[np.ndarray, "*#n"], column_bits: int
) -> Int64[np.ndarray, "*n"]:
    """Return an integer for each pair whose ascending order is: row, then score descending, then gallery order."""
    bits = (scores + np.float32(0.0)).view(np.int32)  # + 0.0 turns -0.0, which has other bits, into 0.0
    ascending = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    descending = np.int64(0x7FFFFFFF) - ascending
    keys: np.ndarray = (rows << 32 | descending) << column_bits | columns
    return keys
