"""What trials on held-out classes say: a threshold for "nothing like that here", and the probability of a hit by its score.

Error rates are those of classes that were not fitted: for each class, threshold and probability are fitted anew without that
class's sketches.

Letters: q queries, k hits of each, h hits of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from zsbir.evaluation.intervals import Interval, interval_over_classes
from zsbir.retrieval.calibration import HitProbability, NoMatch, Rate

FALSE_ALARM = 0.1
"""Share of queries that a threshold may turn away though what they show is there: being told so wrongly is worse than a miss."""

_BINS = 10


@dataclass(frozen=True)
class Trial:
    """What the queries of one gallery found.

    labels: their classes. classes: how many the gallery has. scores, right: of the first hits. absent: the best score without the
    class. size, absent_size: the gallery's logarithm of photos and `kin_share`, with the class and without it.
    """

    labels: Int[np.ndarray, "q"]
    classes: int
    scores: Float32[np.ndarray, "q k"]
    right: Bool[np.ndarray, "q k"]
    absent: Float32[np.ndarray, "q"]
    size: Float64[np.ndarray, "q 2"]
    absent_size: Float64[np.ndarray, "q 2"]

    def of(self, chosen: Bool[np.ndarray, "q"]) -> Trial:
        """Return the trial with some of its queries alone."""
        names = ("labels", "scores", "right", "absent", "size", "absent_size")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})


def fit_no_match(trials: Sequence[Trial]) -> NoMatch | None:
    """Return the threshold for "nothing like that here" and its error rates; None where it does not tell absent from present."""
    labels, alarms, misses = [], [], []
    for label in _labels(trials):
        base, slopes = _threshold([trial.of(trial.labels != label) for trial in trials])
        for trial in trials:
            own = trial.of(trial.labels == label)
            alarms.append(own.scores[:, 0] < base + own.size @ slopes)
            misses.append(own.absent >= base + own.absent_size @ slopes)
            labels.append(own.labels)
    alarm, missed, of = (np.concatenate(part).astype(float) for part in (alarms, misses, labels))
    of = of.astype(int)
    if not _above_zero(interval_over_classes(1 - missed - alarm, of, macro=True)):
        return None
    base, slopes = _threshold(trials)
    return NoMatch(base=base, per_photos=slopes[0], per_kin=slopes[1], false_alarm=_rate(alarm, of), miss=_rate(missed, of))


def fit_hits(trials: Sequence[Trial]) -> HitProbability | None:
    """Return the probability of a hit by its score; None where scores say no more than how many classes there are."""
    labels, gains, promised, held, weights = [], [], [], [], []
    for label in _labels(trials):
        rest = _hits([trial.of(trial.labels != label) for trial in trials])
        own = _hits([trial.of(trial.labels == label) for trial in trials])
        (intercept, slope), (flat, _) = _logistic(rest), _logistic(rest, steepest=0.0)
        gain = _losses(own, flat, 0.0) - _losses(own, intercept, slope)
        gains.append(gain @ own.weights / own.weights.sum())
        labels.append(label)
        promised.append(_probability(own, intercept, slope))
        held.append(own.right)
        weights.append(own.weights)
    if not _above_zero(interval_over_classes(np.array(gains), np.array(labels), macro=True)):
        return None
    intercept, slope = _logistic(_hits(trials))
    error = _binned_error(*(np.concatenate(part) for part in (promised, held, weights)))
    return HitProbability(intercept=intercept, slope=slope, error=error)


class Hits(NamedTuple):
    """Hits of many queries in one list: score, whether right, weight, and the log odds of a guess among the classes."""

    scores: Float64[np.ndarray, "h"]
    right: Float64[np.ndarray, "h"]
    weights: Float64[np.ndarray, "h"]
    odds: Float64[np.ndarray, "h"]


def _threshold(trials: Sequence[Trial]) -> tuple[float, Float64[np.ndarray, "2"]]:
    """Return the threshold of a single photo, and how fast it rises with the size of a gallery; each trial counts alike."""
    from scipy.optimize import lsq_linear  # loaded here, since command lines read this module's callers

    trials = [trial for trial in trials if len(trial.labels)]
    sizes = np.concatenate([trial.absent_size for trial in trials])
    weights = np.concatenate([np.full(len(trial.labels), len(trial.labels) ** -0.5) for trial in trials])
    columns = np.column_stack([np.ones(len(sizes)), sizes])
    best = np.concatenate([trial.absent for trial in trials])
    found = lsq_linear(columns * weights[:, None], best * weights, ([-np.inf, 0, 0], [np.inf, 1, 2]))
    slopes: np.ndarray = np.maximum(found.x[1:], 0)
    bases = [np.quantile(trial.scores[:, 0] - trial.size @ slopes, FALSE_ALARM) for trial in trials]
    return float(np.mean(bases)), slopes


def _hits(trials: Sequence[Trial]) -> Hits:
    """Return the hits of all queries. The first of a query counts most, since it is looked at most: the r-th counts 1/r."""
    parts = []
    for trial in trials:
        if not len(trial.labels):
            continue
        ranks = np.broadcast_to(1 / np.arange(1, trial.scores.shape[1] + 1), trial.scores.shape)
        share = (ranks / ranks.sum()).ravel()
        odds = np.full(trial.scores.size, -np.log(trial.classes - 1))
        parts.append((trial.scores.ravel().astype(float), trial.right.ravel().astype(float), share, odds))
    return Hits(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _logistic(hits: Hits, steepest: float = 1000.0) -> tuple[float, float]:
    """Return intercept and slope, at least 0, of the logistic function of the score that fits best."""
    from scipy.optimize import minimize

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        residual = (_probability(hits, *values) - hits.right) * hits.weights
        return float(_losses(hits, *values) @ hits.weights), np.array([residual.sum(), residual @ hits.scores])

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-100, 100), (0, steepest)])
    return float(found.x[0]), float(found.x[1])


def _probability(hits: Hits, intercept: float, slope: float) -> Float64[np.ndarray, "h"]:
    from scipy.special import expit

    found: np.ndarray = expit(intercept + slope * hits.scores + hits.odds)
    return found


def _losses(hits: Hits, intercept: float, slope: float) -> Float64[np.ndarray, "h"]:
    """Return the negative log likelihood of each hit."""
    logits = intercept + slope * hits.scores + hits.odds
    found: np.ndarray = np.logaddexp(0, logits) - hits.right * logits
    return found


def _binned_error(promised: np.ndarray, held: np.ndarray, weights: np.ndarray) -> float:
    """Return the expected calibration error (Naeini et al., AAAI 2015): by bins of the promise, weighted by what lies in each."""
    bins = np.minimum((promised * _BINS).astype(int), _BINS - 1)
    differences = np.bincount(bins, weights * (promised - held), _BINS)
    return float(np.abs(differences).sum() / weights.sum())


def _labels(trials: Sequence[Trial]) -> list[int]:
    labels: list[int] = np.unique(np.concatenate([trial.labels for trial in trials])).tolist()
    return labels


def _above_zero(interval: Interval | None) -> bool:
    return interval is not None and interval.low > 0


def _rate(values: Float64[np.ndarray, "q"], labels: Int[np.ndarray, "q"]) -> Rate:
    interval = interval_over_classes(values, labels, macro=True)
    assert interval is not None, "a rate is that of several classes"
    mean, low, high = np.clip([interval.mean, interval.low, interval.high], 0, 1).tolist()
    return Rate(mean=mean, low=low, high=high)
