"""Query expansion: a query moved towards the photos that it finds first, then asked again.

Letters: q queries, g gallery photos, k results, d dimensions.

Average query expansion of Chum et al., ICCV 2007, without their check of each result. Which results count follows from how many
photos of a kind there are around them (`smoothing.kinship`): where the first results stand alone, the query stays as it is.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64, Int64

from zsbir.retrieval.smoothing import SearchFunction
from zsbir.retrieval.whitening import unit_rows

ASKED = 3
"""The first results, whose numbers of kin, on average, say how many results a query is expanded by."""


def result_weights(near: Float32[np.ndarray, "g"], found: Int64[np.ndarray, "q k"]) -> Float64[np.ndarray, "q k"]:
    """Return what each result counts for, from 0 to 1: the first c count fully, with c the mean number of kin of the first ASKED.

    near: how many kin each photo has. Where c is no whole number, one more result counts for the rest.
    """
    first = near.astype(np.float64)[found[:, :ASKED]]
    count = sum(first.T, start=np.zeros(len(found))) / max(first.shape[1], 1)
    weights: np.ndarray = np.clip(count[:, None] - np.arange(found.shape[1]), 0, 1)
    return weights


def expanded(
    queries: Float32[np.ndarray, "q d"],
    gallery: Float32[np.ndarray, "g d"],
    near: Float32[np.ndarray, "g"],
    most: int,
    search: SearchFunction,
) -> Float32[np.ndarray, "q d"]:
    """Return unit rows: each query plus the direction of the weighted sum of its first results.

    gallery: unit vectors of the photos that `search` finds. most: results that a query is expanded by at most. A query whose
    results count for less than one photo moves by as much less.
    """
    found, _ = search(queries, min(most, len(gallery)))
    weights = result_weights(near, found)
    total = np.zeros(queries.shape)
    for photo, weight in zip(found.T, weights.T, strict=True):
        total += weight[:, None] * gallery[photo]
    strength = np.minimum(sum(weights.T, start=np.zeros(len(queries))), 1.0)
    return unit_rows(unit_rows(queries).astype(np.float64) + strength[:, None] * unit_rows(total))


def most_results(near: Float32[np.ndarray, "g"], most: int) -> int:
    """Return how many results a query can be expanded by at most in this gallery: 0 where no photo has kin."""
    return min(most, math.ceil(float(near.max(initial=0.0))))
