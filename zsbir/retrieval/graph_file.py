"""The links of an HNSW graph as a file that can be checked, and faiss's index made of it.

faiss's own files are not read: a reader written in C++ that trusts the numbers in a file would follow them anywhere. This file
holds three arrays, every number of which is compared with what it may be before faiss gets it. A hostile file can make a search
find less, nothing else: what it finds is scored from the vectors.

Letters: n rows, l links.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from zsbir.base.errors import InputError

LINKS = (8, 128)
"""Fewest and most links of a row on the upper levels; on the lowest it has twice as many."""

ARRAYS = {"levels": np.uint8, "links": np.int32, "entry": np.int64}


class Links(NamedTuple):
    """An HNSW graph (Malkov and Yashunin, arXiv 1603.09320) in the order in which faiss keeps it."""

    levels: UInt8[np.ndarray, "n"]
    """How many levels each row is on, from 1."""
    links: Int32[np.ndarray, "l"]
    """For each row its neighbours on level 0, then those on level 1 and so on; -1 where it has no more."""
    entry: Int64[np.ndarray, "2"]
    """The row at which a search starts, and the links that a row has on an upper level."""


def places(levels: UInt8[np.ndarray, "n"], width: int) -> Int64[np.ndarray, "n+1"]:
    """Return where each row's links begin, and where the last one's end."""
    return np.concatenate([[0], np.cumsum((levels.astype(np.int64) + 1) * width)])


def most_levels(width: int) -> int:
    """Return on how many levels a row may be, by its links: faiss has a table of these levels, and reads past its end for more."""
    import faiss

    return int(faiss.IndexHNSWFlat(1, width).hnsw.cum_nneighbor_per_level.size()) - 1


def save(path: Path, graph: Links) -> None:
    """Write a graph as a file of safetensors."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in graph._asdict().items()}, path)


def load(path: Path, rows: int, where: str) -> Links:
    """Read the graph of a gallery. where: what errors call the file.

    Raises InputError for a file that is damaged or belongs to another number of rows.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if set(file.keys()) != set(ARRAYS):
                raise InputError(f"{where}: not a graph: it holds {sorted(file.keys())[:5]}")
            if file.get_slice("levels").get_shape() != [rows]:
                raise InputError(f"{where}: a graph of other vectors: build it anew")
            graph = Links(**{name: file.get_tensor(name) for name in ARRAYS})
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InputError(f"{where}: cannot be read as a graph: {error}") from None
    if reason := _wrong(graph):
        raise InputError(f"{where}: a damaged graph: {reason}; build it anew")
    return graph


def _wrong(graph: Links) -> str:
    """Return what is wrong with a graph, by checks that leave no number unlooked at; empty if nothing is."""
    levels, links, entry = graph
    if [array.dtype for array in graph] != list(ARRAYS.values()) or entry.shape != (2,) or links.ndim != 1:
        return "arrays of other types"
    start, width = entry.tolist()
    if not LINKS[0] <= width <= LINKS[1]:
        return f"{width} links a row"
    if not 1 <= levels.min() <= levels.max() <= most_levels(width) or not 0 <= start < len(levels) or levels[start] != levels.max():
        return "levels out of range, or a start that is not on the highest one"
    return _wrong_links(levels, links, width)


def _wrong_links(levels: UInt8[np.ndarray, "n"], links: Int32[np.ndarray, "_"], width: int) -> str:
    """Return what is wrong with the links of rows that are on these levels."""
    begin = places(levels, width)
    if len(links) != begin[-1]:
        return f"{len(links)} links instead of {begin[-1]}"
    if links.min() < -1 or links.max() >= len(levels):
        return "links to rows that do not exist"
    for level in range(1, int(levels.max())):
        above = np.flatnonzero(levels > level)
        here = links[begin[above][:, None] + (level + 1) * width + np.arange(width)]
        if (levels[here[here >= 0]] <= level).any():
            return f"links on level {level} to rows that are not on it"
    return ""


def from_faiss(index: Any) -> Links:
    """Take the links out of a `faiss.IndexHNSW`."""
    import faiss

    hnsw = index.hnsw
    return Links(
        faiss.vector_to_array(hnsw.levels).astype(np.uint8),
        faiss.vector_to_array(hnsw.neighbors),
        np.array([hnsw.entry_point, hnsw.nb_neighbors(1)], np.int64),
    )


def into_faiss(index: Any, graph: Links) -> None:
    """Give links to an empty `faiss.IndexHNSW` with as many links a row, whose storage holds the vectors."""
    import faiss

    start, width = graph.entry.tolist()
    index.ntotal = len(graph.levels)
    faiss.copy_array_to_vector(graph.levels.astype(np.int32), index.hnsw.levels)
    faiss.copy_array_to_vector(places(graph.levels, width).astype(np.uint64), index.hnsw.offsets)
    faiss.copy_array_to_vector(graph.links, index.hnsw.neighbors)
    index.hnsw.entry_point, index.hnsw.max_level = start, int(graph.levels[start]) - 1
