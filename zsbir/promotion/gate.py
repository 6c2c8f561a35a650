"""The gate of promotion: two trainings, with one or more seeds each, compared class by class on the same queries.

The challenger passes when the lower bound of the interval of its gain lies above the margin. The interval is for other classes of
the same kind and, by the spread of seeds, for the same trainings with other seeds. Where there is no champion yet, the challenger
is compared with the frozen backbone that it started from, which its own Report has measured too (this project's choice).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from zsbir.base.artifact import Artifact
from zsbir.base.config import Config
from zsbir.base.errors import InputError
from zsbir.evaluation.intervals import Interval, class_means, combined, seed_variance, variance_over_classes
from zsbir.evaluation.metrics import METRICS, named_metric
from zsbir.evaluation.protocol import Protocol, find_protocol
from zsbir.evaluation.reports import FROZEN, TRAINED, labels_of, means_by_class, queries_of
from zsbir.promotion.seeds import ESTIMATED, SeedSpread, check_seeds

Verdict = Literal["passed", "refused", "undecided"]


class GateConfig(Config):
    """What the challenger has to reach."""

    metric: str = Field(
        "", description=f"one of {', '.join(METRICS)}; with /macro after it: the mean over classes; none: the protocol's own"
    )
    margin: float = Field(0.0, ge=0, lt=1, description="gain above which the interval's lower bound must lie")
    max_loss: float = Field(
        0.03,
        ge=0,
        lt=1,
        description="where the champion was trained on other data: loss on its data that the interval must exclude",
    )
    level: float = Field(0.95, gt=0, lt=1, description="of the interval of the gain, over classes and seeds")
    seed_spread: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="standard deviation of the metric over seeds; used where each side has one seed; none: as recorded",
    )
    seed: int = Field(0, ge=0, description="seed of the choice of photos and sketches that are tried in the index")


@dataclass(frozen=True)
class Comparison:
    """A challenger beside its opponent on the same queries: means, the mean gain and its interval.

    seeds, opponent_seeds: trainings on each side; a frozen backbone has none. spread: how far seeds spread, None where it is not
    known; then the interval is of these two models alone.
    """

    metric: str
    protocol: str
    dataset_digest: str
    queries: int
    classes: int
    seeds: int
    opponent_seeds: int
    spread: SeedSpread | None
    opponent: str
    challenger_mean: float
    opponent_mean: float
    difference: float
    low: float
    high: float
    level: float
    margin: float

    @property
    def verdict(self) -> Verdict:
        """Whether the lower bound is above the margin; undecided where what could still lower it is not known."""
        if self.classes > 1 and self.low <= self.margin:
            return "refused"
        return "passed" if self.spread and self.classes > 1 else "undecided"

    @property
    def passed(self) -> bool:
        """Whether the gain is shown to be above the margin."""
        return self.verdict == "passed"

    def reason(self) -> str:
        """Return the verdict in one sentence, with its numbers."""
        return f"{self.numbers()}; {self._conclusion()}"

    def numbers(self) -> str:
        """Return means, gain and interval in one sentence, without a verdict."""
        means = f"{self.metric} {self.challenger_mean:.4f} against {self.opponent_mean:.4f} of {self.opponent}"
        interval = f"{100 * self.level:g} % interval {self.low:+.4f} to {self.high:+.4f} over {_count(self.classes, 'class', 'es')}"
        other = f" against {self.opponent_seeds}" if self.opponent_seeds else ""
        seeds = f"{_count(self.seeds, 'seed', 's')}{other}; {self.spread.text() if self.spread else 'spread of seeds not known'}"
        return f"{means}, gain {self.difference:+.4f}, {interval} ({self.protocol}; {seeds})"

    @property
    def spread_known(self) -> bool:
        """Whether the interval holds how far seeds spread."""
        return self.spread is not None

    def more_classes(self) -> str:
        """Return what the user can do where there are too few classes to compare."""
        return "evaluate on a data set with more unseen classes"

    def as_json(self) -> dict[str, Any]:
        """Return all numbers and the verdict as plain values."""
        spread = vars(self.spread) if self.spread else None
        return {**vars(self), "spread": spread, "passed": self.passed, "verdict": self.verdict}

    def _conclusion(self) -> str:
        if self.classes < 2:
            return "one class says nothing about others"
        if self.verdict == "undecided":
            return "the lower bound is above the margin for these trainings, which may be the luck of a seed"
        return f"the lower bound is {'' if self.passed else 'not '}above the margin {self.margin:g}"


def compare(
    challengers: Sequence[Artifact],
    champions: Sequence[Artifact],
    config: GateConfig,
    *,
    opponent: str,
    recorded: SeedSpread | None = None,
) -> Comparison:
    """Compare a challenger's Reports, one for each seed, with the champion's, or (none) with the frozen backbone in its own.

    opponent: the name of the other model in the verdict; recorded: the spread of seeds that is used where
    these reports show none, or more seeds have shown it than are here.
    Raises InputError where the Reports do not answer the same queries, or those of one side are not of one recipe.
    """
    first = challengers[0]
    metric = config.metric or protocol_of(first).primary
    name, macro = named_metric(metric)
    for report in (*challengers[1:], *champions):
        check_comparable(first, report, whose="champion" if report in champions else "other seed")
    check_seeds(challengers)
    check_seeds(champions)
    labels = labels_of(first)
    mine = means_by_class(challengers, TRAINED, name, labels)
    other = means_by_class(champions, TRAINED, name, labels) if champions else means_by_class([first], FROZEN, name, labels)
    shares = class_means(np.zeros(len(labels)), labels).shares
    weights = np.full(len(shares), 1 / len(shares)) if macro else shares
    gain, spread = _gain(mine, other, weights, config.level, frozen=not champions, recorded=recorded)
    return Comparison(
        metric=metric,
        protocol=label_of(first),
        dataset_digest=first.manifest.inputs["dataset"]["digest"],
        queries=len(labels),
        classes=len(weights),
        seeds=len(challengers),
        opponent_seeds=len(champions),
        spread=spread,
        opponent=opponent,
        challenger_mean=float(mine.mean(axis=0) @ weights),
        opponent_mean=float(other.mean(axis=0) @ weights),
        difference=gain.mean,
        low=gain.low,
        high=gain.high,
        level=config.level,
        margin=config.margin,
    )


def _gain(
    mine: Float[np.ndarray, "k c"],
    other: Float[np.ndarray, "k2 c"],
    weights: Float[np.ndarray, "c"],
    level: float,
    *,
    frozen: bool,
    recorded: SeedSpread | None,
) -> tuple[Interval, SeedSpread | None]:
    """Return the mean gain with its interval over classes and seeds, and the spread of seeds in it; None where it is not known."""
    gains = mine.mean(axis=0) - other.mean(axis=0)
    mean = float(gains @ weights)
    if len(weights) < 2:
        return Interval(mean, -1.0, 1.0, 0.0), recorded  # all that is known of a difference of two values in [0, 1]
    seeds, spread = seed_variance([mine] if frozen else [mine, other], weights), recorded
    if seeds and not (recorded and recorded.seeds > seeds.of_means.df + 1):
        spread = SeedSpread(seeds.of_means.value**0.5, int(seeds.of_means.df) + 1, ESTIMATED)
    elif recorded:  # one seed a side, or so few that more have been measured before
        seeds = recorded.variance()
    share = 1 / len(mine) + (0 if frozen else 1 / len(other))
    return combined(mean, variance_over_classes(gains, weights), seeds, share, level=level), spread


def _count(number: int, noun: str, plural: str) -> str:
    return f"{number} {noun}{plural if number != 1 else ''}"


def protocol_of(report: Artifact) -> Protocol:
    """Return the protocol of a Report. Raises InputError for `dev`, since training chose the checkpoint by those classes."""
    protocol = find_protocol(report.manifest.config["protocol"])
    if protocol.split == "dev":
        raise InputError(
            f"{report.uri} is a report of {label_of(report)}, the classes by which training chose its checkpoint; promote by one"
            f" of unseen classes: python -m zsbir.evaluate {report.manifest.inputs['run']['uri']} --protocol zero_shot"
        )
    return protocol


def label_of(report: Artifact) -> str:
    """Return name and version of the protocol as it was when the Report was made."""
    return str(report.manifest.facts["protocol"])


def check_comparable(challenger: Artifact, champion: Artifact, *, whose: str = "champion") -> None:
    """Raise InputError, with the way out, where two Reports are of different protocols, data sets or queries.

    whose: of which model the second one is; "champion", or "other seed" of the challenger.
    """
    mine, other = label_of(challenger), label_of(champion)
    if mine != other:
        raise InputError(
            f"the challenger's report is of {mine}, the {whose}'s of {other}: run python -m zsbir.evaluate"
            f" {champion.manifest.inputs['run']['uri']} --protocol {challenger.manifest.config['protocol']}"
            f" and pass what it prints {'as --champion-report' if whose == 'champion' else 'in its place'}"
        )
    mine, other = (report.manifest.inputs["dataset"]["digest"] for report in (challenger, champion))
    if mine != other:  # a champion of other data is compared by `zsbir.promotion.two_sets`
        raise InputError(
            f"the challenger was measured on data {mine[:16]}, the {whose} on {other[:16]}: their queries differ; pass reports of"
            " one data set for all seeds of a side"
        )
    if queries_of(challenger) != queries_of(champion):
        raise InputError(
            f"{challenger.uri} and {champion.uri} do not have the same queries in the same order, though protocol and data are"
            " the same: make both again with python -m zsbir.evaluate"
        )
