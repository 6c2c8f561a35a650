"""A Report and an Index in, a new champion out, if its model is better than the present one.

    python -m zsbir.promote artifacts/reports/0123456789abcdef --index artifacts/indexes/toy/0123456789abcdef
    python -m zsbir.promote rollback zsbir-resnet18-128 --reason "misses bicycles"
    python -m zsbir.promote list

The model behind the report becomes a version of the registered model zsbir-<backbone>-<dim> in MLflow. It gets the alias champion
when the lower bound of a paired bootstrap over queries says that it beats the champion's report of the same protocol and data (the
first champion: its own frozen backbone), and photos and sketches put to its index are found as they should be. Otherwise it gets
the alias challenger, its numbers are recorded, and the exit code is 1. Prints models:/NAME/VERSION. See docs/promotion.md.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow.parquet as pq
from pydantic import Field

from zsbir.base import cli, events
from zsbir.base.artifact import Artifact, exists
from zsbir.base.config import Config
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import below_root
from zsbir.base.storage import default_root, join
from zsbir.model.encoder import saved_facts
from zsbir.promotion.card import Subject, card, card_text
from zsbir.promotion.gate import Comparison, GateConfig, compare, label_of, protocol_of
from zsbir.promotion.index_check import Verdict, try_index
from zsbir.recipes import RECIPES, recipe
from zsbir.storage_admin.tables import table
from zsbir.training.config import TrainConfig
from zsbir.training.context import default_device
from zsbir.training.precision import autocast

if TYPE_CHECKING:
    from zsbir.edge.releases import Release, Releases

LONGEST_REASON = 500
_MODEL = re.compile(r"zsbir-[a-z0-9]+-[0-9]+")


class PromoteConfig(GateConfig):
    """What decides."""

    min_recall: float = Field(0.99, ge=0, le=1, description="least recall@10 of sketches in the index against a slow exact ranking")


class Settings(Config):
    """Where it looks."""

    root: str = Field(default_factory=default_root, description="storage root, also ZSBIR_ROOT")
    experiment: str = Field("zsbir", description="MLflow experiment of the runs")


@dataclass(frozen=True)
class Wish:
    """What the user asks for. force_reason: why it shall be champion whatever the comparison says; "": it shall not."""

    report: str
    index: str
    champion_report: str = ""
    force_reason: str = ""
    dry_run: bool = False


@dataclass(frozen=True)
class Candidate:
    """The model that would be champion: what measured it, what it is, what searches by it."""

    report: Artifact
    run: Artifact
    index: Artifact
    encoder: dict[str, Any]

    @property
    def model(self) -> str:
        """The registered model it is a version of."""
        return f"zsbir-{self.encoder['backbone']}-{self.encoder['embedding_dim']}"


@dataclass(frozen=True)
class Decision:
    """What came out, and why. comparison: None where the two could not be compared, and it was forced."""

    outcome: Literal["passed", "refused", "forced"]
    why: str
    comparison: Comparison | None
    trial: Verdict
    force_reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        comparison = self.comparison.as_json() if self.comparison else None
        return {**vars(self), "comparison": comparison, "trial": self.trial.as_json()}


def promote(wish: Wish, config: PromoteConfig, settings: Settings) -> str:
    """The URI of the version that is champion now; for a dry run what would happen. RunError, with numbers, for a refusal.

    Raises InputError where report, index and the champion's report do not belong together.
    """
    candidate = _open(wish)
    from zsbir.edge.releases import Releases, is_of  # MLflow takes seconds to load

    releases = Releases(settings.root, settings.experiment, candidate.model)
    champion = releases.champion()
    if champion and is_of(champion, candidate.run):
        return _again(releases, champion, candidate, wish, config)
    comparison, why = _comparison(candidate, champion, wish, config, settings)
    decision = _decide(comparison, why, _try(candidate, config), wish, config)
    if wish.dry_run:
        return _would(candidate, champion, decision)
    with releases.changing(champion):
        return _settle(releases, champion, candidate, decision)


def _open(wish: Wish) -> Candidate:
    if not wish.index:
        raise InputError("no index: pass --index URI, as python -m zsbir.index prints it for the report's run")
    report, index = Artifact(wish.report, "report"), Artifact(wish.index, "index")
    protocol_of(report)
    run = report.input("run", "run")
    return Candidate(report, run, index, saved_facts(run.verified("encoder.safetensors")))


def _try(candidate: Candidate, config: PromoteConfig) -> Verdict:
    """The recall check of its index."""
    return try_index(
        candidate.index,
        candidate.run,
        protocol_of(candidate.report),
        seed=config.seed,
        device=default_device(),
        arithmetic=autocast,
    )


def _comparison(
    candidate: Candidate, champion: Release | None, wish: Wish, config: PromoteConfig, settings: Settings
) -> tuple[Comparison | None, str]:
    """How it compares, in numbers and in words. Where it cannot be: InputError, or None and the reason when it is forced."""
    name = f"the champion (version {champion.version})" if champion else "its own frozen backbone"
    try:
        other = _champion_report(champion, wish, settings) if champion else None
        comparison = compare(candidate.report, other, config, opponent=name)
    except InputError as error:
        if not wish.force_reason or not champion:
            raise
        return None, f"not compared with {name}: {error}"
    return comparison, comparison.reason()


def _champion_report(champion: Release, wish: Wish, settings: Settings) -> Artifact:
    """The Report by which the champion was promoted, or the one that the user names. InputError where it is of another run."""
    tagged = champion.tags.get("report", "")
    places = [wish.champion_report] if wish.champion_report else [join(settings.root, *below_root(tagged).split("/")), tagged]
    found = next((place for place in places if place and exists(place)), "")
    if not found:
        raise InputError(
            f"the report of {champion.uri} is not at {wish.champion_report or tagged or 'any known place'}: make one with"
            f" python -m zsbir.evaluate {champion.tags.get('run_uri', 'RUN')}, and pass what it prints as --champion-report"
        )
    report = Artifact(found, "report")
    digest = champion.tags.get("run_digest", "")
    if digest and report.manifest.inputs["run"]["digest"] != digest:
        raise InputError(f"{report.uri} is a report of {report.manifest.inputs['run']['uri']}, not of the champion {champion.uri}")
    return report


def _decide(comparison: Comparison | None, why: str, trial: Verdict, wish: Wish, config: PromoteConfig) -> Decision:
    """A forced promotion goes past the comparison alone: what searches wrongly helps nobody, and an index is soon made."""
    if not trial.passed(config.min_recall):
        why = f"the index failed its recall check: {trial.reason()}; at least {config.min_recall:g} is asked for. {why}"
        return Decision("refused", why, comparison, trial)
    if comparison and comparison.passed:
        return Decision("passed", why, comparison, trial)
    if wish.force_reason:
        return Decision("forced", why, comparison, trial, wish.force_reason)
    return Decision("refused", why, comparison, trial)


def _would(candidate: Candidate, champion: Release | None, decision: Decision) -> str:
    """A dry run's result. RunError where it would be refused."""
    _tell(decision)
    if decision.outcome == "refused":
        raise RunError(f"would be refused: {decision.why}")
    place = f"in place of {champion.uri}" if champion else "as its first champion"
    return f"would be promoted ({decision.outcome}): {candidate.run.uri} to {candidate.model}, {place}"


def _settle(releases: Releases, champion: Release | None, candidate: Candidate, decision: Decision) -> str:
    """Register, record, and give the alias that the decision earns."""
    from zsbir.edge.releases import stamp

    release = releases.registered(candidate.run, _example(candidate.index))
    subject = Subject(candidate.model, candidate.report, candidate.run, candidate.encoder, _changed(candidate.run))
    facts = {"version": release.uri, "champion": champion.uri if champion else "", **_evidence(candidate), **decision.as_json()}
    files = {"README.md": card(subject), f"gate-{stamp()}.json": json.dumps(facts, indent=1)}
    releases.record(release, _tags(candidate, decision), files=files, description=card_text(subject))
    _tell(decision)
    if decision.outcome == "refused":
        releases.challenge(release)
        raise RunError(f"refused: {decision.why}. {release.uri} is recorded as challenger; {_way_out(decision)}")
    releases.crown(release, champion)
    events.say(f"{release.uri} is champion now" + (f", in place of {champion.uri}" if champion else ""))
    return release.uri


def _tell(decision: Decision) -> None:
    """The numbers, as the story; a refusal tells its own in the error line."""
    events.say(decision.trial.reason())
    if decision.outcome != "refused":
        events.say(decision.why)
    if decision.outcome == "forced":
        events.say(f"forced: {decision.force_reason}")


def _way_out(decision: Decision) -> str:
    if decision.comparison and decision.comparison.passed:
        return "make its index again with python -m zsbir.index"
    return 'to promote it all the same, add --force --reason "..."'


def _evidence(candidate: Candidate) -> dict[str, str]:
    """What a version is promoted, or refused, by."""
    return {
        "run_uri": candidate.run.uri,
        "report": candidate.report.uri,
        "report_digest": candidate.report.digest,
        "dataset_digest": candidate.report.manifest.inputs["dataset"]["digest"],
        "protocol": label_of(candidate.report),
        "index": candidate.index.uri,
        "index_digest": candidate.index.digest,
    }


def _tags(candidate: Candidate, decision: Decision) -> dict[str, str]:
    from zsbir.edge.releases import now_utc, user

    return {
        **_evidence(candidate),
        "gate": decision.outcome,
        "gate_numbers": json.dumps(decision.comparison.as_json() if decision.comparison else {}),
        "gate_reason": decision.why,
        "recall": json.dumps(decision.trial.as_json()),
        "force_reason": decision.force_reason,
        "decided_utc": now_utc(),
        "decided_by": user(),
    }


def _again(releases: Releases, champion: Release, candidate: Candidate, wish: Wish, config: PromoteConfig) -> str:
    """The champion itself: nothing changes, but the index, where another one is given and passes."""
    if champion.tags.get("index_digest") == candidate.index.digest:
        events.say(f"{champion.uri} is champion already, with this index: nothing was changed")
        return champion.uri
    trial = _try(candidate, config)
    if not trial.passed(config.min_recall):
        raise RunError(
            f"refused: the new index failed its recall check: {trial.reason()}; make it again with python -m zsbir.index"
        )
    if wish.dry_run:
        return f"would be given a new index: {champion.uri}, {candidate.index.uri} ({trial.reason()})"
    names = ("index", "index_digest")
    tags = {name: value for name, value in _evidence(candidate).items() if name in names} | {"recall": json.dumps(trial.as_json())}
    with releases.changing(champion):
        releases.record(champion, tags, files={})
    events.say(f"{champion.uri} is champion already; its index is {candidate.index.uri} now ({trial.reason()})")
    return champion.uri


def _example(index: Artifact) -> bytes:
    """An encoded picture of the gallery."""
    rows = pq.ParquetFile(index.verified("items.parquet")).iter_batches(batch_size=1, columns=["thumbnail"])
    data: bytes = next(rows)["thumbnail"][0].as_py()
    return data


def _changed(run: Artifact) -> dict[str, Any]:
    """The fields of a training in which it differs from its recipe."""
    config = run.manifest.config
    base = (recipe(config["recipe"]) if config.get("recipe") in RECIPES else TrainConfig()).model_dump(mode="json")
    return {name: value for name, value in config.items() if name != "recipe" and base.get(name) != value}


def rollback(model: str, reason: str, settings: Settings) -> str:
    """Give the alias champion back to the version that had it before; its URI. RunError where there is none."""
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
    """Every version of a registered model, or of all of this project, the oldest first."""
    from zsbir.edge.releases import Releases, models

    names = [model] if model else models(settings.root)
    found = [release for name in names for release in Releases(settings.root, settings.experiment, name).all()]
    return [_row(release) for release in found]


def _row(release: Release) -> dict[str, str]:
    numbers = json.loads(release.tags.get("gate_numbers") or "{}")
    gain = f"{numbers['difference']:+.4f} ({numbers['low']:+.4f} to {numbers['high']:+.4f})" if numbers else "-"
    score = f"{numbers['metric']} {numbers['challenger_mean']:.4f}" if numbers else "-"
    tags = release.tags
    return {
        "version": release.uri,
        "aliases": ",".join(release.aliases) or "-",
        "run": tags.get("run", "-"),
        "metric": score,
        "gain": gain,
        "gate": tags.get("gate", "-") + (", rolled back" if "rolled_back_utc" in tags else ""),
        "decided (UTC)": tags.get("decided_utc", "-").removesuffix("+00:00").replace("T", " "),
    }


def _promote_words(argv: Sequence[str]) -> tuple[Command, argparse.Namespace, dict[str, Any]]:
    parser = cli.Parser("zsbir.promote", __doc__ or "")
    parser.add_argument("report", help="URI of a Report artifact, as zsbir.evaluate prints it")
    parser.add_argument("--index", default="", metavar="URI", help="Index artifact of the same run, as zsbir.index prints it")
    parser.add_argument("--champion-report", default="", metavar="URI", help="the champion's Report, where not the one it came by")
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, and change nothing")
    parser.add_argument("--force", action="store_true", help="promote whatever the comparison says; needs --reason")
    parser.add_argument("--reason", default=None, metavar="TEXT", help="why it is forced; recorded")
    parser.add_config_file()
    parser.add_fields(PromoteConfig, title="gate")
    parser.add_fields(Settings, title="where it looks")
    return _do_promote, *parser.values(argv)


def _do_promote(asked: argparse.Namespace, values: dict[str, Any]) -> str:
    config, settings = cli.split_fields(values, PromoteConfig, Settings)
    if asked.reason is not None and not asked.force:
        raise InputError("--reason says why a promotion is forced: give it with --force, or leave it out")
    reason = _reason(asked.reason, "--force") if asked.force else ""
    wish = Wish(asked.report, asked.index, asked.champion_report, reason, asked.dry_run)
    return promote(wish, PromoteConfig.of(config), Settings.of(settings))


def _rollback_words(argv: Sequence[str]) -> tuple[Command, argparse.Namespace, dict[str, Any]]:
    parser = cli.Parser("zsbir.promote rollback", "The alias champion goes back to the version that had it before; recorded.")
    parser.add_argument("model", help="a registered model, zsbir-<backbone>-<dim>")
    parser.add_argument("--reason", default=None, metavar="TEXT", help="why; recorded")
    parser.add_fields(Settings, title="where it looks")
    return _do_rollback, *parser.values(argv)


def _do_rollback(asked: argparse.Namespace, values: dict[str, Any]) -> str:
    return rollback(_model(asked.model), _reason(asked.reason, "a rollback"), Settings.of(values))


def _list_words(argv: Sequence[str]) -> tuple[Command, argparse.Namespace, dict[str, Any]]:
    parser = cli.Parser("zsbir.promote list", "Every version with its aliases, its run, its numbers, and what the gate said.")
    parser.add_argument("model", nargs="?", default="", help="only this registered model")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_fields(Settings, title="where it looks")
    return _do_list, *parser.values(argv)


def _do_list(asked: argparse.Namespace, values: dict[str, Any]) -> str:
    rows = listing(_model(asked.model) if asked.model else "", Settings.of(values))
    if not rows:
        events.say(f"no version of {asked.model or 'any model'} is registered")
    if asked.json or not rows:
        return "\n".join(json.dumps(row) for row in rows)
    return table(list(rows[0]), [list(row.values()) for row in rows])


Command = Callable[[argparse.Namespace, dict[str, Any]], str]
OTHERS = {"rollback": _rollback_words, "list": _list_words}


def perform(command: Command, asked: argparse.Namespace, values: dict[str, Any]) -> str:
    """Do what a command line asks for."""
    return command(asked, values)


def _model(name: str) -> str:
    if not _MODEL.fullmatch(name):
        raise InputError(f"{name[:80]!r} is no registered model of this project: they are called zsbir-<backbone>-<dim>")
    return name


def _reason(text: str | None, what: str) -> str:
    """In one line, without what a terminal would take for a command."""
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in text or "").split())
    if not plain:
        raise InputError(f'{what} needs --reason "...": who looks at the champion later will want to know')
    if len(plain) > LONGEST_REASON:
        raise InputError(f"--reason has {len(plain)} characters, at most {LONGEST_REASON} are kept")
    return plain


def _parse(argv: Sequence[str]) -> str:
    read = OTHERS.get(argv[0]) if argv else None
    return perform(*(read(argv[1:]) if read else _promote_words(argv)))


if __name__ == "__main__":
    cli.main(_parse)
