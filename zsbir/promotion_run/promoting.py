"""A promotion: what is opened, decided, recorded, and how the alias moves."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zsbir.base import events
from zsbir.base.artifact import Artifact
from zsbir.base.errors import Declined, InputError, RunError
from zsbir.base.storage import default_root
from zsbir.promotion.card import Subject, card, card_text
from zsbir.promotion.decision import Candidate, Decision, decide
from zsbir.promotion.gate import protocol_of
from zsbir.promotion.seeds import more_seeds, run_of
from zsbir.promotion.two_sets import check_own_data
from zsbir.promotion_run.comparing import comparison, older_champions_of
from zsbir.promotion_run.config import PromoteConfig, PromotionRequest, Settings
from zsbir.recipes import RECIPES, recipe
from zsbir.training.config import TrainConfig

if TYPE_CHECKING:
    from zsbir.edge.releases import Release, Releases
    from zsbir.promotion.index_check import Verdict
    from zsbir.promotion_run.galleries import Kept


def promote(request: PromotionRequest, config: PromoteConfig, settings: Settings) -> str:
    """Return the URI of the version that is champion now; for a dry run, what would happen.

    Raises RunError with the numbers for a refusal, InputError where report, index and the champion's report do not belong together.
    """
    candidate = _open(request)
    _check_places(candidate.index, request, settings.root)
    from zsbir.edge.releases import Releases, is_of  # MLflow takes seconds to load

    releases = Releases(settings.root, settings.experiment, settings.model)
    champion = releases.champion()
    if champion and is_of(champion, candidate.run):
        return _update_index(releases, champion, candidate, config, root=settings.root, dry_run=request.dry_run)
    opponents = [champion] if champion else older_champions_of(candidate, settings)
    outcome, why = comparison(candidate, opponents, request, config, settings)
    trial = check_index(candidate, config)
    decision = decide(outcome, why, trial, min_recall=config.min_recall, force_reason=request.force_reason)
    _say_how_to_decide(candidate, decision, request, config, settings)
    keeps = champion is not None and config.gallery == "champion" and decision.promotes
    kept = _to_keep(champion, candidate, request, settings) if champion and keeps else None
    if request.dry_run:
        return _preview(candidate, champion, decision, kept, settings.model)
    if kept:
        candidate, decision = _with_galleries(kept, candidate, decision, config, settings)
    with releases.changing(champion):
        if champion and keeps:
            _check_same_index(releases.champion(), champion)
        return _carry_out(releases, champion, candidate, decision)


def _open(request: PromotionRequest) -> Candidate:
    """Open what the request names. Raises InputError where that is not a report and an index."""
    from zsbir.model.encoder import saved_facts

    if not request.index:
        raise InputError(
            "no index given: pass --index URI, as python -m zsbir.index prints it for the report's run; if you did, did the command"
            " before fail?"
        )
    report, index = Artifact(request.report, "report"), Artifact(request.index, "index")
    protocol_of(report)
    run = run_of(report)
    others = tuple(Artifact(uri, "report") for uri in request.other_reports)
    for each in (report, *others):
        check_own_data(each)
    return Candidate(report, others, run, index, saved_facts(run.verified("encoder.safetensors")))


def _check_places(index: Artifact, request: PromotionRequest, root: str) -> None:
    """Raise InputError where the check of an index would read photos that may not be read for whoever the promotion is made for."""
    permitted = request.permitted(root)
    if permitted:
        from zsbir.index_run.growing import open_base
        from zsbir.promotion_run.galleries import check_places

        check_places(open_base(index), permitted)


def check_index(candidate: Candidate, config: PromoteConfig) -> Verdict:
    """Return the result of the recall check of the candidate's index."""
    from zsbir.promotion.index_check import try_index
    from zsbir.training.context import default_device
    from zsbir.training.precision import autocast

    return try_index(
        candidate.index,
        candidate.run,
        protocol_of(candidate.report),
        seed=config.seed,
        device=default_device(),
        arithmetic=autocast,
    )


def _say_how_to_decide(
    candidate: Candidate, decision: Decision, request: PromotionRequest, config: PromoteConfig, settings: Settings
) -> None:
    """Print the commands that decide an undecided comparison."""
    if decision.outcome == "undecided" and decision.comparison and decision.comparison.classes > 1:
        root = "" if settings.root == default_root() else settings.root
        events.say("to decide, train the same with other seeds, evaluate these runs, and promote by all reports:")
        options = flags_of(request, config, settings)
        for line in more_seeds(candidate.reports, candidate.index.uri, changed_fields(candidate.run), root=root, options=options):
            events.say(f"  {line}")


def flags_of(request: PromotionRequest, config: PromoteConfig, settings: Settings) -> list[str]:
    """Return the flags of a promotion that differ from their defaults, for a command that asks the same."""
    usual = PromoteConfig().model_dump()
    changed = {name: value for name, value in config.model_dump().items() if value != usual[name]}
    where = {name: getattr(settings, name) for name in ("experiment", "model")}
    changed |= {name: value for name, value in where.items() if value != Settings.model_fields[name].default}
    words = [word for name, value in changed.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += [word for uri in request.champion_reports for word in ("--champion-report", uri)]
    return [*words, *(["--dry-run"] if request.dry_run else [])]


def _to_keep(champion: Release, candidate: Candidate, request: PromotionRequest, settings: Settings) -> Kept | None:
    """Return which galleries of the champion have to be embedded for the candidate; None where there is none."""
    from zsbir.promotion_run.galleries import galleries_to_keep  # it loads torch, which a refusal need not wait for

    return galleries_to_keep(champion, candidate.index, settings.root, request.permitted(settings.root))


def _with_galleries(
    kept: Kept, candidate: Candidate, decision: Decision, config: PromoteConfig, settings: Settings
) -> tuple[Candidate, Decision]:
    """Embed the champion's photos. Return the candidate with the index of these, and the decision with its check.

    Raises InputError or RunError, with the way out, where a gallery cannot be read, or the index fails its check.
    """
    from zsbir.index_run.config import Settings as IndexSettings
    from zsbir.promotion_run.galleries import champion_stays

    events.say(kept.sentence())
    where = IndexSettings(root=settings.root, num_workers=settings.num_workers, gpus_per_worker=settings.gpus_per_worker)
    index = kept.embedded(candidate.run, where)
    events.say(f"the index of all these photos: {index.uri}")
    candidate = replace(candidate, index=index, given=candidate.index)
    with champion_stays():
        trial = check_index(candidate, config)
        if not trial.passed(config.min_recall):
            raise RunError(f"the index of the champion's photos, {index.uri}, failed its recall check: {trial.reason()}")
    return candidate, replace(decision, trial=trial)


def _check_same_index(now: Release | None, champion: Release) -> None:
    """Raise RunError where the champion was given another index since its galleries were looked at."""
    if now and any(now.tags.get(name) != champion.tags.get(name) for name in ("index_digest", "index_files")):
        raise RunError(
            f"{champion.uri} was given another index meanwhile, and nothing was changed: give the same command again, to keep"
            " its photos"
        )


def _preview(candidate: Candidate, champion: Release | None, decision: Decision, kept: Kept | None, model: str) -> str:
    """Return what a dry run says. Raises RunError where the model would not be promoted."""
    _log_decision(decision)
    if not decision.promotes:
        raise Declined(f"would be {decision.outcome}: {decision.why}")
    if kept:
        events.say(kept.sentence())
    rank = f"in place of {champion.uri}" if champion else "as its first champion"
    return f"would be promoted ({decision.outcome}): {candidate.run.uri} to {model}, {rank}"


def _carry_out(releases: Releases, champion: Release | None, candidate: Candidate, decision: Decision) -> str:
    """Register the model, record the decision, and set the alias champion or challenger."""
    from zsbir.edge.releases import stamp

    release = releases.registered(candidate.run, _example_image(candidate))
    subject = Subject(releases.model, candidate.report, candidate.run, candidate.encoder, changed_fields(candidate.run))
    facts = {"version": release.uri, "champion": champion.uri if champion else "", **candidate.evidence(), **decision.as_json()}
    files = {"README.md": card(subject), f"gate-{stamp()}.json": json.dumps(facts, indent=1)}
    releases.record(release, _tags(candidate, decision), files=files, description=card_text(subject))
    _log_decision(decision)
    if not decision.promotes:
        releases.set_challenger(release)
        raise Declined(f"{decision.outcome}: {decision.why}. {release.uri} is recorded as challenger; {decision.way_out()}")
    releases.set_champion(release, champion)
    events.say(f"{release.uri} is champion now" + (f", in place of {champion.uri}" if champion else ""))
    return release.uri


def _log_decision(decision: Decision) -> None:
    """Print the numbers; the reason of a refusal is in its error line."""
    events.say(decision.trial.reason())
    if decision.promotes:
        events.say(decision.why)
    if decision.outcome == "forced":
        events.say(f"forced: {decision.force_reason}")


def _tags(candidate: Candidate, decision: Decision) -> dict[str, str]:
    """Return the tags that record the decision on a version."""
    from zsbir.edge.releases import now_utc, user

    return {
        **candidate.evidence(),
        "gate": decision.outcome,
        "gate_numbers": json.dumps(decision.comparison.as_json() if decision.comparison else {}),
        "gate_reason": decision.why,
        "recall": json.dumps(decision.trial.as_json()),
        "force_reason": decision.force_reason,
        "decided_utc": now_utc(),
        "decided_by": user(),
    }


def _update_index(
    releases: Releases,
    champion: Release,
    candidate: Candidate,
    config: PromoteConfig,
    *,
    root: str,
    dry_run: bool,
) -> str:
    """Return the URI of a candidate that is champion already; record its index if it is another one and passes the check."""
    if candidate.has_index_of(champion.tags):
        events.say(f"{champion.uri} is champion already, with this index: nothing was changed")
        return champion.uri
    trial = check_index(candidate, config)
    if not trial.passed(config.min_recall):
        raise Declined(
            f"refused: the new index failed its recall check: {trial.reason()}; make it again with python -m zsbir.index"
        )
    from zsbir.promotion_run.galleries import no_longer_shown

    if lost := no_longer_shown(champion, candidate.index, root):
        events.warn(f"{candidate.index.uri} lacks photos that {champion.uri} has shown: {lost}")
    if dry_run:
        return f"would be given a new index: {champion.uri}, {candidate.index.uri} ({trial.reason()})"
    tags = {**candidate.index_evidence(), "recall": json.dumps(trial.as_json())}
    with releases.changing(champion):
        releases.record(champion, tags, files={})
    events.say(f"{champion.uri} is champion already; its index is {candidate.index.uri} now ({trial.reason()})")
    return champion.uri


def _example_image(candidate: Candidate) -> bytes:
    """Return the thumbnail of the first photo in a candidate's index."""
    from zsbir.data.index_files import IndexFiles

    files = IndexFiles(candidate.index, candidate.encoder["embedding_dim"])
    return files.thumbnail(int(files.rows()[0]))


def changed_fields(run: Artifact) -> dict[str, Any]:
    """Return the fields in which a run's configuration differs from its recipe."""
    config = run.manifest.config
    base = (recipe(config["recipe"]) if config.get("recipe") in RECIPES else TrainConfig()).model_dump(mode="json")
    return {name: value for name, value in config.items() if name != "recipe" and base.get(name) != value}
