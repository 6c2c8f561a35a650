"""Reports grouped by what their runs were trained with, apart from the seed; what makes reports comparable is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zsbir.base.artifact import Artifact
from zsbir.base.config import digest_of
from zsbir.base.errors import InputError
from zsbir.base.text import clean
from zsbir.evaluation.reports import queries_of
from zsbir.promotion.gate import label_of
from zsbir.promotion.seeds import MADE_FROM, run_of, trained_with
from zsbir.recipes import UNTITLED, field_text, setting_title


@dataclass(frozen=True)
class Setting:
    """Trainings that differ in their seed alone, with the Report of each.

    config: their fields without the seed and those that change nothing; `packages` are those of losses and backbone, with their
    versions. made_from: digests of their inputs. reports: by seed.
    """

    title: str
    config: Mapping[str, Any]
    made_from: Mapping[str, str]
    reports: Mapping[int, Artifact]

    @property
    def key(self) -> str:
        """A digest that two settings share only if they are the same."""
        return digest_of([self.config, self.made_from])


def settings_of(reports: Sequence[Artifact]) -> list[Setting]:
    """Return the settings of reports in the order in which they first appear, each with a title that no other one has.

    A report that is given twice counts once. Raises InputError for two reports of one setting and seed, and where a run is gone.
    """
    found: dict[str, Setting] = {}
    for report in {report.digest: report for report in reports}.values():
        seed, made = _setting_of_one(report)
        known = found.get(made.key)
        if known and seed in known.reports:
            raise InputError(
                f"{known.reports[seed].uri} and {report.uri} are both of {made.title} with seed {seed}: pass one report for each"
                " seed"
            )
        found[made.key] = replace(known, reports={**known.reports, seed: report}) if known else made
    return _told_apart(list(found.values()))


def _setting_of_one(report: Artifact) -> tuple[int, Setting]:
    """Return the seed of a report's run and its setting, which has this one report."""
    run = run_of(report)
    seed = run.manifest.config.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InputError(f"{run.uri}: the seed in its manifest is no whole number; verify the run with python -m zsbir.artifacts")
    config = trained_with(run)
    if packages := run.manifest.facts.get("packages"):
        config["packages"] = packages
    references = {name: run.manifest.reference(name) for name in MADE_FROM}
    made_from = {name: reference.digest if reference else "" for name, reference in references.items()}
    return seed, Setting(setting_title(config), config, made_from, {seed: report})


def _told_apart(settings: Sequence[Setting]) -> list[Setting]:
    """Add to titles that several settings share what these settings differ in."""
    titled = []
    for setting in settings:
        alike = [other for other in settings if other.title == setting.title]
        words = _own_words(setting, alike) if len(alike) > 1 else []
        titled.append(replace(setting, title=" ".join([setting.title, *words])))
    return titled


def _own_words(setting: Setting, alike: Sequence[Setting]) -> list[str]:
    """Return the fields and inputs in which settings of one title differ, as words; of a title that was cut, its digest."""
    fields = [name for name in sorted(UNTITLED | {"packages"}) if len({digest_of(other.config.get(name)) for other in alike}) > 1]
    inputs = [name for name in MADE_FROM if len({other.made_from[name] for other in alike}) > 1]
    words = [field_text(name, setting.config.get(name)) for name in fields]
    words += [f"{name}={setting.made_from[name][:6] or 'none'}" for name in inputs]
    same = [other for other in alike if other is not setting and _own(other, fields, inputs) == _own(setting, fields, inputs)]
    return [*map(clean, words), *([f"({setting.key[:6]})"] if same else [])]


def _own(setting: Setting, fields: Sequence[str], inputs: Sequence[str]) -> str:
    return digest_of([[setting.config.get(name) for name in fields], [setting.made_from[name] for name in inputs]])


def check_one_task(reports: Sequence[Artifact]) -> None:
    """Raise InputError, with the way out, where two reports are not of the same queries and photos under the same protocol."""
    first = reports[0]
    for report in reports[1:]:
        for what, of_report, way_out in (
            ("protocol", label_of, "evaluate all runs under one --protocol"),
            ("data", _dataset, "evaluate all runs on one data set, with --dataset"),
            ("gallery", _gallery, "evaluate each run with --unseen-to of the others"),
        ):
            mine, other = of_report(first), of_report(report)
            if mine != other:
                raise InputError(f"{first.uri} is of {what} {mine}, {report.uri} of {other}: {way_out}")
        if queries_of(first) != queries_of(report):
            raise InputError(
                f"{first.uri} and {report.uri} do not have the same queries in the same order: evaluate each run with --unseen-to"
                " of the others"
            )


def _dataset(report: Artifact) -> str:
    return report.manifest.named("dataset").digest[:16]


def _gallery(report: Artifact) -> str:
    """Return how many photos there are to find, with what is left out."""
    left_out = report.manifest.facts.get("left_out")
    photos = f"{report.manifest.counts.get('gallery', 0):,} photos"
    return f"{photos} (others left out: {digest_of(left_out)[:6]})" if left_out else photos
