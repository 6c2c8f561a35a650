"""All retrieval metrics of the field under names that carry their convention, exact, in one pass over the rankings.

Letters: q queries, g gallery photos, d dimensions, r relevant photos of a query.

Every metric is a function of the ranks of the relevant photos. With p_j the rank of the j-th relevant one, the precision there
is j / p_j; "VOC" replaces it by the envelope, the largest precision at this rank or later.

    map_all          mean of the precision over all r relevant photos (finite sum)           torchmetrics, most papers
    map_at_200_min   sum over hits in the first 200, divided by min(200, r)                  few
    map_at_200_hits  ... divided by the hits in the first 200 (0 where there are none)       SEM-PCYC, ClipPrompt, torchmetrics
    map_at_200_k     ... divided by 200                                                      Yelamarthi
    p_at_100, _200   hits in the first k, divided by k                                       SAKE, DSN, TCN
    p_at_100_min ... hits in the first min(k, r), divided by min(k, r)                       ZSE-SBIR
    map_all_voc      map_all with the envelope instead                                       SAKE, DSN, TCN, MATHM, ZSE-SBIR
    map_at_200_min_voc   map_at_200_min with the envelope: the comparable one                SAKE, DSN, TCN, TVT, ZSE-SBIR

A gallery smaller than k counts as k, as in SAKE's code.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError
from zsbir.base.events import Progress
from zsbir.evaluation.intervals import Interval, class_means, interval_over_classes
from zsbir.retrieval.exact import CHUNK_PAIRS, relevant_positions

METRICS = (
    "map_all",
    "map_all_voc",
    "map_at_200_min",
    "map_at_200_min_voc",
    "map_at_200_hits",
    "map_at_200_k",
    "p_at_100",
    "p_at_200",
    "p_at_100_min",
    "p_at_200_min",
)
"""Every metric, in the order of the tables."""


def named_metric(text: str) -> tuple[str, bool]:
    """Return a metric's name, and whether classes count alike (`map_all/macro`) or queries do. InputError for an unknown one."""
    name, _, macro = text.partition("/")
    if name not in METRICS or macro not in ("", "macro"):
        raise InputError(unknown_name("metric", text, [*METRICS, *(f"{known}/macro" for known in METRICS)]))
    return name, bool(macro)


RECALLS = np.arange(101) / 100
"""Recall levels of the precision-recall curve."""


class PrecisionRecall(NamedTuple):
    """Mean precision over queries at 101 recall levels."""

    recall: Float64[np.ndarray, "101"]
    interpolated: Float64[np.ndarray, "101"]
    """The largest precision at this recall or a higher one (VOC's envelope)."""
    raw: Float64[np.ndarray, "101"]
    """The precision where this recall is first reached."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one ranking of a gallery by every query."""

    per_query: dict[str, Float64[np.ndarray, "q"]]
    """Each metric of METRICS for each query, in [0, 1]."""
    query_labels: Int[np.ndarray, "q"]
    relevant: Int64[np.ndarray, "q"]
    """How many gallery photos are of the query's class."""
    gallery_size: int
    ties: int
    """Pairs of a query and a relevant photo whose score an irrelevant photo has too: there gallery order decided."""
    pr_curve: PrecisionRecall

    def summary(self) -> dict[str, float]:
        """Return means by name: `<metric>` over queries (micro), `<metric>/macro` over class means."""
        micro = {name: float(values.mean()) for name, values in self.per_query.items()}
        macro = {f"{name}/macro": float(self._class_means(values).mean()) for name, values in self.per_query.items()}
        return micro | macro

    def interval(self, name: str, level: float = 0.95) -> Interval | None:
        """Return the interval over classes of a mean of `summary`, by its name there; None where all queries are of one class.

        It says what this model's mean would be over other classes of the same kind. Raises InputError for an unknown metric.
        """
        metric, _, macro = name.partition("/")
        if metric not in self.per_query or macro not in ("", "macro"):
            raise InputError(unknown_name("metric", name, self.summary()))
        return interval_over_classes(self.per_query[metric], self.query_labels, level=level, macro=bool(macro))

    def per_class(self) -> list[dict[str, Any]]:
        """Return a row a class, by class id: `class_id`, `queries`, `relevant`, and each metric's mean over the class's queries."""
        classes, first, counts = np.unique(self.query_labels, return_index=True, return_counts=True)
        means = {name: self._class_means(values) for name, values in self.per_query.items()}
        return [
            {"class_id": int(label), "queries": int(counts[row]), "relevant": int(self.relevant[first[row]])}
            | {name: float(values[row]) for name, values in means.items()}
            for row, label in enumerate(classes)
        ]

    def _class_means(self, values: Float64[np.ndarray, "q"]) -> Float64[np.ndarray, "c"]:
        return class_means(values, self.query_labels).means


def evaluate_embeddings(
    query_embeddings: Float[np.ndarray, "q d"],
    query_labels: Int[np.ndarray, "q"],
    gallery_embeddings: Float[np.ndarray, "g d"],
    gallery_labels: Int[np.ndarray, "g"],
    *,
    progress: bool = False,
    chunk_pairs: int = CHUNK_PAIRS,
) -> Evaluation:
    """Rank the whole gallery for every query and compute every metric. The result does not depend on `chunk_pairs`.

    Raises InputError for empty input, NaN, shapes that do not match, and a query class without a photo in the gallery.
    """
    query_labels, gallery_labels = np.asarray(query_labels), np.asarray(gallery_labels)
    _check_labels("query", query_embeddings, query_labels)
    _check_labels("gallery", gallery_embeddings, gallery_labels)
    relevant = _count_relevant(query_labels, gallery_labels)
    per_query = {name: np.empty(len(query_labels)) for name in METRICS}
    curves = np.zeros((2, len(RECALLS), len(query_labels)), np.float32)
    ties = 0
    with Progress("rank", total=len(query_labels), unit="ranking") if progress else nullcontext() as bar:
        for ranked in relevant_positions(
            query_embeddings, query_labels, gallery_embeddings, gallery_labels, chunk_pairs=chunk_pairs
        ):
            for name, values in metrics_of(ranked.positions, len(gallery_labels)).items():
                per_query[name][ranked.rows] = values
            curves[:, :, ranked.rows] = _curve(ranked.positions)
            ties += int(ranked.ties.sum())
            if bar:
                bar.advance(len(ranked.rows))
    interpolated, raw = curves.mean(axis=2, dtype=np.float64)
    return Evaluation(per_query, query_labels, relevant, len(gallery_labels), ties, PrecisionRecall(RECALLS, interpolated, raw))


def metrics_of(positions: Int64[np.ndarray, "q r"], gallery_size: int) -> dict[str, Float64[np.ndarray, "q"]]:
    """Compute every metric for queries that all have r > 0 relevant photos at these ranks (from 1, ascending)."""
    precision = np.arange(1, positions.shape[1] + 1) / positions
    values = {"map_all": precision.mean(axis=1), "map_all_voc": envelope(precision).mean(axis=1)}
    values |= map_at(positions, 200, gallery_size)
    values |= precision_at(positions, 100, gallery_size) | precision_at(positions, 200, gallery_size)
    return {name: values[name] for name in METRICS}


def map_at(positions: Int64[np.ndarray, "q r"], k: int, gallery_size: int) -> dict[str, Float64[np.ndarray, "q"]]:
    """Compute average precision over the first k ranks by each divisor: `map_at_<k>_min`, `_min_voc`, `_hits`, `_k`."""
    relevant, cut = positions.shape[1], min(k, gallery_size)
    positions = positions[:, :k]  # the j-th relevant photo stands at rank j or later
    inside = positions <= cut
    # Beyond the cut there is no precision: set to zero it adds nothing, to the sum or to the envelope.
    precision = np.where(inside, np.arange(1, positions.shape[1] + 1) / positions, 0.0)
    total = precision.sum(axis=1)
    return {
        f"map_at_{k}_min": total / min(cut, relevant),
        f"map_at_{k}_min_voc": envelope(precision).sum(axis=1) / min(cut, relevant),
        f"map_at_{k}_hits": total / np.maximum(inside.sum(axis=1), 1),
        f"map_at_{k}_k": total / cut,
    }


def precision_at(positions: Int64[np.ndarray, "q r"], k: int, gallery_size: int) -> dict[str, Float64[np.ndarray, "q"]]:
    """Compute the share of hits among the first k ranks (`p_at_<k>`) and among the first min(k, r) (`p_at_<k>_min`)."""
    cuts = {f"p_at_{k}": min(k, gallery_size), f"p_at_{k}_min": min(k, positions.shape[1])}
    return {name: (positions[:, :cut] <= cut).sum(axis=1) / cut for name, cut in cuts.items()}


def envelope(precision: Float64[np.ndarray, "q r"]) -> Float64[np.ndarray, "q r"]:
    """Return the largest precision at each relevant photo or a later one, as in PASCAL VOC's average precision."""
    result: np.ndarray = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return result


def _curve(positions: Int64[np.ndarray, "q r"]) -> Float64[np.ndarray, "2 101 q"]:
    relevant = positions.shape[1]
    precision = np.arange(1, relevant + 1) / positions
    # Recall i/100 is first reached at relevant photo ceil(i r / 100), in integers: 0.29 x 100 is not 29 in floating point.
    level = np.maximum(-(-np.arange(101) * relevant // 100), 1) - 1
    return np.stack([envelope(precision)[:, level].T, precision[:, level].T])


def _check_labels(name: str, embeddings: np.ndarray, labels: np.ndarray) -> None:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{name} labels: expected one whole number each, got shape {labels.shape} of {labels.dtype}")
    if len(labels) == 0:
        raise InputError(f"there is no {name} to evaluate: 0 {name} labels")
    if len(embeddings) != len(labels):
        raise InputError(f"{len(embeddings)} {name} embeddings, but {len(labels)} {name} labels")


def _count_relevant(query_labels: np.ndarray, gallery_labels: np.ndarray) -> Int64[np.ndarray, "q"]:
    classes, inverse = np.unique(query_labels, return_inverse=True)
    in_gallery, sizes = np.unique(gallery_labels, return_counts=True)
    missing = np.setdiff1d(classes, in_gallery)
    if len(missing):
        queries = int((query_labels == missing[0]).sum())
        more = f" (and {len(missing) - 1} more classes)" if len(missing) > 1 else ""
        raise InputError(
            f"class {int(missing[0])} has {queries} queries but no photo in the gallery{more}; leave its queries out or add photos"
        )
    counts: np.ndarray = sizes[np.searchsorted(in_gallery, classes)][inverse].astype(np.int64)
    return counts


def chance_map(query_labels: Int[np.ndarray, "q"], gallery_labels: Int[np.ndarray, "g"]) -> float:
    """Return the expected `map_all` of a random ranking: the mean over queries of `chance_ap`.

    Raises InputError for a query class without a photo in the gallery.
    """
    relevant = _count_relevant(np.asarray(query_labels), np.asarray(gallery_labels))
    counts, weights = np.unique(relevant, return_counts=True)
    return float(np.average([chance_ap(int(count), len(gallery_labels)) for count in counts], weights=weights))


def chance_ap(relevant: int, gallery: int) -> float:
    """Return the expected average precision (finite sum) when `gallery` photos, `relevant` of them relevant, stand in random order.

    Rank i is relevant with probability r/g, and then the i - 1 before it hold (i - 1)(r - 1)/(g - 1) more on average; summed over
    i that is (H_g + (r - 1)/(g - 1) (g - H_g)) / g, H_g = 1 + 1/2 + ... + 1/g.
    """
    harmonic = float((1.0 / np.arange(gallery, 0, -1)).sum())
    others = (relevant - 1) / (gallery - 1) if gallery > 1 else 0.0
    return (harmonic + others * (gallery - harmonic)) / gallery
