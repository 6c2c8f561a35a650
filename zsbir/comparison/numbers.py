"""The numbers of settings: mean and spread over seeds, intervals over classes and seeds, and gains over another setting.

How variances are estimated is in `zsbir.evaluation.intervals`. Letters: k seeds, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64

from zsbir.comparison.settings import Setting
from zsbir.evaluation.intervals import (
    Interval,
    class_means,
    combined,
    holm,
    p_value,
    seed_variance,
    total_variance,
    variance_over_classes,
)
from zsbir.evaluation.metrics import named_metric
from zsbir.evaluation.reports import TRAINED, labels_of, means_by_class

BySeed = Mapping[int, Float64[np.ndarray, "c"]]
"""The mean of each class, by seed."""


@dataclass(frozen=True)
class Estimate:
    """A metric of a setting. sd: standard deviation of its mean over seeds, None for one seed.

    interval: over classes, and over seeds where there are several; None where there is one class.
    """

    mean: float
    sd: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Gain:
    """How much a setting is above another one. pairs: seeds that were compared with their like; 0 where the seeds differ.

    interval, p: None where there is one class. p_holm: corrected for the number of rows of the table.
    """

    mean: float
    interval: Interval | None
    p: float | None
    p_holm: float | None
    pairs: int


@dataclass(frozen=True)
class Row:
    """A setting's numbers, by metric. gains: empty for the setting that the others are compared with, and where there is none."""

    title: str
    seeds: tuple[int, ...]
    estimates: Mapping[str, Estimate]
    gains: Mapping[str, Gain]


@dataclass(frozen=True)
class Comparison:
    """All rows. against: the title of the row that the others are compared with, "" for none. level: of all intervals."""

    metrics: tuple[str, ...]
    level: float
    classes: int
    against: str
    rows: tuple[Row, ...]


def compared(settings: Sequence[Setting], metrics: Sequence[str], level: float, against: str = "") -> Comparison:
    """Return the numbers of settings whose reports are comparable (`zsbir.comparison.settings.check_one_task`).

    against: the key of the setting that the others are compared with; "" for none.
    Raises InputError for an unknown metric, a level that does not lie between 0 and 1, and values that are not numbers.
    """
    first = next(iter(settings[0].reports.values()))
    labels = labels_of(first)
    shares = class_means(np.zeros(len(labels)), labels).shares
    estimates: list[dict[str, Estimate]] = [{} for _ in settings]
    gains: list[dict[str, Gain]] = [{} for _ in settings]
    for metric in metrics:
        name, macro = named_metric(metric)
        weights = np.full(len(shares), 1 / len(shares)) if macro else shares
        values = [_by_seed(setting, name, labels) for setting in settings]
        for place, of_setting in enumerate(values):
            estimates[place][metric] = estimate(of_setting, weights, level)
        other = next((of_setting for setting, of_setting in zip(settings, values, strict=True) if setting.key == against), None)
        if other is not None:
            places = [place for place, setting in enumerate(settings) if setting.key != against]
            found = corrected([gain(values[place], other, weights, level) for place in places])
            for place, of_row in zip(places, found, strict=True):
                gains[place][metric] = of_row
    rows = [
        Row(setting.title, tuple(sorted(setting.reports)), estimates[place], gains[place]) for place, setting in enumerate(settings)
    ]
    title = next((setting.title for setting in settings if setting.key == against), "")
    return Comparison(tuple(metrics), level, len(shares), title, tuple(rows))


def _by_seed(setting: Setting, metric: str, labels: np.ndarray) -> BySeed:
    seeds = sorted(setting.reports)
    means = means_by_class([setting.reports[seed] for seed in seeds], TRAINED, metric, labels)
    return dict(zip(seeds, means, strict=True))


def estimate(values: BySeed, weights: Float[np.ndarray, "c"], level: float) -> Estimate:
    """Return the mean of a setting, its spread over seeds and its interval. weights: the share of each class, which add up to 1."""
    rows = _stacked(values)
    means = rows @ weights
    sd = float(means.std(ddof=1)) if len(rows) > 1 else None
    interval = None
    if len(weights) > 1:
        over_classes = variance_over_classes(rows.mean(axis=0), weights)
        interval = combined(float(means.mean()), over_classes, seed_variance([rows], weights), 1 / len(rows), level=level)
    return Estimate(float(means.mean()), sd, interval)


def gain(mine: BySeed, other: BySeed, weights: Float[np.ndarray, "c"], level: float) -> Gain:
    """Return how much one setting is above another, class by class.

    Where both have at least two seeds in common, each of these is compared with its like, and the others do not count; else the
    means of all seeds are compared, and the spread of seeds is pooled over both sides, as in the gate of promotion.
    """
    common = sorted(mine.keys() & other.keys())
    if len(common) > 1:
        sides = [np.stack([mine[seed] - other[seed] for seed in common])]
        gains, share = sides[0].mean(axis=0), 1 / len(common)
    else:
        sides = [_stacked(mine), _stacked(other)]
        gains, share = sides[0].mean(axis=0) - sides[1].mean(axis=0), 1 / len(mine) + 1 / len(other)
    mean, pairs = float(gains @ weights), len(common) if len(common) > 1 else 0
    if len(weights) < 2:
        return Gain(mean, None, None, None, pairs)
    over_classes, seeds = variance_over_classes(gains, weights), seed_variance(sides, weights)
    interval = combined(mean, over_classes, seeds, share, level=level)
    return Gain(mean, interval, p_value(mean, total_variance(over_classes, seeds, share)), None, pairs)


def corrected(gains: Sequence[Gain]) -> list[Gain]:
    """Return gains with their p-values corrected for how many there are (Holm)."""
    tested = [gain.p for gain in gains if gain.p is not None]
    found = iter(holm(tested))
    return [replace(gain, p_holm=next(found)) if gain.p is not None else gain for gain in gains]


def _stacked(values: BySeed) -> Float64[np.ndarray, "k c"]:
    return np.stack([values[seed] for seed in sorted(values)])
