"""Checks of an index: each photo is found by its own picture, and search finds what a slow and obvious ranking finds.

Letters: q queries, g gallery photos, d dimensions, n photos tried, k results.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

EQUAL = 1e-6
"""Cosines that differ by less count as equal: float32 embeddings are no more precise."""


def obvious_scores(queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"]) -> Float64[np.ndarray, "q g"]:
    """Return cosines in float64, computed the plain way: the reference for every faster search."""
    left, right = (_unit(vectors.astype(np.float64)) for vectors in (queries, gallery))
    return np.stack([(right * query).sum(axis=1) for query in left])


def recall_at(
    found: Int[np.ndarray, "q k"], queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"]
) -> Float64[np.ndarray, "q"]:
    """Return the share of each query's k results that are among its k best by `obvious_scores`, ties with the k-th included."""
    scores, k = obvious_scores(queries, gallery), found.shape[1]
    kth = np.sort(scores, axis=1)[:, -k][:, None]
    distinct = np.sort(found, axis=1)
    repeated = (distinct[:, 1:] == distinct[:, :-1]).sum(axis=1)  # a photo returned twice is one result
    belong: np.ndarray = (np.take_along_axis(scores, found, axis=1) >= kth - EQUAL).sum(axis=1)
    shares: np.ndarray = np.maximum(belong - repeated, 0) / k
    return shares


def find_themselves(
    embedded: Float[np.ndarray, "n d"], positions: Int[np.ndarray, "n"], gallery: Float[np.ndarray, "g d"], tolerance: float
) -> Bool[np.ndarray, "n"]:
    """Return whether each photo, embedded again, equals the gallery's vector at its position: cosine 1, up to `tolerance`.

    Such a photo finds itself first, since no cosine is larger; a duplicate may rank beside it. To rank first would prove less:
    where all vectors are the same, every photo ranks first.
    """
    own = np.einsum("nd,nd->n", _unit(embedded.astype(np.float64)), _unit(gallery[positions].astype(np.float64)))
    result: np.ndarray = own >= 1 - tolerance
    return result


def _unit(vectors: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Scale rows to length 1. A row of zeros stays: its cosine counts as 0, as in search."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.where(length > 0, length, 1.0)
    return unit
