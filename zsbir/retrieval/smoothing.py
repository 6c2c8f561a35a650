"""Gallery vectors smoothed over their nearest neighbours, each weighted by how surely it shows the same kind of thing.

Letters: n photos, k neighbours, m decoys, d dimensions.

A network that has to match sketches with photos compares photos with photos far better. So the mean of a photo and its neighbours
is easier to find than the photo, provided that the neighbours are of its kind. How many are depends on the gallery: a catalogue
shows each thing once, a photo album a hundred times, and a fixed number of neighbours that helps in the album ruins the catalogue.

The rule here reads that from the gallery, by target and decoy as in protein identification (Elias and Gygi, Nature Methods 4
(2007) 207). Decoys are photos that the network was trained on: they show other things than an unseen photo does. If they are as
near to a photo as its neighbours are, the neighbours are no kin. Of n photos, n p are expected by chance within the distance of a
neighbour that stands at rank r, with p the share of decoys that are as near, so n p / r of the first r neighbours are false. Beyond
the nearest decoys the share follows an exponential tail (peaks over threshold: Pickands, Annals of Statistics 3 (1975) 119). The
use of the rule for images is this project's choice, and so is `caution`, a factor on that share: unseen kinds lie closer together
than trained ones do (docs/benchmarks/2026-11-30-search-quality.md).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Float64, Int64

from zsbir.retrieval.exact import grid_scores, on_grid
from zsbir.retrieval.whitening import unit_rows

SearchFunction = Callable[[Float32[np.ndarray, "q d"], int], tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]]
"""A search of a gallery: positions and scores of the k best photos of each query, best first, as `exact.search` returns them."""

TAIL = 16
"""The nearest decoys, by which the tail of their similarities is estimated; of fewer than four times as many, a quarter."""

FEWEST_DECOYS = 8
"""With fewer decoys nothing is known about chance, and every weight is 0."""

BLOCK = 256
"""Photos handled at a time: the comparison with 1,000 decoys takes 2.5 MB for ten neighbours each."""


def neighbours(
    gallery: Float32[np.ndarray, "n d"], k: int, search: SearchFunction
) -> tuple[Int64[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
    """Return the k nearest other photos of each photo, and their similarities; all n - 1 others where k is larger.

    search: finds in this gallery. An exact copy of a photo is a neighbour like any other.
    """
    k = min(k, len(gallery) - 1)
    ids, scores = np.empty((len(gallery), k), np.int64), np.empty((len(gallery), k), np.float32)
    for start in range(0, len(gallery), BLOCK):
        rows = slice(start, start + BLOCK)
        found, similarity = search(gallery[rows], k + 1)
        others = found != np.arange(len(gallery))[rows, None]
        others[others.all(axis=1), -1] = False  # more than k copies rank before the photo itself: the last one goes
        ids[rows] = found[others].reshape(-1, k)
        scores[rows] = similarity[others].reshape(-1, k)
    return ids, scores


def kinship(
    gallery: Float32[np.ndarray, "n d"],
    similarities: Float32[np.ndarray, "n k"],
    decoys: Float32[np.ndarray, "m d"],
    caution: float,
) -> Float32[np.ndarray, "n k"]:
    """Return how surely each neighbour is of its photo's kind, from 0 to 1, never rising along a row.

    similarities: to the neighbours, best first. caution: how many times as many false neighbours to expect as the decoys tell; 0:
    every weight is 1, and the number of neighbours is fixed.
    """
    if caution == 0:
        return np.ones(similarities.shape, np.float32)
    if len(decoys) < FEWEST_DECOYS or not similarities.shape[1]:
        return np.zeros(similarities.shape, np.float32)
    grid, ranks = on_grid(decoys, name="decoys"), np.arange(1, similarities.shape[1] + 1)
    weights = np.empty(similarities.shape, np.float32)
    for start in range(0, len(gallery), BLOCK):
        rows = slice(start, start + BLOCK)
        chance = _share_as_near(similarities[rows], grid_scores(on_grid(gallery[rows]), grid))
        false = np.maximum.accumulate(caution * len(gallery) * chance / ranks, axis=1)
        weights[rows] = np.clip(1 - false, 0, 1)
    return weights


def _share_as_near(similarities: Float32[np.ndarray, "b k"], to_decoys: Float32[np.ndarray, "b m"]) -> Float64[np.ndarray, "b k"]:
    """Return the share of decoys at least as similar as each neighbour; beyond the nearest ones, by an exponential tail."""
    decoys = to_decoys.shape[1]
    tail = min(TAIL, decoys // 4)
    nearest = np.sort(to_decoys, axis=1)[:, -tail:].astype(np.float64)
    threshold = nearest[:, :1]
    spread = np.maximum((nearest - threshold).sum(axis=1, keepdims=True) / max(tail - 1, 1), 1e-4)
    counted = (to_decoys[:, None, :] >= similarities[:, :, None]).sum(axis=2) / decoys
    beyond = np.maximum(similarities - threshold, 0)
    share: np.ndarray = np.where(similarities >= threshold, tail / decoys * np.exp(-beyond / spread), counted)
    return share


def smoothed(
    gallery: Float32[np.ndarray, "n d"], ids: Int64[np.ndarray, "n k"], weights: Float32[np.ndarray, "n k"]
) -> Float32[np.ndarray, "n d"]:
    """Return unit rows: each photo's unit vector plus those of its neighbours, times their weights.

    The sum is taken in float64 in the order of the neighbours, so the bits of a row do not depend on the other rows.
    """
    unit, result = unit_rows(gallery), np.empty(gallery.shape, np.float32)
    for start in range(0, len(gallery), BLOCK):
        rows = slice(start, start + BLOCK)
        total = unit[rows].astype(np.float64)
        for near, weight in zip(ids[rows].T, weights[rows].T, strict=True):
            total += weight[:, None].astype(np.float64) * unit[near]
        result[rows] = unit_rows(total)
    return result
