"""Make a model the champion if it beats the present one: Report and Index in, a model version in MLflow out.

    python -m zsbir.promote artifacts/reports/0123456789abcdef --index artifacts/indexes/toy/0123456789abcdef
    python -m zsbir.promote REPORT REPORT_OF_SEED_1 REPORT_OF_SEED_2 --index INDEX
    python -m zsbir.promote rollback --reason "misses bicycles"
    python -m zsbir.promote list

The model behind the report becomes a version of a registered model in MLflow: of `zsbir`, or of the one that --model names, one
for each application, whatever the backbone. It gets the alias champion if two checks pass: by the lower bound of an interval
over classes and seeds it beats the champion's reports of the same protocol (the first champion: its own frozen backbone; one of
other data: both are measured on both data sets), and a search in its index finds photos and sketches as an exact ranking does.
Otherwise the model is refused, or undecided where the spread of seeds is not known: it gets the alias challenger, its numbers are
recorded, and the exit code is 1. Reports of the same training with other seeds make the interval narrower, and show how far seeds
spread. Prints models:/NAME/VERSION, an address that search, index, evaluate and export take, too. See docs/promotion.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from zsbir.base import cli, events
from zsbir.base.artifact import Artifact
from zsbir.base.config import Config
from zsbir.base.errors import Declined, InputError, RunError
from zsbir.base.layout import MLFLOW_EXPERIMENT
from zsbir.base.storage import default_root
from zsbir.promotion.address import DEFAULT_MODEL, MODEL_PATTERN, is_model_name
from zsbir.promotion.card import Subject, card, card_text
from zsbir.promotion.decision import Candidate, Decision, decide
from zsbir.promotion.gate import GateConfig, compare, protocol_of
from zsbir.promotion.listing import row, shown
from zsbir.promotion.opponent import champion_reports, earlier_spread, named_for
from zsbir.promotion.seeds import SeedSpread, more_seeds, run_of
from zsbir.promotion.two_sets import Outcome, check_own_data, compare_on_both, hardest, of_other_data
from zsbir.recipes import RECIPES, measured_spread, recipe
from zsbir.storage_admin.tables import table
from zsbir.training.config import TrainConfig

if TYPE_CHECKING:
    from zsbir.edge.releases import Release, Releases
    from zsbir.promotion.index_check import Verdict

LONGEST_REASON = 500
"""Characters of a reason that are recorded."""


class PromoteConfig(GateConfig):
    """What decides whether the model is promoted."""

    min_recall: float = Field(
        0.99, ge=0, le=1, description="lowest recall@10 of sketches in the index, compared with a slow exact ranking, that passes"
    )


class Settings(Config):
    """Where the models are registered."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")
    experiment: str = Field(MLFLOW_EXPERIMENT, description="MLflow experiment of the runs")
    model: str = Field(DEFAULT_MODEL, pattern=f"^{MODEL_PATTERN}$", description="registered model, one for each application")


@dataclass(frozen=True)
class PromotionRequest:
    """What the user asks for. force_reason: why the model becomes champion whatever the comparison says; "": not forced.

    report: of the model; other_reports: of the same training with other seeds; champion_reports: none: those it was promoted by.
    """

    report: str
    index: str
    other_reports: tuple[str, ...] = ()
    champion_reports: tuple[str, ...] = ()
    force_reason: str = ""
    dry_run: bool = False


def promote(request: PromotionRequest, config: PromoteConfig, settings: Settings) -> str:
    """Return the URI of the version that is champion now; for a dry run, what would happen.

    Raises RunError with the numbers for a refusal, InputError where report, index and the champion's report do not belong together.
    """
    candidate = _open(request)
    from zsbir.edge.releases import Releases, is_of  # MLflow takes seconds to load

    releases = Releases(settings.root, settings.experiment, settings.model)
    champion = releases.champion()
    if champion and is_of(champion, candidate.run):
        return _update_index(releases, champion, candidate, request, config)
    opponents = [champion] if champion else _older_champions(candidate, settings)
    comparison, why = _comparison(candidate, opponents, request, config, settings)
    trial = _check_index(candidate, config)
    decision = decide(comparison, why, trial, min_recall=config.min_recall, force_reason=request.force_reason)
    _say_how_to_decide(candidate, decision, request, config, settings)
    if request.dry_run:
        return _preview(candidate, champion, decision, settings.model)
    with releases.changing(champion):
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


def _check_index(candidate: Candidate, config: PromoteConfig) -> Verdict:
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


def _older_champions(candidate: Candidate, settings: Settings) -> list[Release]:
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


def _comparison(
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


def _say_how_to_decide(
    candidate: Candidate, decision: Decision, request: PromotionRequest, config: PromoteConfig, settings: Settings
) -> None:
    """Print the commands that decide an undecided comparison."""
    if decision.outcome == "undecided" and decision.comparison and decision.comparison.classes > 1:
        root = "" if settings.root == default_root() else settings.root
        events.say("to decide, train the same with other seeds, evaluate these runs, and promote by all reports:")
        options = _asked(request, config, settings)
        for line in more_seeds(candidate.reports, candidate.index.uri, _changed_fields(candidate.run), root=root, options=options):
            events.say(f"  {line}")


def _asked(request: PromotionRequest, config: PromoteConfig, settings: Settings) -> list[str]:
    """Return the flags of a promotion that differ from their defaults, for a command that asks the same."""
    usual = PromoteConfig().model_dump()
    changed = {name: value for name, value in config.model_dump().items() if value != usual[name]}
    where = {name: getattr(settings, name) for name in ("experiment", "model")}
    changed |= {name: value for name, value in where.items() if value != Settings.model_fields[name].default}
    words = [word for name, value in changed.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += [word for uri in request.champion_reports for word in ("--champion-report", uri)]
    return [*words, *(["--dry-run"] if request.dry_run else [])]


def _preview(candidate: Candidate, champion: Release | None, decision: Decision, model: str) -> str:
    """Return what a dry run says. Raises RunError where the model would not be promoted."""
    _log_decision(decision)
    if not decision.promotes:
        raise Declined(f"would be {decision.outcome}: {decision.why}")
    rank = f"in place of {champion.uri}" if champion else "as its first champion"
    return f"would be promoted ({decision.outcome}): {candidate.run.uri} to {model}, {rank}"


def _carry_out(releases: Releases, champion: Release | None, candidate: Candidate, decision: Decision) -> str:
    """Register the model, record the decision, and set the alias champion or challenger."""
    from zsbir.edge.releases import stamp

    release = releases.registered(candidate.run, _example_image(candidate))
    subject = Subject(releases.model, candidate.report, candidate.run, candidate.encoder, _changed_fields(candidate.run))
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
    releases: Releases, champion: Release, candidate: Candidate, request: PromotionRequest, config: PromoteConfig
) -> str:
    """Return the URI of a candidate that is champion already; record its index if it is another one and passes the check."""
    if champion.tags.get("index_digest") == candidate.index.digest:
        events.say(f"{champion.uri} is champion already, with this index: nothing was changed")
        return champion.uri
    trial = _check_index(candidate, config)
    if not trial.passed(config.min_recall):
        raise Declined(
            f"refused: the new index failed its recall check: {trial.reason()}; make it again with python -m zsbir.index"
        )
    if request.dry_run:
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


def _changed_fields(run: Artifact) -> dict[str, Any]:
    """Return the fields in which a run's configuration differs from its recipe."""
    config = run.manifest.config
    base = (recipe(config["recipe"]) if config.get("recipe") in RECIPES else TrainConfig()).model_dump(mode="json")
    return {name: value for name, value in config.items() if name != "recipe" and base.get(name) != value}


def rollback(model: str, reason: str, settings: Settings) -> str:
    """Give the alias champion back to the version that had it before, and return its URI. Raises RunError if there is none."""
    from zsbir.edge.releases import Releases

    releases = Releases(settings.root, settings.experiment, model)
    champion = releases.champion()
    if champion is None:
        raise RunError(f"{model} has no champion to roll back: see python -m zsbir.promote list")
    with releases.changing(champion):
        target = releases.roll_back(champion, reason)
    events.say(f"{target.uri} is champion again, in place of {champion.uri}; its index is {target.tags.get('index', 'not known')}")
    return target.uri


def listing(model: str, settings: Settings) -> list[dict[str, str]]:
    """Return a row for every version of a registered model, or of all models of this project, the oldest first."""
    from zsbir.edge.registered_models import names
    from zsbir.edge.releases import Releases

    models = [model] if model else names(settings.root)
    found = [release for name in models for release in Releases(settings.root, settings.experiment, name).all()]
    return [row(release.uri, release.aliases, release.tags) for release in found]


def _parse_promote(argv: Sequence[str]) -> tuple[Command, argparse.Namespace, dict[str, Any]]:
    parser = cli.Parser("zsbir.promote", __doc__ or "")
    parser.add_argument(
        "report",
        nargs="+",
        help="URI of the model's Report, as zsbir.evaluate prints it; then of Reports of the same training with other seeds",
    )
    parser.add_argument("--index", default="", metavar="URI", help="Index artifact of the same run, as zsbir.index prints it")
    parser.add_argument(
        "--champion-report",
        action="append",
        default=[],
        metavar="URI",
        help="Report of the champion, and again for each of its other seeds; default: those it was promoted by",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would happen and change nothing")
    parser.add_argument("--force", action="store_true", help="promote even if the comparison says no; needs --reason")
    parser.add_argument("--reason", default=None, metavar="TEXT", help="why the promotion is forced; recorded with the version")
    parser.add_config_file()
    parser.add_fields(PromoteConfig, title="checks")
    parser.add_fields(Settings, title="where models are registered")
    return _do_promote, *parser.values(argv)


def _do_promote(parsed: argparse.Namespace, values: dict[str, Any]) -> str:
    config, settings = cli.split_fields(values, PromoteConfig, Settings)
    if parsed.reason is not None and not parsed.force:
        raise InputError("--reason says why a promotion is forced: give it with --force, or leave it out")
    reason = _reason(parsed.reason, "--force") if parsed.force else ""
    report, *others = parsed.report
    request = PromotionRequest(report, parsed.index, tuple(others), tuple(parsed.champion_report), reason, parsed.dry_run)
    return promote(request, PromoteConfig.of(config), Settings.of(settings))


def _parse_rollback(argv: Sequence[str]) -> tuple[Command, argparse.Namespace, dict[str, Any]]:
    parser = cli.Parser(
        "zsbir.promote rollback",
        "Give the alias champion back to the version that had it before. The rollback and its reason are recorded.",
    )
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help=f"registered model [{DEFAULT_MODEL}]")
    parser.add_argument("--reason", default=None, metavar="TEXT", help="why the champion is rolled back; recorded with the version")
    parser.add_fields(Settings, title="where models are registered", skip=frozenset({"model"}))
    return _do_rollback, *parser.values(argv)


def _do_rollback(parsed: argparse.Namespace, values: dict[str, Any]) -> str:
    return rollback(_model(parsed.model), _reason(parsed.reason, "a rollback"), Settings.of(values))


def _parse_list(argv: Sequence[str]) -> tuple[Command, argparse.Namespace, dict[str, Any]]:
    parser = cli.Parser(
        "zsbir.promote list",
        "List every version: its aliases, run, data and metric, the result of the checks, and the index that it is searched with.",
    )
    parser.add_argument("model", nargs="?", default=None, help="list this registered model alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, with whole addresses and digests")
    parser.add_fields(Settings, title="where models are registered", skip=frozenset({"model"}))
    return _do_list, *parser.values(argv)


def _do_list(parsed: argparse.Namespace, values: dict[str, Any]) -> str:
    rows = listing("" if parsed.model is None else _model(parsed.model), Settings.of(values))
    if not rows:
        events.say(f"no version of {parsed.model or 'any model'} is registered")
    if parsed.json or not rows:
        return "\n".join(json.dumps(row) for row in rows)
    short = [shown(each) for each in rows]
    return table(list(short[0]), [list(each.values()) for each in short])


Command = Callable[[argparse.Namespace, dict[str, Any]], str]
OTHERS = {"rollback": _parse_rollback, "list": _parse_list}


def perform(command: Command, parsed: argparse.Namespace, values: dict[str, Any]) -> str:
    """Carry out a parsed command line."""
    return command(parsed, values)


def _model(name: str) -> str:
    if not is_model_name(name):
        raise InputError(
            f"{name[:80]!r} cannot be the name of a registered model: it has small letters, digits, '.', '_' and '-', at most 63;"
            " see python -m zsbir.promote list"
        )
    return name


def _reason(text: str | None, what: str) -> str:
    """Return the reason as one line of printable characters. Raises InputError if it is missing or too long."""
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in text or "").split())
    if not plain:
        raise InputError(f'{what} needs --reason "...", which is recorded for those who look at the champion later')
    if len(plain) > LONGEST_REASON:
        raise InputError(f"--reason has {len(plain)} characters, at most {LONGEST_REASON} are kept")
    return plain


def _parse(argv: Sequence[str]) -> str:
    read = OTHERS.get(argv[0]) if argv else None
    return perform(*(read(argv[1:]) if read else _parse_promote(argv)))


if __name__ == "__main__":
    cli.main(_parse)
