"""Scores of which the truth is known: what is measured of them, and that nothing is where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from zsbir.evaluation.calibration import FEWEST_CLASSES, Labelled, calibrate, run_trials
from zsbir.evaluation.calibration_fits import FALSE_ALARM, Hits, Trial, _logistic, fit_hits, fit_no_match
from zsbir.retrieval.options import PLAIN, SearchOptions
from zsbir.retrieval.whitening import measure_statistics, unit_rows

DIMENSIONS = 32


def world(classes: int = 10, photos: int = 12, noise: float = 0.25, seed: int = 0) -> Labelled:
    """Sketches and photos scattered around the points of their classes."""
    random = np.random.default_rng(seed)
    points = unit_rows(random.normal(size=(classes, DIMENSIONS)))

    def scattered(each: int):
        labels = np.repeat(np.arange(classes), each)
        return unit_rows(points[labels] + noise * random.normal(size=(len(labels), DIMENSIONS))), labels

    sketches, photos_of = scattered(8), scattered(photos)
    return Labelled(*sketches, *photos_of)


def made_trial(random, photos: int, *, rise: float = 0.04, classes: int = 12, each: int = 40, gap: float = 0.3) -> Trial:
    """Best scores that rise with ln n: without the class around .2, with it higher by `gap`; hits with odds that are known."""
    labels = np.repeat(np.arange(classes), each)
    grown = 0.2 + rise * np.log(photos)
    absent = (grown + 0.1 * random.normal(size=len(labels))).astype(np.float32)
    scores = random.uniform(0, 1, (len(labels), 6)).astype(np.float32)
    scores[:, 0] = grown + gap + 0.1 * random.normal(size=len(labels))
    right = random.uniform(size=scores.shape) < expit(-4 + 9 * scores - np.log(classes - 1))
    size = np.tile([np.log(photos), 0.0], (len(labels), 1))
    return Trial(labels, classes, scores, right, absent, size, size)


def test_the_rise_of_the_best_score_with_the_photos_is_found_and_a_threshold_that_errs_as_it_says():
    random = np.random.default_rng(0)
    found = fit_no_match([made_trial(random, photos) for photos in (10, 100, 1000)])
    assert found is not None
    assert found.per_photos == pytest.approx(0.04, abs=0.003)
    assert found.false_alarm.mean == pytest.approx(FALSE_ALARM, abs=0.03)
    assert found.false_alarm.low <= found.false_alarm.mean <= found.false_alarm.high
    other = made_trial(random, 100_000)  # a gallery of a size that was not measured
    threshold = found.threshold(100_000)
    assert (other.scores[:, 0] < threshold).mean() == pytest.approx(found.false_alarm.mean, abs=0.04)
    assert (other.absent >= threshold).mean() == pytest.approx(found.miss.mean, abs=0.04)


def test_no_threshold_where_presence_makes_no_difference():
    random = np.random.default_rng(1)
    assert fit_no_match([made_trial(random, photos, gap=0.0) for photos in (10, 100, 1000)]) is None


def test_odds_that_are_known_are_found():
    random = np.random.default_rng(2)
    found = fit_hits([made_trial(random, photos) for photos in (10, 100, 1000)])
    assert found is not None
    assert (found.intercept, found.slope) == (pytest.approx(-4, abs=0.5), pytest.approx(9, abs=0.8))
    assert found.error < 0.03


def test_the_fit_is_the_best_of_a_fine_grid():
    random = np.random.default_rng(3)
    scores, odds, weights = random.uniform(-1, 1, 300), np.full(300, -1.0), random.uniform(size=300)
    right = (random.uniform(size=300) < expit(1 + 3 * scores - 1)).astype(float)
    found = _logistic(Hits(scores, right, weights, odds))

    def loss(intercept: float, slope: float) -> float:
        chance = expit(intercept + slope * scores + odds)
        return -float(weights @ (right * np.log(chance) + (1 - right) * np.log(1 - chance)))

    tried = [(loss(a, b), a, b) for a in np.arange(-1, 3, 0.05) for b in np.arange(0, 8, 0.05)]
    assert found == (pytest.approx(min(tried)[1], abs=0.06), pytest.approx(min(tried)[2], abs=0.06))
    assert loss(*found) <= min(tried)[0] + 1e-9


def test_a_fit_never_falls_even_where_higher_scores_are_worse():
    scores = np.linspace(0, 1, 50)
    _, slope = _logistic(Hits(scores, (scores < 0.5).astype(float), np.ones(50), np.zeros(50)))
    assert slope == 0


@pytest.mark.parametrize("options", [PLAIN, SearchOptions(flip=False)], ids=["plain", "prepared"])
def test_a_network_that_tells_classes_apart_is_calibrated_by_its_embeddings(options):
    data = world()
    training = world(seed=9)
    statistics = measure_statistics(*training)
    found = calibrate(data, options, statistics)
    assert found is not None
    assert (found.options, found.classes, found.photos) == (options, 10, 120)
    assert found.hit is not None
    (trial, *_) = run_trials(data, options, statistics)
    promised = np.mean([found.hit.at(float(score), trial.classes) for score in trial.scores.ravel()])
    assert promised == pytest.approx(trial.right.mean(), abs=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_labels_that_mean_nothing_calibrate_nothing(seed):
    data, random = world(), np.random.default_rng(seed)
    shuffled = data._replace(
        sketch_classes=random.permutation(data.sketch_classes), photo_classes=random.permutation(data.photo_classes)
    )
    assert calibrate(shuffled, PLAIN, None) is None


def test_few_classes_or_one_calibrate_nothing():
    assert calibrate(world(FEWEST_CLASSES - 1), PLAIN, None) is None
    assert calibrate(world(1), PLAIN, None) is None
    data = world(8)
    assert calibrate(data._replace(photo_classes=data.photo_classes + 100), PLAIN, None) is None


def test_without_its_class_a_query_is_asked_of_the_same_gallery_less_that_class():
    data = world(classes=5, photos=3)
    *_, full = run_trials(data, PLAIN, None)
    cosines = data.sketches @ data.photos.T
    others = data.photo_classes != data.sketch_classes[:, None]
    np.testing.assert_allclose(full.absent, np.where(others, cosines, -1).max(axis=1), atol=1e-6)
    np.testing.assert_allclose(full.scores, -np.sort(-cosines, axis=1)[:, :24], atol=1e-6)
    assert np.exp(full.size[0, 0]) == pytest.approx(15)
    assert np.exp(full.absent_size[0, 0]) == pytest.approx(12)
