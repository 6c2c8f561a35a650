"""What an index is held to: each photo is found by its own picture, and search finds what a slow and obvious ranking finds.

Letters: q queries, g gallery photos, d dimensions, n photos tried, k results.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

EQUAL = 1e-6
"""Cosines that differ by less count as equal: float32 embeddings say no more."""


def obvious_scores(queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"]) -> Float64[np.ndarray, "q g"]:
    """Cosines in float64, without anything clever: the reference that every faster search is compared with."""
    left, right = (_unit(vectors.astype(np.float64)) for vectors in (queries, gallery))
    return np.stack([(right * query).sum(axis=1) for query in left])


def recall_at(
    found: Int[np.ndarray, "q k"], queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"]
) -> Float64[np.ndarray, "q"]:
    """Of each query's k results the share that belong among its k best by `obvious_scores`. A tie with the k-th best belongs."""
    scores, k = obvious_scores(queries, gallery), found.shape[1]
    kth = np.sort(scores, axis=1)[:, -k][:, None]
    distinct = np.sort(found, axis=1)
    repeated = (distinct[:, 1:] == distinct[:, :-1]).sum(axis=1)  # a photo returned twice is one result
    belong: np.ndarray = (np.take_along_axis(scores, found, axis=1) >= kth - EQUAL).sum(axis=1)
    shares: np.ndarray = np.maximum(belong - repeated, 0) / k
    return shares


def find_themselves(
    anew: Float[np.ndarray, "n d"], places: Int[np.ndarray, "n"], gallery: Float[np.ndarray, "g d"], tolerance: float
) -> Bool[np.ndarray, "n"]:
    """Whether the vector at its place is each photo's own: their cosine is 1, up to `tolerance`.

    Such a photo finds itself first, since no cosine is larger; a duplicate may stand beside it. Coming first alone would not do:
    where all vectors are one, each photo is the first.
    """
    own = np.einsum("nd,nd->n", _unit(anew.astype(np.float64)), _unit(gallery[places].astype(np.float64)))
    result: np.ndarray = own >= 1 - tolerance
    return result


def _unit(vectors: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Rows of length 1. A row of zeros stays: its cosine counts as 0, as in search."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.where(length > 0, length, 1.0)
    return unit
