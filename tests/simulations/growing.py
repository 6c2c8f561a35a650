"""How often the gate on two data sets passes whom: on simulated models, whose truth is known.

    python tests/simulations/growing.py       the table of docs/benchmarks/2026-11-29-growing-data.md, in two minutes

The challenger was trained on a data set that has grown since the champion was, so each has a data set with unseen classes of its
own, of which some are the same. Both models are measured on both. Worlds and spreads are those of tests/simulations/gate.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from simulations.gate import OTHER_RECIPE_SD, RECORDED_SEEDS, WORLDS, World, sizes, trained

from zsbir.promotion.gate import _gain
from zsbir.promotion.seeds import SeedSpread

LOSSES = (0.01, 0.02, 0.03, 0.05, 0.1)
MAX_LOSS = 0.03


def lower_bounds(world: World, classes: int, shared: int, seeds: tuple[int, int], tries: int, *, equal: bool) -> np.ndarray:
    """Return the lower bounds of the gain of two recipes that are equally good, on the challenger's and the champion's set.

    One row a try. shared: classes that both sets hold; what a seed does to all classes is the same in both sets. With one seed a
    side the spread is one that five other trainings have shown on that set.
    """
    random = np.random.default_rng([classes, shared, *seeds, equal, 3])
    found = np.empty((tries, 2))
    for row in range(tries):
        counts = sizes(2 * classes - shared, random, equal=equal)
        mine = trained(world, counts, seeds[0], random, shared_queries=True)
        mine = mine + random.normal(0, world.gain_class_sd, (1, len(counts)))
        other = trained(world, counts, seeds[1], random, shared_queries=True)
        earlier = trained(world, counts, RECORDED_SEEDS, random, shared_queries=True)
        for column, part in enumerate((slice(0, classes), slice(classes - shared, None))):
            weights = counts[part] / counts[part].sum()
            sd = float(np.std(earlier[:, part] @ weights, ddof=1))
            recorded = SeedSpread(sd, RECORDED_SEEDS, "recorded")
            gain, _ = _gain(mine[:, part], other[:, part], weights, 0.95, frozen=False, recorded=recorded)
            found[row, column] = gain.low
    return found


def passes(low: np.ndarray, gain: float, gain_there: float, max_loss: float) -> float:
    """Return how often a challenger with these true gains on its own set and on the champion's passes.

    A constant gain moves an interval and leaves its width.
    """
    return float(((low[:, 0] + gain > 0) & (low[:, 1] + gain_there > -max_loss)).mean())


def gain_for_80(low: np.ndarray, max_loss: float) -> float:
    """Return the true gain, the same on both sets, that passes in 80 % of tries."""
    return float(np.quantile(np.maximum(-low[:, 0], -low[:, 1] - max_loss), 0.8))


def tables(tries: int) -> Iterator[str]:
    """Yield the Markdown table, line by line."""
    heads = ["equals pass one set", "both", "worse pass", "gain for 80 %, one set", "both"]
    heads += [f"equal there, {loss:g}" for loss in LOSSES]
    yield f"| data | classes | shared | seeds | {' | '.join(heads)} |"
    yield "|---" * (4 + len(heads)) + "|"
    for name, world in WORLDS.items():
        for classes in (7, 30):
            for shared in (classes, classes // 2, 0):
                for seeds in ((1, 1), (3, 3)):
                    recipe = replace(world, gain_class_sd=OTHER_RECIPE_SD)
                    low = lower_bounds(recipe, classes, shared, seeds, tries, equal=name == "toy")
                    rates = [passes(low, 0, 1, 1), passes(low, 0, 0, MAX_LOSS), passes(low, 1, -MAX_LOSS, MAX_LOSS)]
                    gains = [float(np.quantile(-low[:, 0], 0.8)), gain_for_80(low, MAX_LOSS)]
                    equal_there = [passes(low, 1, 0, loss) for loss in LOSSES]
                    numbers = " | ".join(f"{number:.3f}" for number in (*rates, *gains, *equal_there))
                    yield f"| {name} | {classes} | {shared} | {seeds[0]} : {seeds[1]} | {numbers} |"


if __name__ == "__main__":
    for line in tables(2000):
        print(line, flush=True)
