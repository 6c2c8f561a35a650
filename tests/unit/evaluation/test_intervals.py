"""Intervals over classes and seeds: against plain loops, textbook numbers, and simulated models whose truth is known."""

import math
import statistics

import jaxtyping
import numpy as np
import pytest
from simulations.gate import CALTECH, TOY, gate_rates, over_queries, report_coverage

from zsbir.base.errors import InputError
from zsbir.evaluation.intervals import (
    LEAST_DF,
    SeedVariance,
    Variance,
    class_means,
    combined,
    interval_over_classes,
    seed_variance,
    variance_over_classes,
)

UNEQUAL = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])


@pytest.fixture
def as_in_production():
    """Shapes unchecked, as outside tests: what a caller then gets for a wrong shape is our own error."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_classes_of_equal_size_give_student_s_interval_of_their_means():
    means = [0.31, 0.52, 0.44, 0.20, 0.75, 0.38, 0.61]
    values, labels = np.repeat(means, 3), np.repeat(np.arange(7), 3)
    found = interval_over_classes(values, labels)
    half = 2.4469 * statistics.stdev(means) / math.sqrt(7)  # 97.5 % quantile of t with 6 degrees of freedom, from a table
    assert found.df == pytest.approx(6)
    assert found.mean == pytest.approx(statistics.mean(means))
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=1e-5)


def test_queries_count_in_the_mean_and_classes_in_the_interval():
    """Ten times as many queries of the same classes say nothing new about other classes."""
    values, labels = np.array([0.2, 0.4, 0.6, 0.8]), np.array([3, 3, 5, 9])
    once = interval_over_classes(values, labels)
    assert once.mean == pytest.approx(0.5)
    assert interval_over_classes(np.repeat(values, 10), np.repeat(labels, 10)) == pytest.approx(once)
    assert interval_over_classes(values, labels, macro=True).mean == pytest.approx((0.3 + 0.6 + 0.8) / 3)


def test_one_class_has_no_interval():
    assert interval_over_classes(np.array([0.1, 0.5, 0.9]), np.array([4, 4, 4])) is None


def projection(weights):
    """The matrix that takes class means to their residuals, entry by entry."""
    size = len(weights)
    return [[(1.0 if row == column else 0.0) - weights[column] for column in range(size)] for row in range(size)]


def test_the_variance_is_unbiased_for_unequal_classes():
    """The expectation of each squared residual, added up by hand, for classes that vary alike with variance 1."""
    total = 0.0
    rows = projection(UNEQUAL)
    for weight, row in zip(UNEQUAL, rows, strict=True):
        others = sum(weight_2**2 for weight_2 in UNEQUAL)
        total += weight**2 * sum(entry**2 for entry in row) / (1 - 2 * weight + others)
    assert total == pytest.approx(sum(weight**2 for weight in UNEQUAL))
    random = np.random.default_rng(0)
    drawn = [variance_over_classes(random.normal(0, 1, 6), UNEQUAL).value for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(total, rel=0.05)


def test_the_degrees_of_freedom_are_those_of_the_quadratic_form():
    """Twice the squared mean over the variance, of a form in independent normal values: (tr A)² / tr A²."""
    rows, squares = projection(UNEQUAL), float(UNEQUAL @ UNEQUAL)
    form = np.zeros((6, 6))
    for weight, row in zip(UNEQUAL, rows, strict=True):
        form += weight**2 / (1 - 2 * weight + squares) * np.outer(row, row)
    found = variance_over_classes(np.arange(6) / 10, UNEQUAL)
    assert found.df == pytest.approx(np.trace(form) ** 2 / np.trace(form @ form))
    assert found.df < 5
    assert found.value == pytest.approx((np.arange(6) / 10) @ form @ (np.arange(6) / 10))


def table(random, seeds, classes, seed_sd, single_sd):
    return random.normal(0.4, seed_sd, (seeds, 1)) + random.normal(0, single_sd, (seeds, classes)) + np.linspace(0, 0.3, classes)


def test_the_variance_of_seeds_is_that_of_an_analysis_of_variance_by_hand():
    sides = [table(np.random.default_rng(1), 4, 5, 0.03, 0.02), table(np.random.default_rng(2), 2, 5, 0.03, 0.02)]
    between = within = 0.0
    for side in sides:
        rows, columns = side.mean(axis=1), side.mean(axis=0)
        for row, level in zip(side, rows, strict=True):
            between += (level - side.mean()) ** 2
            for value, column in zip(row, columns, strict=True):
                within += (value - level - column + side.mean()) ** 2
    found = seed_variance(sides, np.full(5, 1 / 5))
    assert found.of_means == pytest.approx((between / 4, 4))  # 3 + 1 degrees of freedom
    assert found.by_class == pytest.approx((within / 16 / 5, 16))
    assert found.common == pytest.approx(between / 4 - within / 16 / 5)


def test_one_seed_a_side_says_nothing_about_seeds():
    single = np.linspace(0, 1, 5)[None]
    assert seed_variance([single, single + 0.1], np.full(5, 1 / 5)) is None


def test_seeds_that_differ_less_than_their_classes_suggest_add_nothing():
    shared = SeedVariance(Variance(0.0001, 4), Variance(0.0004, 24))
    assert shared.common == 0
    over_classes = Variance(0.01, 6)
    assert combined(0.3, over_classes, shared, 1.0) == combined(0.3, over_classes)


def test_the_variance_between_seeds_widens_by_its_share():
    seeds = SeedVariance(Variance(0.0009, math.inf), Variance(0.0, math.inf))
    alone = combined(0.3, Variance(0.0016, math.inf))
    both = combined(0.3, Variance(0.0016, math.inf), seeds, 1.0)
    assert alone.high - 0.3 == pytest.approx(1.959964 * 0.04)
    assert both.high - 0.3 == pytest.approx(1.959964 * 0.05)
    half = combined(0.3, Variance(0.0016, math.inf), seeds, 0.5)
    assert half.high - 0.3 == pytest.approx(1.959964 * math.sqrt(0.0016 + 0.00045))


def test_the_degrees_of_freedom_of_a_sum_lie_between_those_of_its_parts():
    seeds = SeedVariance(Variance(0.01, 2), Variance(0.0, math.inf))
    found = combined(0.0, Variance(0.01, 20), seeds, 1.0)
    assert found.df == pytest.approx(0.02**2 / (0.01**2 / 20 + 0.01**2 / 2))
    assert combined(0.0, Variance(0.01, 0.2)).df == LEAST_DF


def test_values_without_any_spread_are_their_own_interval():
    found = interval_over_classes(np.full(6, 0.25), np.arange(6) // 2)
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)
    exact = SeedVariance(Variance(0.0001, math.inf), Variance(0.0, math.inf))
    assert combined(0.25, Variance(0.0, 6), exact, 1.0).high == pytest.approx(0.25 + 1.959964 * 0.01)


def test_what_makes_no_sense_is_refused(as_in_production):
    with pytest.raises(InputError, match="level must lie between 0 and 1, got 1"):
        interval_over_classes(np.arange(4.0), np.arange(4), level=1.0)
    with pytest.raises(InputError, match="two lists of one length"):
        class_means(np.ones(3), np.ones(4, int))
    with pytest.raises(InputError, match="two lists of one length"):
        class_means(np.ones(0), np.ones(0, int))


@pytest.mark.parametrize("classes", [7, 30])
def test_the_interval_of_a_report_holds_what_the_model_would_reach_on_other_classes(classes, as_in_production):
    """The interval over queries, which it replaced, holds it in less than half of the tries."""
    new, old = report_coverage(CALTECH, classes, 1, 400, equal=False)
    assert new > 0.92
    assert old < 0.5


def test_the_interval_of_several_seeds_holds_what_the_recipe_would_reach(as_in_production):
    new, old = report_coverage(CALTECH, 15, 3, 400, equal=False)
    assert new > 0.92
    assert old < 0.5


@pytest.mark.parametrize("seeds", [(1, 1), (3, 1), (3, 3)])
def test_of_equal_models_with_other_seeds_few_pass(seeds, as_in_production):
    """At most 5 % of 4,000 (docs/benchmarks/2026-11-29-gate.md); of 400, chance may add 2 %."""
    found = gate_rates(TOY, 15, seeds, 400, equal=True)
    assert found["passed"] < 0.07
    assert found["old"] > 0.1


def test_the_old_interval_of_the_simulation_is_the_bootstrap_it_stands_for():
    random = np.random.default_rng(3)
    counts = np.array([40, 20, 60])
    labels = np.repeat(np.arange(3), counts)
    values = np.array([0.2, 0.5, 0.7])[labels] + random.normal(0, 0.1, 120)
    _, means, _ = class_means(values, labels)
    within = math.sqrt(sum((value - means[label]) ** 2 for value, label in zip(values, labels, strict=True)) / 120)
    resampled = values[random.integers(120, size=(4000, 120))].mean(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert over_queries(means, counts, within) == pytest.approx((low, high), abs=(high - low) * 0.03)
