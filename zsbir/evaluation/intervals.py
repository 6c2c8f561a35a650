"""Confidence intervals of retrieval metrics, in which classes, and seeds where there are several, are the sampling units.

Zero-shot retrieval is meant for classes that nobody has seen yet, and the queries of one class rise and fall together. Taken for
independent, they give intervals that cover their target in one of four cases (docs/benchmarks/2026-11-29-gate.md).

Letters: q queries, c classes, k seeds. A mean over queries is the sum of w m over classes, with m the class's own mean and w its
share of the queries; a mean over classes (macro) is the same with equal shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from zsbir.base.errors import InputError

LEAST_DF = 1.0
"""Fewest degrees of freedom that are used: with fewer, an interval no longer says anything."""


class Interval(NamedTuple):
    """A mean and its confidence interval. df: degrees of freedom of the t-distribution that it comes from."""

    mean: float
    low: float
    high: float
    df: float


class Variance(NamedTuple):
    """An estimated variance of a mean, and the degrees of freedom of the estimate."""

    value: float
    df: float


class ClassMeans(NamedTuple):
    """The mean of a metric over the queries of each class, by class id, and each class's share of the queries."""

    class_ids: Int[np.ndarray, "c"]
    means: Float64[np.ndarray, "c"]
    shares: Float64[np.ndarray, "c"]


class SeedVariance(NamedTuple):
    """How much the mean over classes differs between trainings with other seeds, estimated from the spread of seeds.

    of_means: variance of a model's mean over seeds. by_class: the part of it that comes from what a seed does to single classes,
    which the variance over classes holds already.
    """

    of_means: Variance
    by_class: Variance

    @property
    def common(self) -> float:
        """The variance that is common to all classes, and that no number of classes averages out."""
        return max(self.of_means.value - self.by_class.value, 0.0)


def class_means(values: Float[np.ndarray, "q"], labels: Int[np.ndarray, "q"]) -> ClassMeans:
    """Return the mean of each class's queries. Raises InputError where the two differ in length or are empty."""
    if values.shape != labels.shape or values.ndim != 1 or len(values) == 0:
        raise InputError(f"values and labels must be two lists of one length, got shapes {values.shape} and {labels.shape}")
    class_ids, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return ClassMeans(class_ids, np.bincount(inverse, weights=values) / counts, counts / len(values))


def interval_over_classes(
    values: Float[np.ndarray, "q"], labels: Int[np.ndarray, "q"], *, level: float = 0.95, macro: bool = False
) -> Interval | None:
    """Return the mean of one model's values over other classes of the same kind, and its interval; None for a single class.

    macro: classes count alike, instead of each query. For the gain of one model over another pass their differences.
    """
    _, means, shares = class_means(values, labels)
    weights = np.full(len(means), 1 / len(means)) if macro else shares
    return combined(float(means @ weights), variance_over_classes(means, weights), level=level) if len(means) > 1 else None


def variance_over_classes(means: Float[np.ndarray, "c"], weights: Float[np.ndarray, "c"]) -> Variance:
    """Estimate the variance of the weighted mean of at least two classes, which are drawn independently; weights add up to 1.

    This is the cluster-robust estimate CR2 of Bell and McCaffrey, Survey Methodology 28 (2002) 169, with their degrees of freedom:
    the residual of each class is scaled so that the estimate is unbiased where classes vary alike. For equal weights it is s²/c
    with c - 1 degrees of freedom, as in Student's interval; unequal ones leave fewer.
    """
    squares = float(weights @ weights)
    scale = weights**2 / (1 - 2 * weights + squares)
    residuals = means - weights @ means
    # scale * residuals² adds up to a quadratic form; its matrix has the trace `squares`, and this sum of squares.
    form = np.sqrt(np.outer(scale, scale)) * (np.eye(len(weights)) - weights[:, None] - weights + squares)
    return Variance(float(scale @ residuals**2), squares**2 / float((form**2).sum()))


def seed_variance(sides: Sequence[Float[np.ndarray, "_ c"]], weights: Float[np.ndarray, "c"]) -> SeedVariance | None:
    """Estimate the variance between seeds, pooled over recipes; None where no recipe has two seeds.

    sides: for each recipe the class means of its trainings, one row a seed. This is the analysis of variance of a two-way table,
    seeds by classes (Searle, Casella and McCulloch, Variance Components, 1992, chapter 4).
    """
    several = [side for side in sides if len(side) > 1]
    df = sum(len(side) - 1 for side in several)
    if not df:
        return None
    of_means = sum(float(np.var(side @ weights, ddof=1)) * (len(side) - 1) for side in several) / df
    residuals = [variance_over_classes(row, weights) for side in several for row in side - side.mean(axis=0)]
    by_class = sum(residual.value for residual in residuals) / df
    return SeedVariance(Variance(of_means, float(df)), Variance(by_class, df * residuals[0].df))


def combined(
    mean: float, over_classes: Variance, seeds: SeedVariance | None = None, share: float = 0.0, *, level: float = 0.95
) -> Interval:
    """Return the t-interval of a mean whose variance is that over classes, and `share` times that between seeds.

    share: 1/k for the mean of k seeds, 1/k + 1/k' for a difference of two such means. The degrees of freedom are Satterthwaite's.
    Raises InputError for a level that does not lie between 0 and 1.
    """
    from scipy.special import stdtrit  # the quantile of Student's t; loaded here since command lines read this module's callers

    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, got {level}")
    variance = total_variance(over_classes, seeds, share)
    half = float(stdtrit(variance.df, (1 + level) / 2)) * variance.value**0.5
    return Interval(mean, mean - half, mean + half, variance.df)


def total_variance(over_classes: Variance, seeds: SeedVariance | None = None, share: float = 0.0) -> Variance:
    """Return the variance of a mean over classes and, with `share` as in `combined`, over seeds; df by Satterthwaite."""
    variance, uncertainty = over_classes.value, over_classes.value**2 / over_classes.df
    if seeds and seeds.common:
        variance += share * seeds.common
        uncertainty += sum((share * part.value) ** 2 / part.df for part in seeds)
    return Variance(variance, max(variance**2 / uncertainty, LEAST_DF) if uncertainty else math.inf)


def p_value(mean: float, variance: Variance) -> float:
    """Return how likely a mean at least this far from 0, on either side, is where the true one is 0, by Student's t."""
    from scipy.special import stdtr

    if not variance.value:
        return 0.0 if mean else 1.0
    return 2 * float(stdtr(variance.df, -abs(mean) / variance.value**0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many there are, in the same order (Holm, Scandinavian Journal of Statistics 6 (1979) 65).

    Whoever rejects those of at most alpha rejects a true hypothesis, among all of them, with a probability of at most alpha.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
