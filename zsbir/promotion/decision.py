"""The candidate for champion, the decision on it, and what is recorded of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from zsbir.base.artifact import Artifact
from zsbir.promotion.address import files_digest
from zsbir.promotion.gate import label_of, protocol_of
from zsbir.promotion.two_sets import Outcome

if TYPE_CHECKING:
    from zsbir.promotion.index_check import Verdict

LONGEST_NAME = 100
"""Characters of a data set's name that a tag holds."""


@dataclass(frozen=True)
class Candidate:
    """A model that may become champion: the report that measured it, its run, an index made with it, and its encoder's facts.

    others: reports of the same training with other seeds. given: the index that it was judged with, where its photos and those of
    other galleries are searched in `index`.
    """

    report: Artifact
    others: tuple[Artifact, ...]
    run: Artifact
    index: Artifact
    encoder: dict[str, Any]
    given: Artifact | None = None

    @property
    def reports(self) -> tuple[Artifact, ...]:
        """All reports by which it is judged, its own first."""
        return (self.report, *self.others)

    def evidence(self) -> dict[str, str]:
        """Return the tags that say what the model is, and by which artifacts it was promoted or refused."""
        summary = self.report.read_json("report.json")
        metric = protocol_of(self.report).primary
        return {
            "backbone": str(self.encoder["backbone"]),
            "dimensions": str(self.encoder["embedding_dim"]),
            "run_uri": self.run.uri,
            "report": self.report.uri,
            "report_digest": self.report.digest,
            "seeds": str(len(self.reports)),
            **{f"report_{number}": report.uri for number, report in enumerate(self.others, start=2)},
            "dataset": str(summary["dataset"])[:LONGEST_NAME],
            "dataset_digest": self.report.manifest.inputs["dataset"]["digest"],
            "protocol": label_of(self.report),
            "metric": metric,
            "metric_value": f"{summary['models']['trained'][metric]:.4f}",
            **self.index_evidence(),
        }

    def index_evidence(self) -> dict[str, str]:
        """Return the tags that name its index, and the one that it was judged with where that is another one."""
        given = self.given
        return {
            "index": self.index.uri,
            "index_digest": self.index.digest,
            "index_files": files_digest(self.index),
            "given_index_digest": given.digest if given else "",
            "given_index_files": files_digest(given) if given else "",
        }

    def has_index_of(self, tags: Mapping[str, str]) -> bool:
        """Return whether a version's tags name its index, as the one that is searched or the one that it was judged with."""
        found = self.index.digest, files_digest(self.index)
        return any((tags.get(f"{which}_digest"), tags.get(f"{which}_files")) == found for which in ("index", "given_index"))


@dataclass(frozen=True)
class Decision:
    """The outcome and its reason. comparison: None where the two models could not be compared, and the promotion was forced."""

    outcome: Literal["passed", "refused", "undecided", "forced"]
    why: str
    comparison: Outcome | None
    trial: Verdict
    force_reason: str = ""
    index_failed: bool = False
    """Whether the index failed its recall check, which --force does not override."""

    @property
    def promotes(self) -> bool:
        """Whether the model becomes champion."""
        return self.outcome in ("passed", "forced")

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        comparison = self.comparison.as_json() if self.comparison else None
        return {**vars(self), "comparison": comparison, "trial": self.trial.as_json()}

    def way_out(self) -> str:
        """Return what the user can do about a model that is not promoted."""
        if self.index_failed:
            return "make its index again with python -m zsbir.index"
        if self.outcome == "undecided":
            if self.comparison and self.comparison.classes < 2:
                return self.comparison.more_classes()
            if self.comparison and self.comparison.spread_known:
                return "train more seeds by the commands above, or allow a larger loss on the champion's data with --max-loss"
            return "train more seeds by the commands above, or pass the standard deviation over seeds as --seed-spread"
        return 'to promote it all the same, add --force --reason "..."'


def decide(comparison: Outcome | None, why: str, trial: Verdict, *, min_recall: float, force_reason: str) -> Decision:
    """Decide by the comparison and the recall check. Forcing overrides the comparison alone: an index can be made again."""
    if not trial.passed(min_recall):
        why = f"the index failed its recall check: {trial.reason()}; at least {min_recall:g} is asked for. {why}"
        return Decision("refused", why, comparison, trial, index_failed=True)
    if comparison and comparison.passed:
        return Decision("passed", why, comparison, trial)
    if force_reason:
        return Decision("forced", why, comparison, trial, force_reason)
    return Decision(comparison.verdict if comparison else "refused", why, comparison, trial)
