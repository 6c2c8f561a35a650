"""Challenger and champion of different data: both are measured on what neither has seen of each data set, and judged by both.

A collection of pictures grows, so the challenger's data set is seldom the champion's. On the challenger's set it must be better, as
on common data (`zsbir.promotion.gate`). On the champion's set it must not be worse: the lower bound of the interval of its gain
must lie above `-max_loss`. An equal model passes both no more often than the first alone, and a model that loses `max_loss` or more
on the champion's set passes in no more than half of 1 - level of the cases, 2.5 % (docs/promotion.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zsbir.base import events
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.evaluation.protocol import find_protocol
from zsbir.evaluation.seen import Left, Seen, seen_by, what_is_left
from zsbir.promotion.gate import Comparison, GateConfig, Verdict, compare, label_of
from zsbir.promotion.seeds import SeedSpread, check_seeds, run_of

if TYPE_CHECKING:
    from zsbir.data.samples import Samples

LEAST_CLASSES = 2
"""Classes below which there is no interval over classes."""

NAMES_IN_WAY_OUT = 12


@dataclass(frozen=True)
class EvaluationSet:
    """A data set with what is left of it for both models. whose: "challenger" or "champion", whose training it was made for."""

    whose: str
    dataset: Artifact
    samples: Samples
    left: Left

    @property
    def title(self) -> str:
        """Its name and digest for people: "the challenger's data (toy 47dd0123)"."""
        return f"the {self.whose}'s data ({self.dataset.manifest.name} {self.dataset.digest[:8]})"

    def text(self) -> str:
        """Return in one line what is left and what is left out."""
        found = f"{self.left.classes} unseen classes, {len(self.left.queries):,} sketches against {len(self.left.gallery):,} photos"
        return f"on {self.title}: {found}; left out: {self.left.out.text()}"


@dataclass(frozen=True)
class Plan:
    """Both data sets without what either side has seen, before anything is evaluated. seen: what that is."""

    mine: EvaluationSet
    theirs: EvaluationSet
    seen: Seen

    @property
    def both(self) -> tuple[EvaluationSet, EvaluationSet]:
        """The challenger's set, then the champion's."""
        return self.mine, self.theirs

    @property
    def enough(self) -> bool:
        """Whether each set has classes enough for an interval."""
        return min(part.left.classes for part in self.both) >= LEAST_CLASSES


Measure = Callable[[Sequence[tuple[Artifact, EvaluationSet]], Seen], list[Artifact]]
"""A function from runs, each with the set to measure it on, and what has been seen to their Reports, in order."""


@dataclass(frozen=True)
class TwoSets:
    """The comparisons on the challenger's and on the champion's data set; both None where a set has too few classes left."""

    plan: Plan
    mine: Comparison | None
    theirs: Comparison | None
    max_loss: float

    @property
    def classes(self) -> int:
        """How many classes the set with fewer of them has."""
        return min(part.left.classes for part in self.plan.both)

    @property
    def low(self) -> float:
        """The lower of the two lower bounds of the gain; -1, the lowest of all, where nothing could be compared."""
        return min(self.mine.low, self.theirs.low) if self.mine and self.theirs else -1.0

    @property
    def verdict(self) -> Verdict:
        """Refused if either set refuses, undecided if either is undecided, else passed."""
        if self.mine is None or self.theirs is None:
            return "undecided"
        found = {self.mine.verdict, not_worse(self.theirs, self.max_loss)}
        return "refused" if "refused" in found else "undecided" if "undecided" in found else "passed"

    @property
    def passed(self) -> bool:
        """Whether the challenger is shown to be better on its own data and not worse on the champion's."""
        return self.verdict == "passed"

    @property
    def spread_known(self) -> bool:
        """Whether the intervals of both sets hold how far seeds spread."""
        return bool(self.mine and self.mine.spread and self.theirs and self.theirs.spread)

    def reason(self) -> str:
        """Return the verdict in one line, with the numbers of both sets."""
        if self.mine is None or self.theirs is None:
            few = [f"{part.left.classes} on {part.title}" for part in self.plan.both if part.left.classes < LEAST_CLASSES]
            return f"too few classes are left that neither model has seen: {', '.join(few)}; an interval needs {LEAST_CLASSES}"
        mine, theirs = (f"on {part.title}: " for part in self.plan.both)
        return f"{mine}{self.mine.reason()}; {theirs}{self.theirs.numbers()}; {self._on_theirs(self.theirs)}"

    def more_classes(self) -> str:
        """Return what the user can do where too few classes are left: keep what was unseen unseen."""
        names = _unseen(self.plan.theirs.samples)
        named = f"--unseen-classes {','.join(names)}" if len(names) <= NAMES_IN_WAY_OUT else "--unseen-classes FILE"
        source = "" if len(names) <= NAMES_IN_WAY_OUT else f", with the classes of split unseen in {self.plan.theirs.dataset.uri}"
        return (
            f"ingest the challenger's images with the champion's unseen classes ({named}{source}) and train again, or promote it"
            ' with --force --reason "..."'
        )

    def as_json(self) -> dict[str, Any]:
        """Return all numbers as plain values: those of the challenger's set, and the champion's under `on_champion_data`."""
        whole = {"passed": self.passed, "verdict": self.verdict}
        mine, theirs = (_set_json(part) for part in self.plan.both)
        if self.mine is None or self.theirs is None:
            return {**mine, **whole, "on_champion_data": theirs}
        verdict = not_worse(self.theirs, self.max_loss)
        about_theirs = {"passed": verdict == "passed", "verdict": verdict, "max_loss": self.max_loss}
        return {**self.mine.as_json(), **mine, **whole, "on_champion_data": {**self.theirs.as_json(), **theirs, **about_theirs}}

    def _on_theirs(self, found: Comparison) -> str:
        verdict = not_worse(found, self.max_loss)
        if verdict == "passed":
            return f"not worse there by {self.max_loss:g} or more"
        if verdict == "refused":
            return f"worse there by {self.max_loss:g} or more"
        if found.low > -self.max_loss:
            return f"not worse there by {self.max_loss:g} or more for these trainings, which may be the luck of a seed"
        return f"a loss of {self.max_loss:g} or more there is not excluded"


Outcome = Comparison | TwoSets
"""What comes of comparing two trainings, on common data or on the data of either."""


def hardest(found: Sequence[tuple[Outcome | None, str]]) -> tuple[Outcome | None, str]:
    """Return, of comparisons with several opponents, the one against which a challenger does worst: it has to beat each of them.

    found: each with its reason in words; None for an opponent that it cannot be compared with, which comes first.
    """
    order: tuple[Verdict, ...] = ("refused", "undecided", "passed")
    return min(found, key=lambda each: (order.index(each[0].verdict), each[0].low) if each[0] else (-1, 0.0))


def not_worse(found: Comparison, max_loss: float) -> Verdict:
    """Return whether a model is shown not to lose `max_loss` or more, is shown to lose it (refused), or neither."""
    if found.classes >= LEAST_CLASSES and found.high <= -max_loss:
        return "refused"
    shown = found.classes >= LEAST_CLASSES and found.spread is not None and found.low > -max_loss
    return "passed" if shown else "undecided"


def of_other_data(challenger: Artifact, champion: Artifact) -> bool:
    """Return whether two Reports are of different data sets."""
    return challenger.manifest.named("dataset").digest != champion.manifest.named("dataset").digest


def check_own_data(report: Artifact) -> None:
    """Raise InputError for a Report that does not measure its run on the whole of the run's own data set."""
    if "left_out" in report.manifest.facts:
        run = report.manifest.named("run").uri
        raise InputError(
            f"{report.uri} measures {run} on another data set than its own, or on a part of it; promote by the report of its own:"
            f" python -m zsbir.evaluate {run} --protocol {report.manifest.config['protocol']}. Against a champion of other data the"
            " promotion measures by itself"
        )


def compare_on_both(
    challengers: Sequence[Artifact],
    champions: Sequence[Artifact],
    config: GateConfig,
    *,
    opponent: str,
    measure: Measure,
    recorded: Callable[[Artifact], SeedSpread | None],
) -> TwoSets:
    """Measure all trainings of both sides on both data sets, and compare them there.

    challengers, champions: Reports on each side's own data, one for each seed. recorded: the spread of seeds that is known for the
    data set of a Report. Says what is left of each set before anything is embedded. Raises InputError, with the way out, where a
    run or a data set is gone, and where the reports of one side are not of one recipe or of one protocol.
    """
    for report in (*challengers, *champions):
        check_own_data(report)
        if label_of(report) != label_of(challengers[0]):
            raise InputError(
                f"{challengers[0].uri} is of {label_of(challengers[0])}, {report.uri} of {label_of(report)}: evaluate both runs"
                " under one protocol, and pass the champion's report as --champion-report"
            )
    with _way_out():
        sides = [run_of(report) for report in challengers], [run_of(report) for report in champions]
    check_seeds(challengers)
    check_seeds(champions)
    with _way_out():
        plan = _plan(sides[0][0], sides[1][0], str(challengers[0].manifest.config["protocol"]))
    _say_plan(plan)
    if not plan.enough:
        return TwoSets(plan, None, None, config.max_loss)
    runs = [*sides[0], *sides[1]]
    with _way_out():
        reports = measure([(run, part) for part in plan.both for run in runs], plan.seen)
    found = []
    for number in range(2):
        mine, other = _split(reports[number * len(runs) : (number + 1) * len(runs)], len(challengers))
        found.append(compare(mine, other, config, opponent=opponent, recorded=recorded(mine[0])))
    return TwoSets(plan, found[0], found[1], config.max_loss)


def _split(reports: list[Artifact], count: int) -> tuple[list[Artifact], list[Artifact]]:
    return reports[:count], reports[count:]


def _plan(challenger: Artifact, champion: Artifact, protocol: str) -> Plan:
    """Open both data sets, and find what is left of each."""
    from zsbir.data.samples import load_samples  # loaded here: command lines read this module's callers

    seen = seen_by([challenger, champion])
    parts = []
    for whose, run in (("challenger", challenger), ("champion", champion)):
        dataset = run.input("dataset", "dataset")
        samples = load_samples(dataset)
        parts.append(EvaluationSet(whose, dataset, samples, what_is_left(samples, find_protocol(protocol), seen)))
    return Plan(parts[0], parts[1], seen)


def _say_plan(plan: Plan) -> None:
    events.say(
        "challenger and champion were trained on different data: both are measured on what neither has seen of each data set"
    )
    for part in plan.both:
        events.say(part.text())


@contextmanager
def _way_out() -> Iterator[None]:
    """Add to an error what helps where a comparison on both data sets is not possible."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"{error}. A comparison on both data sets needs both runs with what they were made from: copy it back (python -m"
            ' zsbir.artifacts copy), or promote with --force --reason "..."'
        ) from None


def _unseen(samples: Samples) -> list[str]:
    return [samples.class_names[number] for number in samples.classes("unseen")]


def _set_json(part: EvaluationSet) -> dict[str, Any]:
    left = part.left
    return {
        "dataset_digest": part.dataset.digest,
        "classes": left.classes,
        "queries": len(left.queries),
        "gallery": len(left.gallery),
        "left_out": left.out.as_json(),
    }
