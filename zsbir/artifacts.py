"""Look after the artifacts of a storage root: list and show them, verify and copy them, remove what nothing needs.

    python -m zsbir.artifacts list --kind run
    python -m zsbir.artifacts show artifacts/indexes/toy/0123456789abcdef
    python -m zsbir.artifacts show s3://bucket/zsbir/datasets/toy/0123456789abcdef --files 'shards/*'
    python -m zsbir.artifacts verify --all
    python -m zsbir.artifacts copy artifacts/indexes/toy/0123456789abcdef s3://bucket/zsbir
    python -m zsbir.artifacts gc --unnamed report,index,run,checkpoint --older-than 48

Addresses are paths or s3://bucket/prefix; roots come from --root, else ZSBIR_ROOT, else `artifacts`. Each command has its own
--help. Results go to standard output, as a table or (--json) one JSON object a line; messages go to standard error.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from pydantic import Field

from zsbir.base import cli, events
from zsbir.base.artifact import Artifact, check_address
from zsbir.base.config import Config, unknown_name
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import default_root, is_remote
from zsbir.base.text import clean
from zsbir.data.class_table import class_table, classes_of
from zsbir.storage_admin.checking import verifiable_uris, verify
from zsbir.storage_admin.copying import copy
from zsbir.storage_admin.format import (
    artifact_json,
    format_artifact,
    format_inventory,
    format_lineage,
    format_verdicts,
    format_waste,
    inventory_rows,
    weight_facts,
)
from zsbir.storage_admin.housekeeping import (
    RootState,
    Waste,
    debris,
    remove_debris,
    remove_unneeded,
    unended_uploads,
    unneeded,
)
from zsbir.storage_admin.lineage import is_weight_file, lineage
from zsbir.storage_admin.reachability import Criteria, path_below
from zsbir.storage_admin.roots import KINDS, Survey, survey
from zsbir.storage_admin.tables import bytes_text, count_text

NOT_REGISTERED_KINDS = frozenset({"sweep", "export"})
"""Kinds that registered models neither name nor are made from."""


class Settings(Config):
    """The storage root to look at."""

    root: str = Field(default_factory=default_root, description="storage root, also ZSBIR_ROOT")


class Unsound(Exception):  # noqa: N818 - the command did what it was asked to
    """An artifact is damaged: the text is the command's result, and its exit code 1."""


Command = Callable[[argparse.Namespace], str]


def list_artifacts(asked: argparse.Namespace) -> str:
    """Return a table of what lies in a root, the newest last; without the checkpoints of runs unless asked for."""
    _check_kinds([asked.kind] if asked.kind else [])
    found = survey(asked.root)
    for unit in found.problems():
        events.warn(f"damaged: {unit.uri}: {unit.problem}")
    for unit in found.units.values():
        if unit.is_unfinished and (checkpoints := [part for part in found.nested(unit.path) if part.artifact]):
            events.say(f"not finished: {unit.uri}, with {count_text(len(checkpoints), 'checkpoint')}")
    hidden = {"checkpoint", "weights"} - ({"checkpoint"} if asked.checkpoints else set())
    rows = [row for row in inventory_rows(found) if row["kind"] == asked.kind or not (asked.kind or row["kind"] in hidden)]
    if not rows:
        events.say(f"nothing{f' of kind {asked.kind}' if asked.kind else ''} in {found.root}")
    return _lines(rows) if asked.json else format_inventory(rows)


def show(asked: argparse.Namespace) -> str:
    """Return what an artifact is and what it was made from; or the addresses of its files."""
    if is_weight_file(asked.uri):
        return _show_weights(asked)
    from zsbir.edge.model_address import artifact_address

    artifact = Artifact(artifact_address(asked.uri, "run", asked.root))
    if asked.files is not None:
        names = fnmatch.filter(artifact.manifest.files, asked.files or "*")
        if not names:
            raise InputError(f"{artifact.uri} has no file {asked.files!r}; it has {', '.join(sorted(artifact.manifest.files))}")
        return "\n".join(artifact.address(name) for name in names)
    origin = lineage(artifact)
    if asked.json:
        return json.dumps(artifact_json(artifact, origin))
    return "\n\n".join(part for part in (format_artifact(artifact), _contents(artifact), format_lineage(origin)) if part)


def _contents(artifact: Artifact) -> str:
    """Return the classes of a data set or the metrics of a report, as the command that made it printed them; "" for others.

    What cannot be read is said in place of it: the rest of an artifact can be shown all the same.
    """
    try:
        if artifact.manifest.kind == "dataset":
            return class_table(classes_of(artifact))
        if artifact.manifest.kind == "report":
            from zsbir.evaluation.report_table import table  # numpy takes long to load

            return table(artifact)
    except (InputError, OSError) as error:
        return clean(f"not shown: {error}")
    return ""


def _show_weights(asked: argparse.Namespace) -> str:
    """Return the facts of a weight file: a single file without a manifest, whose inputs are not known."""
    facts = weight_facts(asked.uri)
    if asked.files is not None:
        return str(facts["uri"])
    return json.dumps(facts) if asked.json else "\n".join(["weights", *(f"  {name:8}{value}" for name, value in facts.items())])


def verify_artifacts(asked: argparse.Namespace) -> str:
    """Compare every byte of artifacts, or of all in a root, with their manifests. Raises Unsound when something is wrong."""
    if bool(asked.uris) == asked.all:
        raise InputError("name artifacts, or pass --all for all of a root" + ("; not both" if asked.all else ""))
    for uri in asked.uris:
        check_address(uri, "artifact")
    verdicts = verify(verifiable_uris(survey(asked.root)) if asked.all else asked.uris)
    text = _lines([verdict.as_json() for verdict in verdicts]) if asked.json else format_verdicts(verdicts)
    if any(verdict.problems for verdict in verdicts):
        raise Unsound(text)
    return text


def copy_artifact(asked: argparse.Namespace) -> str:
    """Copy an artifact, and what it was made from, to another root. Return its address there."""
    check_address(asked.uri, "artifact")
    check_address(asked.target_root, "storage root")
    return copy(asked.uri, asked.target_root, inputs=not asked.no_inputs)


def gc(asked: argparse.Namespace) -> str:
    """Return a table of what may be removed, and why; with --delete, remove it."""
    kinds = frozenset(kind.strip() for kind in asked.unnamed.split(",") if kind.strip())
    _check_kinds(kinds)
    for uri in asked.keep:
        check_address(uri, "artifact")
    before_s = time.time() - 3600 * asked.older_than
    found = survey(asked.root)
    criteria = Criteria(kinds, before_s, _kept(found, asked.keep))
    for unit in found.problems():
        events.warn(f"damaged, and left as it is: {unit.uri}: {unit.problem}")
    wastes = debris(found, unended_uploads(found.root), before_s)
    whole = _unneeded(found, criteria, asked) if kinds else []
    if asked.delete:
        wastes = remove_debris(found.root, wastes, before_s)
        whole = remove_unneeded(found, criteria, lambda before: _current_state(asked, before)) if kinds else []
    else:
        wastes = [waste for waste in wastes if not any(f"{waste.home}/".startswith(f"{gone.path}/") for gone in whole)]
    return _report(found, wastes + whole, asked)


def _unneeded(found: Survey, criteria: Criteria, asked: argparse.Namespace) -> list[Waste]:
    """Return what nothing needs. Where that cannot be known: RunError with --delete, else a warning and nothing."""
    try:
        _check_registry_known(asked, criteria.kinds)
        decision = unneeded(RootState(found, _registered(asked)), criteria)
    except RunError as error:
        if asked.delete:
            raise RunError(f"nothing was removed: {error}") from None
        events.warn(f"--delete would refuse: {error}")
        return []
    reasons = Counter("named by others that stay" if why.startswith("named by") else why for why in decision.stays.values())
    for reason, count in reasons.most_common():
        events.say(f"stays: {count_text(count, 'artifact')} {reason}")
    return decision.goes


def _current_state(asked: argparse.Namespace, before: Survey) -> RootState:
    """Return the root and its registries as they are now."""
    return RootState(survey(asked.root, known=before), _registered(asked))


def _registered(asked: argparse.Namespace) -> frozenset[str]:
    """Return what the root's model registries name. Raises RunError when one does not answer."""
    if asked.no_registry:
        return frozenset()
    from zsbir.edge.registry import registered, registries  # MLflow takes seconds to load

    return frozenset(name for uri in registries(asked.root) for name in registered(uri))


def _check_registry_known(asked: argparse.Namespace, kinds: frozenset[str]) -> None:
    """Raise RunError when the registry of a root in object storage is not known. That of a root on disk lies in it."""
    if asked.no_registry or not is_remote(asked.root) or kinds <= NOT_REGISTERED_KINDS:
        return
    from zsbir.edge.registry import registries

    if not registries(asked.root):
        raise RunError("which runs are registered as models is not known: set MLFLOW_TRACKING_URI, or pass --no-registry")


def _kept(found: Survey, uris: Iterable[str]) -> frozenset[str]:
    paths = {uri: path_below(uri, found.root) for uri in uris}
    for uri, path in paths.items():
        if path not in found.units and path not in found.weights:
            raise InputError(f"--keep {uri}: there is no such artifact in {found.root}")
    return frozenset(paths.values())


def _report(found: Survey, wastes: list[Waste], asked: argparse.Namespace) -> str:
    events.say(_summary(wastes, deleted=asked.delete))
    rows = [waste.as_json(found.root) for waste in wastes]
    return _lines({**row, "deleted": asked.delete} for row in rows) if asked.json else format_waste(rows)


def _summary(wastes: list[Waste], *, deleted: bool) -> str:
    what = f"{count_text(sum(w.files for w in wastes), 'file')}, {bytes_text(sum(w.size for w in wastes))}"
    if not wastes:
        return "nothing to remove"
    return f"removed: {what}" if deleted else f"would go with --delete: {what}"


def _lines(values: Iterable[Any]) -> str:
    return "\n".join(json.dumps(value) for value in values)


def _check_kinds(kinds: Iterable[str]) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(unknown_name("kind", kind, KINDS))


def _list_flags(parser: cli.Parser) -> None:
    parser.add_argument("--kind", default="", help=f"only one of {', '.join(KINDS)}")
    parser.add_argument("--checkpoints", action="store_true", help="each checkpoint of each run too")
    _common_flags(parser)


def _show_flags(parser: cli.Parser) -> None:
    parser.add_argument("uri", help="an artifact; models:/NAME@champion: the run of that version")
    parser.add_argument(
        "--files", nargs="?", const="", metavar="GLOB", help="instead the address of each file, or of those that match, one a line"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object: the manifest, and the lineage as a tree")


def _verify_flags(parser: cli.Parser) -> None:
    parser.add_argument("uris", nargs="*", metavar="uri", help="artifacts or weight files")
    parser.add_argument("--all", action="store_true", help="everything in the root, checkpoints and weight files too")
    _common_flags(parser)


def _copy_flags(parser: cli.Parser) -> None:
    parser.add_argument("uri", help="an artifact or a weight file")
    parser.add_argument("target_root", help="the storage root to copy it to, a path or s3://bucket/prefix")
    parser.add_argument("--no-inputs", action="store_true", help="the artifact alone, without what it was made from")


def _gc_flags(parser: cli.Parser) -> None:
    parser.add_argument("--delete", action="store_true", help="remove it; without this flag it is only shown")
    parser.add_argument(
        "--older-than", type=_hours, default=24.0, metavar="HOURS", help="only where nothing has changed for so long [24]"
    )
    parser.add_argument(
        "--unnamed",
        default="",
        metavar="KIND,...",
        help=f"also whole artifacts of these kinds that nothing else in the root and no model registry needs: {', '.join(KINDS)}",
    )
    parser.add_argument(
        "--keep",
        nargs="+",
        action="extend",
        default=[],
        metavar="URI",
        help="artifacts that stay (an index that is served, what other roots use), with all they need",
    )
    parser.add_argument("--no-registry", action="store_true", help="there is no model registry that names runs of this root")
    _common_flags(parser)


def _common_flags(parser: cli.Parser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_fields(Settings, title="storage root")


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 <= hours < float("inf"):
        raise ValueError(text)
    return hours


COMMANDS: dict[str, tuple[Callable[[cli.Parser], None], Command, str]] = {
    "list": (_list_flags, list_artifacts, "what lies in a storage root, the newest last"),
    "show": (_show_flags, show, "what an artifact is, and what it was made from up to the images"),
    "verify": (_verify_flags, verify_artifacts, "whether artifacts are whole: every byte is read; exit code 1 when not"),
    "copy": (_copy_flags, copy_artifact, "an artifact, and all it was made from, to another root; goes on after an interruption"),
    "gc": (
        _gc_flags,
        gc,
        "remove what killed writers left, and artifacts that nothing needs; a dry run without --delete",
    ),
}


def perform(command: Command, asked: argparse.Namespace) -> str:
    """Run the command of a command line and return its result."""
    return command(asked)


def _parse(argv: Sequence[str]) -> str:
    name, rest = (argv[0], argv[1:]) if argv else ("--help", ())
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        commands = "\n".join(f"  {name:{width}}  {about}" for name, (_, _, about) in COMMANDS.items())
        raise cli.HelpAsked(f"usage: python -m zsbir.artifacts COMMAND ...\n\n{__doc__}\ncommands:\n{commands}\n")
    if name not in COMMANDS:
        raise InputError(unknown_name("command", name, COMMANDS))
    add_flags, command, about = COMMANDS[name]
    parser = cli.Parser(f"zsbir.artifacts {name}", about)
    add_flags(parser)
    parsed, values = parser.values(rest)
    parsed.root = Settings.of(values).root
    return perform(command, parsed)


def main() -> NoReturn:
    """Run the command line. A damaged artifact is a result on standard output, and exit code 1."""
    try:
        cli.main(_parse)
    except Unsound as found:
        with suppress(RunError):  # standard output is full: the exit code tells
            cli.print_result(f"{found}\n")
        sys.exit(cli.FAILED)


if __name__ == "__main__":
    main()
