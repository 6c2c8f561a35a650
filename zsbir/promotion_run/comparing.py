"""A candidate compared with the champion: by which reports, on which data, and how far seeds are known to spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zsbir.base import events
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError, RunError
from zsbir.promotion.address import DEFAULT_MODEL
from zsbir.promotion.decision import Candidate
from zsbir.promotion.gate import compare, protocol_of
from zsbir.promotion.opponent import champion_reports, earlier_spread, named_for
from zsbir.promotion.seeds import SeedSpread
from zsbir.promotion.two_sets import Outcome, check_own_data, compare_on_both, hardest, of_other_data
from zsbir.promotion_run.config import PromoteConfig, PromotionRequest, Settings
from zsbir.recipes import measured_spread

if TYPE_CHECKING:
    from zsbir.edge.releases import Release


def older_champions_of(candidate: Candidate, settings: Settings) -> list[Release]:
    """Return whom the first champion of the default model has to beat: those under the names that earlier versions gave.

    The candidate itself is none of them, if it is champion under such a name.
    """
    from zsbir.edge.registered_models import older_champions
    from zsbir.edge.releases import is_of

    if settings.model != DEFAULT_MODEL:
        return []
    found = [release for release in older_champions(settings.root) if not is_of(release, candidate.run)]
    if found:
        older = ", ".join(release.uri for release in found)
        events.say(f"{settings.model} has no champion yet: the champions under older names are the opponents: {older}")
    return found


def comparison(
    candidate: Candidate, opponents: Sequence[Release], request: PromotionRequest, config: PromoteConfig, settings: Settings
) -> tuple[Outcome | None, str]:
    """Compare a candidate with each opponent, or with its own frozen backbone if there is none.

    Return the numbers against the one that is hardest to beat, and the same in words. Where two models cannot be compared: None and
    the reason if the promotion is forced, else InputError, or RunError where the storage of a report does not answer.
    """
    named = named_for([release.tags for release in opponents], request.champion_reports)
    rivals: list[Release | None] = [*opponents] or [None]
    pairs = zip(rivals, named, strict=True)
    return hardest([_compare_with(candidate, rival, request, config, settings, named=reports) for rival, reports in pairs])


def _compare_with(
    candidate: Candidate,
    champion: Release | None,
    request: PromotionRequest,
    config: PromoteConfig,
    settings: Settings,
    *,
    named: Sequence[str],
) -> tuple[Outcome | None, str]:
    """Compare a candidate with one champion, or (None) with its own frozen backbone. named: reports to use in place of its own."""
    try:
        others = champion_reports(champion.uri, champion.tags, named, root=settings.root) if champion else []
        comparison = _compared(candidate, champion, others, config, settings)
    except (InputError, RunError) as error:
        if not request.force_reason or not champion:
            raise
        return None, f"not compared with {_name_of(champion, settings)}: {error}"
    return comparison, comparison.reason()


def _name_of(champion: Release | None, settings: Settings) -> str:
    """Return what a verdict calls an opponent."""
    if champion is None:
        return "its own frozen backbone"
    return f"the champion (version {champion.version})" if champion.model == settings.model else f"the champion {champion.uri}"


def _compared(
    candidate: Candidate,
    champion: Release | None,
    others: list[Artifact],
    config: PromoteConfig,
    settings: Settings,
) -> Outcome:
    """Compare a candidate with reports of its opponent: on their common data, or on both data sets where there is none."""
    for report in others:
        check_own_data(report)
    name = _name_of(champion, settings)
    if not (others and of_other_data(candidate.report, others[0])):
        recorded = _recorded_spread(candidate, champion, config, candidate.report)
        return compare(candidate.reports, others, config, opponent=name, recorded=recorded)
    from zsbir.evaluation_run.several import measure_like

    return compare_on_both(
        candidate.reports,
        others,
        config,
        opponent=name,
        measure=measure_like(candidate.report.manifest.config, settings.root),
        recorded=lambda report: _recorded_spread(candidate, champion, config, report),
    )


def _recorded_spread(candidate: Candidate, champion: Release | None, config: PromoteConfig, report: Artifact) -> SeedSpread | None:
    """Return the spread of seeds for a comparison with one seed a side, on the data set of a report.

    It is what the user gives, else what the champion's seeds had, else what was measured for the recipe; None where there is none.
    """
    if config.seed_spread is not None:
        return SeedSpread(config.seed_spread, 0, "given as --seed-spread")
    metric = config.metric or protocol_of(candidate.report).primary
    if champion:
        found = earlier_spread(champion.tags, metric, report, source=f"as estimated for version {champion.version}")
        if found:
            return found
    measured = measured_spread(candidate.run.manifest.config, report.input("dataset", "dataset").manifest.name, metric)
    return SeedSpread(measured.sd, measured.seeds, f"as measured for the recipe: {measured.page}") if measured else None
