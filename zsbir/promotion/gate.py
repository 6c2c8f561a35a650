"""The gate of promotion: two Reports of one protocol and one data set, compared query by query.

The challenger passes when the lower bound of the paired bootstrap interval of its gain lies above the margin. Where there is no
champion yet, it is compared with the frozen backbone that it started from, which its own Report has measured too (this project's
choice).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import Field

from zsbir.base.artifact import Artifact
from zsbir.base.config import Config, unknown_name
from zsbir.base.errors import InputError
from zsbir.evaluation.metrics import METRICS, paired_bootstrap
from zsbir.evaluation.protocol import Protocol, find_protocol

RESAMPLES = 10_000
"""Resamples of the bootstrap. The verdict depends on a single quantile, which 1,000 would estimate too roughly."""

QUERY = ("path", "class_id", "sha256")
"""The columns that identify a query in a report."""

TRAINED, FROZEN = "trained", "frozen"
"""The two models of a report."""


class GateConfig(Config):
    """What the challenger has to reach."""

    metric: str = Field("", description=f"one of {', '.join(METRICS)}; none: the protocol's own")
    margin: float = Field(0.0, ge=0, lt=1, description="gain above which the interval's lower bound must lie")
    level: float = Field(0.95, gt=0, lt=1, description="of the bootstrap interval")
    seed: int = Field(0, ge=0, description="seed of the bootstrap and of the photos and sketches that are tried in the index")


@dataclass(frozen=True)
class Comparison:
    """A challenger beside its opponent on the same queries: means, the mean difference and its interval."""

    metric: str
    protocol: str
    dataset_digest: str
    queries: int
    opponent: str
    challenger_mean: float
    opponent_mean: float
    difference: float
    low: float
    high: float
    level: float
    margin: float

    @property
    def passed(self) -> bool:
        """Whether the lower bound is above the margin."""
        return self.low > self.margin

    def reason(self) -> str:
        """Return the verdict in one sentence, with its numbers."""
        means = f"{self.metric} {self.challenger_mean:.4f} against {self.opponent_mean:.4f} of {self.opponent}"
        interval = f"{100 * self.level:g} % interval {self.low:+.4f} to {self.high:+.4f} over {self.queries} queries"
        verdict = f"the lower bound is {'' if self.passed else 'not '}above the margin {self.margin:g}"
        return f"{means}, gain {self.difference:+.4f}, {interval} ({self.protocol}); {verdict}"

    def as_json(self) -> dict[str, Any]:
        """Return all numbers and the verdict as plain values."""
        return {**vars(self), "passed": self.passed, "resamples": RESAMPLES}


def compare(challenger: Artifact, champion: Artifact | None, config: GateConfig, *, opponent: str) -> Comparison:
    """Compare a challenger's Report with the champion's, or (None) with the frozen backbone in its own.

    opponent: the name of the other model in the verdict. Raises InputError where the Reports do not answer the same queries.
    """
    protocol = protocol_of(challenger)
    metric = config.metric or protocol.primary
    if metric not in METRICS:
        raise InputError(unknown_name("metric", metric, METRICS))
    if champion is not None:
        check_comparable(challenger, champion)
    mine = _values(challenger, TRAINED, metric)
    other = _values(challenger, FROZEN, metric) if champion is None else _values(champion, TRAINED, metric)
    gain = paired_bootstrap(mine, other, level=config.level, resamples=RESAMPLES, seed=config.seed)
    return Comparison(
        metric=metric,
        protocol=label_of(challenger),
        dataset_digest=challenger.manifest.inputs["dataset"]["digest"],
        queries=len(mine),
        opponent=opponent,
        challenger_mean=float(mine.mean()),
        opponent_mean=float(other.mean()),
        difference=gain.mean,
        low=gain.low,
        high=gain.high,
        level=config.level,
        margin=config.margin,
    )


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


def check_comparable(challenger: Artifact, champion: Artifact) -> None:
    """Raise InputError, with the way out, where two Reports are of different protocols, data sets or queries."""
    mine, other = label_of(challenger), label_of(champion)
    if mine != other:
        raise InputError(
            f"the challenger's report is of {mine}, the champion's of {other}: run python -m zsbir.evaluate"
            f" {champion.manifest.inputs['run']['uri']} --protocol {challenger.manifest.config['protocol']}"
            " and pass what it prints as --champion-report"
        )
    mine, other = (report.manifest.inputs["dataset"]["digest"] for report in (challenger, champion))
    if mine != other:
        # `evaluate` measures a run only on the data set that it was trained on, so no command compares these two.
        raise InputError(
            f"the challenger was measured on data {mine[:16]}, the champion on {other[:16]}: their queries differ; train the"
            f" challenger on {champion.manifest.inputs['dataset']['uri']}, or promote it with --force --reason"
        )
    if _queries(challenger) != _queries(champion):
        raise InputError(
            f"{challenger.uri} and {champion.uri} do not have the same queries in the same order, though protocol and data are"
            " the same: make both again with python -m zsbir.evaluate"
        )


def _queries(report: Artifact) -> list[tuple[Any, ...]]:
    table = _per_query(report, list(QUERY))
    return list(zip(*(table[name].to_pylist() for name in QUERY), strict=True))


def _values(report: Artifact, model: str, metric: str) -> Float[np.ndarray, "q"]:
    name = f"{model}/{metric}"
    values: np.ndarray = _per_query(report, [name])[name].to_numpy().astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{report.uri}: {name} of some query is not a number; make the report again with python -m zsbir.evaluate")
    return values


def _per_query(report: Artifact, columns: list[str]) -> Any:
    from zsbir.base.parquet import read_table  # loaded here: the gate's configuration is read by command lines that open no report

    return read_table(report.verified("per_query.parquet"), dict.fromkeys(columns), report.address("per_query.parquet"))
