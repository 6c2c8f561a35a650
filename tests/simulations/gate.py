"""How often reports' intervals hold the truth, and how often the gate passes whom: on simulated models, whose truth is known.

    python tests/simulations/gate.py                      the tables of docs/benchmarks/2026-11-29-gate.md, in a minute
    python tests/simulations/gate.py REPORT REPORT ...    the spreads that these reports of one recipe's seeds show

The old interval beside the new one is over queries alone. Versions before 29 November 2026 made it by a percentile bootstrap; here
it is the normal interval, which agrees with that to about a hundredth of its width (tests/unit/evaluation/test_intervals.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from zsbir.base.artifact import Artifact
from zsbir.evaluation.intervals import class_means, combined, seed_variance, variance_over_classes
from zsbir.evaluation.reports import FROZEN, TRAINED, labels_of, values_of
from zsbir.promotion.gate import _gain
from zsbir.promotion.seeds import SeedSpread

CLASSES = (7, 15, 21, 30)
REAL_SIZES = (38, 23, 24, 36, 36, 95, 110, 33, 34, 95, 97, 34, 34, 39, 30)
"""Sketches of the unseen classes of caltech_qd60: a class of a simulated set has as many queries as one of these."""

OTHER_RECIPE_SD = 0.03
"""Assumed standard deviation between classes of the gain of one recipe over another that is on the whole as good."""

RECORDED_SEEDS = 5
"""Trainings on which a recorded spread of seeds was measured."""


@dataclass(frozen=True)
class World:
    """Standard deviations of a metric (its mean is `mean`): what differs between classes, queries and seeds.

    query_sd: queries of a class, for one model; query_seed_sd: what remains of that between two models. seed_sd: common to all
    classes; seed_class_sd: what a seed does to single classes. gain_class_sd: of the gain over the frozen backbone, by class.
    """

    mean: float
    class_sd: float
    query_sd: float
    query_seed_sd: float
    seed_sd: float
    seed_class_sd: float
    gain_class_sd: float = 0.0


TOY = World(0.396, 0.143, 0.119, 0.068, 0.025, 0.041, 0.202)
"""Measured on three seeds of the recipe `toy` and 21 unseen classes."""

CALTECH = World(0.4, 0.21, 0.15, 0.05, 0.006, 0.015, 0.2)
"""Like caltech_qd60_r18: classes, gains and seeds as on the page of 22 November 2026, as far as it tells; queries are guessed."""

WORLDS = {"toy": TOY, "caltech_qd60": CALTECH}


def sizes(classes: int, random: np.random.Generator, *, equal: bool) -> np.ndarray:
    """Draw the number of queries of each class."""
    return np.full(classes, 40) if equal else random.choice(REAL_SIZES, classes)


def levels(world: World, classes: int, random: np.random.Generator) -> np.ndarray:
    """Draw the value of each class: beta-distributed, as values between 0 and 1 with that mean and spread."""
    strength = world.mean * (1 - world.mean) / world.class_sd**2 - 1
    return random.beta(world.mean * strength, (1 - world.mean) * strength, classes)


def trained(world: World, counts: np.ndarray, seeds: int, random: np.random.Generator, *, shared_queries: bool) -> np.ndarray:
    """Draw how the class means of trainings of one recipe differ from the classes' own values, one row a seed.

    shared_queries: two models are compared on the same queries, whose own difficulty cancels.
    """
    noise = world.query_seed_sd if shared_queries else world.query_sd
    common = random.normal(0, world.seed_sd, (seeds, 1))
    single = random.normal(0, world.seed_class_sd, (seeds, len(counts)))
    return common + single + random.normal(0, 1, (seeds, len(counts))) * noise / np.sqrt(counts)


def over_queries(means: np.ndarray, counts: np.ndarray, query_sd: float) -> tuple[float, float]:
    """Return the old interval: of the mean over queries, as if they were independent."""
    weights = counts / counts.sum()
    mean = float(means @ weights)
    half = 1.96 * np.sqrt((weights @ (means - mean) ** 2 + query_sd**2) / counts.sum())
    return mean - half, mean + half


def report_coverage(world: World, classes: int, seeds: int, tries: int, *, equal: bool) -> tuple[float, float]:
    """Return how often the new and the old interval of a report's mean hold the truth.

    One seed: the mean of this model over all classes. Several: of the recipe, over all classes and seeds.
    """
    random = np.random.default_rng([classes, seeds, equal, 1])
    held = np.zeros(2)
    for _ in range(tries):
        counts = sizes(classes, random, equal=equal)
        weights = counts / counts.sum()
        if seeds == 1:
            world = replace(world, seed_sd=0)  # what a seed does to all classes is this model's own
        table = levels(world, classes, random) + trained(world, counts, seeds, random, shared_queries=False)
        means = table.mean(axis=0)
        new = combined(float(means @ weights), variance_over_classes(means, weights), seed_variance([table], weights), 1 / seeds)
        old = over_queries(means, counts, world.query_sd)
        held += [new.low <= world.mean <= new.high, old[0] <= world.mean <= old[1]]
    new, old = held / tries
    return float(new), float(old)


def gains(world: World, classes: int, seeds: tuple[int, int], tries: int, *, equal: bool) -> Iterator[tuple[float, float, float]]:
    """Yield the bounds of the new interval of the gain of two recipes that are equally good, and the lower bound of the old one.

    seeds: trainings on either side; 0: a frozen backbone. With one seed a side the spread is one that five other seeds have shown.
    """
    random = np.random.default_rng([classes, *seeds, equal, 2])
    for _ in range(tries):
        counts = sizes(classes, random, equal=equal)
        weights = counts / counts.sum()
        mine = trained(world, counts, seeds[0], random, shared_queries=True) + random.normal(0, world.gain_class_sd, (1, classes))
        frozen = seeds[1] == 0
        other = np.zeros((1, classes)) if frozen else trained(world, counts, seeds[1], random, shared_queries=True)
        earlier = trained(world, counts, RECORDED_SEEDS, random, shared_queries=True) @ weights
        recorded = SeedSpread(float(np.std(earlier, ddof=1)), RECORDED_SEEDS, "recorded")
        gain, _ = _gain(mine, other, weights, 0.95, frozen=frozen, recorded=recorded)
        means = mine.mean(axis=0) - other.mean(axis=0)
        share = 1 / seeds[0] + (0 if frozen else 1 / seeds[1])
        yield gain.low, gain.high, over_queries(means, counts, world.query_seed_sd * share**0.5)[0]


def gate_rates(world: World, classes: int, seeds: tuple[int, int], tries: int, *, equal: bool) -> dict[str, float]:
    """Return how often equals pass the new and the old gate, how often the interval holds 0, and the gain that passes in 80 %.

    A constant gain moves the interval and leaves its width, so the gain needed is a quantile of the lower bounds of equals.
    """
    low, high, old = np.array(list(gains(world, classes, seeds, tries, equal=equal))).T
    return {
        "passed": float((low > 0).mean()),
        "old": float((old > 0).mean()),
        "held": float(((low <= 0) & (high >= 0)).mean()),
        "gain": float(np.quantile(-low, 0.8)),
        "old gain": float(np.quantile(-old, 0.8)),
    }


def measured(reports: list[Artifact], metric: str = "map_all") -> dict[str, float]:
    """Estimate the spreads of a World from reports of one recipe's seeds."""
    labels = labels_of(reports[0])
    values = np.stack([values_of(report, TRAINED, metric) for report in reports])
    frozen = values_of(reports[0], FROZEN, metric)
    table = np.stack([class_means(row, labels).means for row in values])
    class_ids, means, shares = class_means(values.mean(axis=0), labels)
    inverse = np.searchsorted(class_ids, labels)
    counts = np.bincount(inverse)
    seeds, free = len(values), len(labels) - len(counts)
    within = values - table[:, inverse]
    apart = within - within.mean(axis=0)
    query_seed = (apart**2).sum() / ((seeds - 1) * free)
    residual = table - table.mean(axis=0) - (table.mean(axis=1) - table.mean())[:, None]
    seed_class = (residual**2).sum() / ((seeds - 1) * (len(counts) - 1)) - query_seed * (1 / counts).mean()
    spread = seed_variance([table], shares)
    query = (within**2).sum() / (seeds * free)
    gain = class_means(values.mean(axis=0) - frozen, labels).means
    return {
        "seeds": seeds,
        "classes": len(counts),
        "queries": len(labels),
        "mean": float(values.mean()),
        "class_sd": float(np.sqrt(means.var(ddof=1) - query * (1 / counts).mean())),
        "query_sd": float(np.sqrt(query)),
        "query_seed_sd": float(np.sqrt(query_seed)),
        "sd over seeds of the mean": spread.of_means.value**0.5,
        "seed_sd": spread.common**0.5,
        "seed_class_sd": float(np.sqrt(max(seed_class, 0))),
        "gain over frozen": float(gain @ shares),
        "gain_class_sd over frozen": float(gain.std(ddof=1)),
    }


def tables(tries: int) -> Iterator[str]:
    """Yield the Markdown tables, line by line."""
    yield from ("| data, queries a class | classes | seeds | new | old |", "|---|---|---|---|---|")
    for name, world in WORLDS.items():
        for equal in (True, False):
            for classes in CLASSES:
                for seeds in (1, 3, 5):
                    new, old = report_coverage(world, classes, seeds, tries, equal=equal)
                    yield f"| {name}, {'40' if equal else '23 to 110'} | {classes} | {seeds} | {new:.3f} | {old:.3f} |"
    head = (
        "| data | opponent | classes | seeds | equals pass | by the old gate | interval holds 0 | gain for 80 % | by the old gate |"
    )
    yield from ("", head, "|---" * 9 + "|")
    for name, world in WORLDS.items():
        opponents = [("the same recipe", 0.0), ("another recipe", OTHER_RECIPE_SD), ("its frozen backbone", world.gain_class_sd)]
        for opponent, sd in opponents:
            for classes in CLASSES:
                for seeds in ((1, 0), (3, 0)) if "frozen" in opponent else ((1, 1), (3, 1), (3, 3), (5, 5)):
                    found = gate_rates(replace(world, gain_class_sd=sd), classes, seeds, tries, equal=name == "toy")
                    numbers = " | ".join(f"{found[key]:.3f}" for key in ("passed", "old", "held", "gain", "old gain"))
                    yield f"| {name} | {opponent} | {classes} | {seeds[0]} : {seeds[1]} | {numbers} |"


if __name__ == "__main__":
    if sys.argv[1:]:
        for key, value in measured([Artifact(uri, "report") for uri in sys.argv[1:]]).items():
            print(f"{key:28} {value:.4f}")
    else:
        for line in tables(4000):
            print(line, flush=True)
