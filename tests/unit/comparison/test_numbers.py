"""Means, spreads and gains of settings: against formulas written out, exact permutations, and simulations whose truth is known."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from zsbir.comparison.numbers import corrected, estimate, gain
from zsbir.evaluation.intervals import Variance, holm, p_value

EQUAL = np.full(12, 1 / 12)


def drawn(random, seeds, *, gain=0.0, common_sd=0.0, single_sd=0.02, classes=None):
    """Means of twelve classes by seed. common_sd: what a seed does to all classes alike; single_sd: to single ones."""
    levels = np.linspace(0.2, 0.7, 12) if classes is None else classes
    return {seed: levels + gain + random.normal(0, common_sd) + random.normal(0, single_sd, 12) for seed in seeds}


def test_mean_and_spread_are_those_of_the_seeds_means():
    values = drawn(np.random.default_rng(0), (0, 1, 5), common_sd=0.05)
    found = estimate(values, EQUAL, 0.95)
    means = [statistics.fmean(row) for row in values.values()]
    assert found.mean == pytest.approx(statistics.fmean(means))
    assert found.sd == pytest.approx(statistics.stdev(means))
    assert found.interval.low < found.mean < found.interval.high


def test_one_seed_has_student_s_interval_over_its_classes_and_no_spread():
    (row,) = drawn(np.random.default_rng(1), (0,)).values()
    found = estimate({0: row}, EQUAL, 0.95)
    half = stats.t.ppf(0.975, 11) * statistics.stdev(row) / math.sqrt(12)
    assert found.sd is None
    assert (found.interval.low, found.interval.high) == pytest.approx((row.mean() - half, row.mean() + half))


def test_a_single_class_has_a_mean_and_nothing_else():
    found = estimate({0: np.array([0.3]), 1: np.array([0.5])}, np.ones(1), 0.95)
    assert (found.mean, found.interval) == (pytest.approx(0.4), None)
    other = gain({0: np.array([0.3])}, {0: np.array([0.2])}, np.ones(1), 0.95)
    assert (other.mean, other.interval, other.p) == (pytest.approx(0.1), None, None)


def test_seeds_that_both_have_are_compared_with_their_like():
    """What a seed does to both alike is no part of the gain: by hand, the variance over classes and the spread of the pairs."""
    random = np.random.default_rng(2)
    shared = {seed: random.normal(0, 0.2) for seed in range(3)}
    mine, other = (
        {seed: row + shared[seed] for seed, row in drawn(random, range(3), gain=g, common_sd=0.03).items()} for g in (0.1, 0)
    )
    mine[7] = np.full(12, 0.9)
    found = gain(mine, other, EQUAL, 0.95)
    pairs = np.stack([mine[seed] - other[seed] for seed in range(3)])
    assert found.pairs == 3
    assert found.mean == pytest.approx(statistics.fmean(pairs.ravel())), "the seed that the other side lacks does not count"
    between = statistics.variance(pairs.mean(axis=1))
    residuals = pairs - pairs.mean(axis=0)
    by_class = sum(statistics.variance(row) / 12 for row in residuals) / 2
    over_classes = statistics.variance(pairs.mean(axis=0)) / 12
    variance = over_classes + max(between - by_class, 0) / 3
    df = variance**2 / (over_classes**2 / 11 + (between / 3) ** 2 / 2 + (by_class / 3) ** 2 / 22)
    half = stats.t.ppf(0.975, df) * math.sqrt(variance)
    assert (found.interval.low, found.interval.high) == pytest.approx((found.mean - half, found.mean + half))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.mean) / math.sqrt(variance), df))


def test_other_seeds_are_compared_by_their_means_and_pool_their_spread():
    random = np.random.default_rng(3)
    mine, other = drawn(random, (0, 1, 2), gain=0.1, common_sd=0.03), drawn(random, (2, 3), common_sd=0.03)
    found = gain(mine, other, EQUAL, 0.95)
    assert found.pairs == 0
    means = [np.mean(list(side.values()), axis=0) for side in (mine, other)]
    assert found.mean == pytest.approx(float((means[0] - means[1]).mean()))
    paired = gain(mine, {seed: other[seed + 2] for seed in (0, 1)}, EQUAL, 0.95)
    assert paired.pairs == 2


def test_one_seed_a_side_is_the_paired_t_test_over_classes():
    random = np.random.default_rng(4)
    mine, other = drawn(random, (0,), gain=0.02), drawn(random, (0,))
    found = gain(mine, other, EQUAL, 0.95)
    assert found.p == pytest.approx(stats.ttest_rel(mine[0], other[0]).pvalue)
    assert found.pairs == 0


def sign_flips(gains):
    """The exact p-value of a mean: the share of all signs of its parts by which it would be at least as far from 0."""
    flipped = np.array(list(itertools.product((-1, 1), repeat=len(gains)))) @ gains
    return float((np.abs(flipped) >= abs(gains.sum()) - 1e-12).mean())


@pytest.mark.parametrize("seed", range(8))
def test_the_p_value_is_near_that_of_all_permutations(seed):
    random = np.random.default_rng(seed)
    mine, other = drawn(random, (0,), gain=0.01), drawn(random, (0,))
    assert gain(mine, other, EQUAL, 0.95).p == pytest.approx(sign_flips(mine[0] - other[0]), abs=0.03)


@pytest.mark.parametrize("weights", [EQUAL, np.arange(1, 13) / 78])
def test_an_interval_leaves_out_zero_where_p_is_below_its_level(weights):
    random = np.random.default_rng(5)
    for _ in range(60):
        found = gain(drawn(random, (0, 1), gain=0.02), drawn(random, (0, 1)), weights, 0.95)
        assert (found.interval.low > 0 or found.interval.high < 0) == (found.p < 0.05)


@pytest.mark.parametrize("seeds", [((0, 1, 2), (0, 1, 2)), ((0, 1, 2), (3, 4, 5))])
def test_of_equal_settings_few_are_found_to_differ(seeds):
    """At most 5 % of draws, in which each seed lifts or lowers all classes; of 600, chance may add 2 %."""
    random = np.random.default_rng(6)
    found = [
        gain(drawn(random, seeds[0], common_sd=0.03), drawn(random, seeds[1], common_sd=0.03), EQUAL, 0.95).p for _ in range(600)
    ]
    assert np.mean(np.array(found) < 0.05) < 0.07


def closed_test(values):
    """Holm's corrected p-values by their definition: the largest Bonferroni p-value of all sets of hypotheses with this one."""
    places = range(len(values))
    sets = [chosen for size in range(1, len(values) + 1) for chosen in itertools.combinations(places, size)]
    return [
        max(min(1.0, len(chosen) * min(values[each] for each in chosen)) for chosen in sets if place in chosen) for place in places
    ]


@pytest.mark.parametrize("seed", range(10))
def test_the_correction_is_that_of_a_closed_test(seed):
    values = (np.random.default_rng(seed).uniform(0, 1, 6) ** 3).tolist()
    values[3] = values[1]
    assert holm(values) == pytest.approx(closed_test(values))
    assert holm([]) == []


def test_rows_without_a_p_value_are_not_counted():
    one = gain({0: np.array([0.2, 0.4, 0.3])}, {0: np.array([0.1, 0.2, 0.3])}, np.full(3, 1 / 3), 0.95)
    none = gain({0: np.array([0.3])}, {0: np.array([0.2])}, np.ones(1), 0.95)
    assert [each.p_holm for each in corrected([one, none])] == [pytest.approx(one.p), None]


def test_without_any_variance_a_gain_is_certain_and_no_gain_is_none():
    assert p_value(0.1, Variance(0.0, 5)) == 0.0
    assert p_value(0.0, Variance(0.0, 5)) == 1.0
