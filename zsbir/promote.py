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
recorded, and the exit code is 1. Photos that the champion shows and --index lacks, such as a team's folders, are embedded with the
new model before it is champion, so that they stay searched; --gallery index searches those of --index alone. Reports of the same
training with other seeds make the interval narrower, and show how far seeds spread. Prints models:/NAME/VERSION, an address that
search, index, evaluate and export take, too. See docs/promotion.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

from zsbir.base import cli, events
from zsbir.base.errors import InputError, RunError
from zsbir.promotion.address import DEFAULT_MODEL, is_model_name
from zsbir.promotion.listing import row, shown
from zsbir.promotion_run.config import PromoteConfig, PromotionRequest, Settings
from zsbir.storage_admin.tables import table

__all__ = ["PromoteConfig", "PromotionRequest", "Settings", "listing", "promote", "rollback"]

LONGEST_REASON = 500
"""Characters of a reason that are recorded."""


def promote(request: PromotionRequest, config: PromoteConfig, settings: Settings) -> str:
    """Return the URI of the version that is champion now; for a dry run, what would happen.

    Raises RunError with the numbers for a refusal, InputError where report, index and the champion's report do not belong together.
    """
    from zsbir.promotion_run import promoting  # it loads all that compares models

    return promoting.promote(request, config, settings)


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


_NOT_MOVED = frozenset({"model", "num_workers", "gpus_per_worker"})
"""Fields that other commands than a promotion do not have."""


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
    parser.add_argument(
        "--places",
        action="append",
        default=[],
        metavar="URI",
        help="folder or s3:// prefix in which galleries have to lie, may be repeated; default: they may lie anywhere",
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
    request = PromotionRequest(
        report, parsed.index, tuple(others), tuple(parsed.champion_report), reason, parsed.dry_run, tuple(parsed.places)
    )
    return promote(request, PromoteConfig.of(config), Settings.of(settings))


def _parse_rollback(argv: Sequence[str]) -> tuple[Command, argparse.Namespace, dict[str, Any]]:
    parser = cli.Parser(
        "zsbir.promote rollback",
        "Give the alias champion back to the version that had it before. The rollback and its reason are recorded.",
    )
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help=f"registered model [{DEFAULT_MODEL}]")
    parser.add_argument("--reason", default=None, metavar="TEXT", help="why the champion is rolled back; recorded with the version")
    parser.add_fields(Settings, title="where models are registered", skip=_NOT_MOVED)
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
    parser.add_fields(Settings, title="where models are registered", skip=_NOT_MOVED)
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
