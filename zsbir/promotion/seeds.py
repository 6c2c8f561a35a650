"""Trainings of one recipe with several seeds: which reports belong together, and how far their seeds spread.

Two trainings that differ in their seed alone end in different models. A comparison of two recipes must know how different, from
several seeds or from a record of earlier ones; from one training on each side it cannot.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zsbir.base.artifact import Artifact
from zsbir.base.config import digest_of
from zsbir.base.errors import InputError
from zsbir.evaluation.intervals import SeedVariance, Variance
from zsbir.training.config import TrainConfig

ESTIMATED = "estimated from these seeds"
"""The source of a spread that a comparison found itself."""

MADE_FROM = ("dataset", "knowledge", "weights")
"""The inputs of a run that decide what it computes."""


@dataclass(frozen=True)
class SeedSpread:
    """The standard deviation of a metric's mean over seeds, with its source in words.

    seeds: how many trainings it was measured on; 0: it is taken as exact.
    """

    sd: float
    seeds: int
    source: str

    def variance(self) -> SeedVariance:
        """Return it as a variance. What a seed does to single classes is not known apart, and counts as common to all of them."""
        df = float(self.seeds - 1) if self.seeds else math.inf
        return SeedVariance(Variance(self.sd**2, df), Variance(0.0, math.inf))

    def text(self) -> str:
        """Return the spread of seeds and its source as words of a verdict."""
        return f"standard deviation over seeds {self.sd:.4f}, {self.source}"


def run_of(report: Artifact) -> Artifact:
    """Return the run that a Report measured."""
    return report.input("run", "run")


def trained_with(run: Artifact) -> dict[str, Any]:
    """Return the fields of a run's configuration, apart from its seed, that say how it was trained.

    Those that came with a later version and have their neutral value are left out: a run of an earlier version lacks them, and was
    trained as with that value.
    """
    neutral = TrainConfig.added_fields()
    return {
        name: value
        for name, value in run.manifest.config.items()
        if name != "seed" and not (name in neutral and digest_of(value) == digest_of(neutral[name]))
    }


def check_seeds(reports: Sequence[Artifact]) -> None:
    """Raise InputError where reports of one side are not of trainings that differ in their seed alone."""
    if len(reports) < 2:
        return
    runs = [run_of(report) for report in reports]
    for report, run in zip(reports, runs, strict=True):
        different = _differences(runs[0], run)
        if different:
            raise InputError(
                f"{report.uri} is not of the same recipe as {reports[0].uri}: {different}; pass reports of trainings that"
                " differ in --seed alone"
            )
    seeds = [run.manifest.config.get("seed") for run in runs]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"the reports are of the seeds {', '.join(map(str, seeds))}: pass one report for each seed")


def _differences(one: Artifact, other: Artifact) -> str:
    """Return in which fields and inputs two runs differ, apart from their seed; "" where in none."""
    mine, theirs, neutral = trained_with(one), trained_with(other), TrainConfig.added_fields()
    found = []
    for name in sorted(mine.keys() | theirs.keys()):
        there, here = (fields.get(name, neutral.get(name)) for fields in (mine, theirs))
        if digest_of(there) != digest_of(here):
            found.append(f"{name} is {there!r} there and {here!r} here")
    if one.manifest.facts.get("packages") != other.manifest.facts.get("packages"):
        found.append("another version of a package of losses or backbones")
    digests = [{name: run.manifest.inputs.get(name, {}).get("digest", "") for name in MADE_FROM} for run in (one, other)]
    found += [f"another {name}" for name in MADE_FROM if digests[0][name] != digests[1][name]]
    return ", ".join(found)


def more_seeds(
    reports: Sequence[Artifact],
    index: str,
    changed: Mapping[str, Any],
    *,
    root: str,
    options: Sequence[str] = (),
    least: int = 3,
) -> list[str]:
    """Return the commands that train a recipe with more seeds, until there are `least`, and promote by all of them.

    changed: fields of the run that differ from its recipe; root: the storage root to name, "" for the default one; options: further
    words for the promotion.
    """
    runs = [run_of(report) for report in reports]
    used = {int(run.manifest.config.get("seed", 0)) for run in runs}
    seeds = [seed for seed in range(least + len(used)) if seed not in used][: max(least - len(used), 1)]
    at_root = ["--root", root] if root else []
    lines, names = [], []
    for seed in seeds:
        training = _line(["zsbir.train", *_training_words(runs[0], changed), "--seed", str(seed), *at_root])
        protocol = _line(["--protocol", str(reports[0].manifest.config["protocol"]), *at_root], verb=False)
        names.append(f'"$REPORT_{seed}"')
        lines.append(f'REPORT_{seed}=$(python -m zsbir.evaluate "$({training})" {protocol})')
    known = " ".join(shlex.quote(report.uri) for report in reports)
    lines.append(f"python -m zsbir.promote {known} {' '.join(names)} {_line(['--index', index, *options, *at_root], verb=False)}")
    return lines


def _training_words(run: Artifact, changed: Mapping[str, Any]) -> list[str]:
    words = [str(run.manifest.config.get("recipe", "custom"))]
    words += ["--dataset", run.input("dataset", "dataset").uri]
    if "knowledge" in run.manifest.inputs:
        words += ["--knowledge", run.input("knowledge", "knowledge").uri]
    words += ["--weights", run.input_file("weights")]
    for name, value in changed.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif name != "seed" and value is not None:
            words += [f"--{flag}", ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]
    return words


def _line(words: Sequence[str], *, verb: bool = True) -> str:
    return ("python -m " if verb else "") + shlex.join(words)
