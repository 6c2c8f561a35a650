"""One row: a setting's average precision by class, on a gallery thinned to some photos of each class."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from bench.search_quality.settings import DRAWS, Setting

from zsbir.evaluation.metrics import evaluate_embeddings
from zsbir.retrieval.prepared import PreparedGallery, mean_of_views, prepare_gallery, searching
from zsbir.retrieval.whitening import DomainStatistics, measure_statistics, unit_rows

TIMED_QUERIES = 30


def measure(table: dict[str, np.ndarray], setting: Setting, photos: int) -> dict[str, Any]:
    """Return the mean over queries, that of each class, and the cost. photos: of each class, drawn DRAWS times; 0: all of them."""
    queries, gallery = (_vectors(table, side, setting) for side in ("sketch", "photo"))
    statistics = _statistics(table, setting)
    labels = table["sketch_labels"]
    values, prepared = [], None
    draws = range(DRAWS if photos else 1)
    began = time.perf_counter()
    for draw in draws:
        rows = thinned(table["photo_labels"], photos, draw)
        prepared = prepare_gallery(gallery[rows], setting.options, statistics)
        result = evaluate_embeddings(prepared.queries(queries), labels, prepared.vectors, table["photo_labels"][rows])
        values.append(result.per_query["map_all"])
    seconds = time.perf_counter() - began
    assert prepared is not None
    mean = np.mean(values, axis=0)
    classes = np.unique(labels)
    return {
        "map_all": float(mean.mean()),
        "classes": classes.tolist(),
        "class_means": [float(mean[labels == label].mean()) for label in classes],
        "class_queries": [int((labels == label).sum()) for label in classes],
        "near": float(prepared.near.mean()),
        "query_ms": _query_ms(prepared, queries),
        "seconds": seconds,
    }


def thinned(labels: np.ndarray, photos: int, draw: int) -> np.ndarray:
    """Return positions of at most that many photos of each class, drawn at random; of all photos for 0."""
    if not photos:
        return np.arange(len(labels))
    random = np.random.default_rng(draw)
    return np.sort(np.concatenate([random.permutation(np.flatnonzero(labels == label))[:photos] for label in np.unique(labels)]))


def _vectors(table: dict[str, np.ndarray], side: str, setting: Setting) -> np.ndarray:
    rows = table[side]
    half = rows.shape[1] // 2
    views = [_space(rows[:, :half], setting), _space(rows[:, half:], setting)]
    return mean_of_views(np.concatenate(views, axis=1)) if setting.options.flip else views[0]


def _space(rows: np.ndarray, setting: Setting) -> np.ndarray:
    """Return the embedding alone, or with the pooled features beside it. The networks here have 512 dimensions of either."""
    return unit_rows(rows) if setting.pooled else rows[:, : rows.shape[1] // 2]


def _statistics(table: dict[str, np.ndarray], setting: Setting) -> DomainStatistics | None:
    if not setting.options.needs_statistics:
        return None
    sides = [(_space(table[f"train_{side}"], setting), table[f"train_{side}_labels"]) for side in ("sketch", "photo")]
    return measure_statistics(*sides[0], *sides[1])


def _query_ms(prepared: PreparedGallery, queries: np.ndarray) -> float:
    """Return the median milliseconds of one query, its expansion and its search by a scan that is kept, once it is embedded."""
    times, search = [], searching(prepared.vectors)
    for row in range(min(TIMED_QUERIES, len(queries))):
        began = time.perf_counter()
        search(prepared.queries(queries[row : row + 1], search), 24)
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))
