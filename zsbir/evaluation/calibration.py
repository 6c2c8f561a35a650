"""Measuring what scores mean, on classes that a network was not trained on: galleries with, and without, what is drawn.

Each class is held out in turn: its sketches are asked of a gallery that has it and of the same gallery without it. The galleries
differ in size, with 1, 3, 10 or all photos of a class and with all classes or every second one, so that a threshold is found that
holds for galleries of other sizes (docs/benchmarks/2026-11-30-calibration.md). Error rates are those of classes that the
threshold was not chosen on: for each class it is chosen anew without that class's sketches.

Letters: q queries, k hits, n photos, d dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int

from zsbir.base.seeds import stream
from zsbir.data.samples import Samples
from zsbir.data.shards import Images
from zsbir.evaluation.embed import Forward, both_views, check_finite, embed
from zsbir.evaluation.intervals import Interval, interval_over_classes
from zsbir.retrieval.calibration import Calibration, HitProbability, NoMatch, Rate, kin_share
from zsbir.retrieval.options import PLAIN, SearchOptions
from zsbir.retrieval.prepared import mean_of_views, prepare_gallery, searching
from zsbir.retrieval.whitening import DomainStatistics

FALSE_ALARM = 0.1
"""Share of queries that a threshold may turn away though what they show is there: being told so wrongly is worse than a miss."""

FEWEST_CLASSES = 4
"""With fewer classes an interval over them says nothing, and nothing is calibrated."""

MOST_CLASSES = 30
"""Classes that are measured at most, spread evenly: each is held out of each gallery."""

MEASURED = (PLAIN, SearchOptions(), SearchOptions(expand=0))
"""What is calibrated: plain searches, those that are on by default, and these without expansion, which a page can switch off."""

PHOTOS_PER_CLASS = (1, 3, 10, 0)
"""Photos of a class in the galleries; 0: all."""

MOST_SKETCHES, MOST_PHOTOS = 500, 1000
"""Images that are embedded at most, drawn once for all where there are more."""

HITS = 24
"""The first photos found, whose probability is fitted: as many as the page shows."""

_BINS = 10


class Labelled(NamedTuple):
    """Embeddings of sketches and photos, and the class of each."""

    sketches: Float32[np.ndarray, "q d"]
    sketch_classes: Int[np.ndarray, "q"]
    photos: Float32[np.ndarray, "n d"]
    photo_classes: Int[np.ndarray, "n"]


@dataclass(frozen=True)
class Trial:
    """What the queries of one gallery found.

    labels: their classes. scores, right: of the first hits, HITS of them or the whole gallery. absent: the best score without the
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


def measured_calibrations(
    output: Forward,
    samples: Samples,
    images: Images,
    statistics: DomainStatistics,
    *,
    image_px: int,
    device: torch.device,
    autocast: AbstractContextManager[object] | None = None,
    alone: bool = False,
) -> list[Calibration]:
    """Measure a network by the dev classes of its data set, for the searches in MEASURED, by one view and by both.

    output: from images to embeddings. alone: as for `zsbir.evaluation.statistics.measured`. The classes must not have been trained
    on. An empty list where there are too few of them; unseen classes are never opened. Raises InputError for embeddings that are
    NaN or infinite.
    """
    sketches, photos = calibration_images(samples)
    if len(np.intersect1d(samples.class_id[sketches], samples.class_id[photos])) < FEWEST_CLASSES:
        return []
    positions = np.concatenate([sketches, photos])
    views = embed(
        both_views(output),
        images,
        positions,
        image_px=image_px,
        device=device,
        autocast=autocast,
        label="calibrate scores",
        alone=alone,
    )
    check_finite(views, "the model")
    found = []
    for flip in (False, True):
        vectors = mean_of_views(views) if flip else np.ascontiguousarray(views[:, : views.shape[1] // 2])
        both = vectors[: len(sketches)], vectors[len(sketches) :]
        data = Labelled(both[0], samples.class_id[sketches], both[1], samples.class_id[photos])
        for options in MEASURED:
            calibration = calibrate(data, options.replace(flip=flip), statistics)
            found += [calibration] if calibration else []
    return found


def calibration_images(samples: Samples) -> tuple[Int[np.ndarray, "s"], Int[np.ndarray, "p"]]:
    """Return positions of the sketches and photos of dev classes to calibrate by, ascending: all of them, or a sample."""
    chosen = []
    for domain, most in (("sketch", MOST_SKETCHES), ("photo", MOST_PHOTOS)):
        positions = samples.select(split="dev", domain=domain)
        if len(positions) > most:
            positions = stream("calibration images", most).choice(positions, most, replace=False)
        chosen.append(np.sort(positions))
    return chosen[0], chosen[1]


def calibrate(data: Labelled, options: SearchOptions, statistics: DomainStatistics | None) -> Calibration | None:
    """Return what scores with these options mean; None with too few classes, or where they do not tell right from wrong.

    data: of classes that the network was not trained on (the mean of both views where the options have `flip`).
    """
    data = _of_classes(data, np.intersect1d(data.sketch_classes, data.photo_classes))
    classes = np.unique(data.photo_classes)
    if len(classes) < FEWEST_CLASSES:
        return None
    trials = list(run_trials(data, options, statistics))
    no_match, hit = fit_no_match(trials), fit_hits(trials)
    if no_match is None and hit is None:
        return None
    return Calibration(options=options, no_match=no_match, hit=hit, classes=len(classes), photos=len(data.photos))


def run_trials(data: Labelled, options: SearchOptions, statistics: DomainStatistics | None) -> Iterator[Trial]:
    """Ask the sketches of galleries of several sizes, each with what they show and without it."""
    classes = np.unique(data.photo_classes)
    for present in (classes, classes[::2]) if len(classes) >= 2 * FEWEST_CLASSES else (classes,):
        inside = _of_classes(data, present)
        fullest = int(np.unique(inside.photo_classes, return_counts=True)[1].max())
        for most in PHOTOS_PER_CLASS:
            if most < fullest:
                yield _trial(_thinned(inside, most), options, statistics)


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


def _trial(data: Labelled, options: SearchOptions, statistics: DomainStatistics | None) -> Trial:
    classes = np.unique(data.photo_classes)
    scores, right, size = _asked(data, options, statistics)
    absent, absent_size = np.empty(len(scores), np.float32), np.empty(size.shape)
    for label in classes:
        asking, others = data.sketch_classes == label, data.photo_classes != label
        without = Labelled(data.sketches[asking], data.sketch_classes[asking], data.photos[others], data.photo_classes[others])
        found, _, absent_size[asking] = _asked(without, options, statistics)
        absent[asking] = found[:, 0]
    return Trial(data.sketch_classes, len(classes), scores, right, absent, size, absent_size)


def _asked(
    data: Labelled, options: SearchOptions, statistics: DomainStatistics | None
) -> tuple[Float32[np.ndarray, "q k"], Bool[np.ndarray, "q k"], Float64[np.ndarray, "q 2"]]:
    """Ask sketches of a gallery. Return scores of the first hits, which are right, and the size of the gallery for each."""
    prepared = prepare_gallery(np.ascontiguousarray(data.photos), options, statistics)
    search = searching(prepared.vectors)
    rows, scores = search(prepared.queries(np.ascontiguousarray(data.sketches), search), HITS)
    size = np.array([np.log(len(data.photos)), kin_share(float(prepared.near.mean()))])
    return scores, data.photo_classes[rows] == data.sketch_classes[:, None], np.tile(size, (len(scores), 1))


def _of_classes(data: Labelled, classes: Int[np.ndarray, "c"]) -> Labelled:
    """Return what is of these classes, of MOST_CLASSES of them at most."""
    if len(classes) > MOST_CLASSES:
        classes = classes[np.linspace(0, len(classes) - 1, MOST_CLASSES).astype(int)]
    sketches, photos = np.isin(data.sketch_classes, classes), np.isin(data.photo_classes, classes)
    return Labelled(data.sketches[sketches], data.sketch_classes[sketches], data.photos[photos], data.photo_classes[photos])


def _thinned(data: Labelled, most: int) -> Labelled:
    """Return the data with that many photos of each class, drawn once for all; 0: with all."""
    if not most:
        return data
    order = stream("calibration galleries", most).permutation(len(data.photos))
    kept = [order[data.photo_classes[order] == label][:most] for label in np.unique(data.photo_classes)]
    rows = np.sort(np.concatenate(kept))
    return data._replace(photos=data.photos[rows], photo_classes=data.photo_classes[rows])


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
