"""The addresses in a job's configuration, and behind the artifacts that it names: each must be one that jobs may read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.jobs.runs.checks import NAMED_WEIGHTS
from services.jobs.runs.fields import fields_of_losses
from services.jobs.runs.steps import COMMAND
from tuning.space import SPACES
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.artifact import Artifact, exists
from zsbir.base.artifact import Kind as Made
from zsbir.base.config import Address
from zsbir.base.errors import InputError
from zsbir.base.layout import below_root, root_of
from zsbir.base.manifest import parts
from zsbir.base.storage import join, split_file
from zsbir.promotion.address import is_model_address, parse_address

ADDRESSES: Mapping[str, Mapping[str, Made | None]] = {
    "ingest": {"path": None},
    "teacher": {"dataset": "dataset", "weights": None},
    "train": {"dataset": "dataset", "knowledge": "knowledge", "weights": None},
    "evaluate": {"run": "run", "dataset": "dataset", "unseen_to": "run"},
    "sweep": {"dataset": "dataset", "knowledge": "knowledge", "weights": None},
    "index": {"run": "run", "gallery": None, "metadata": None},
    "promote": {"report": "report", "index": "index", "other_reports": "report", "champion_reports": "report"},
    "export": {"run": "run"},
    COMMAND: {"cwd": None},
}
"""Fields that are addresses, or lists of them, with the kind of artifact at each; None: a file, or a folder of images.

A run or an index may be given as a registered model, too: see services.jobs.runs.model_inputs.
"""

NAMES_OR_FILES = ("unseen_classes", "seen_classes", "dev_classes", "space")
"""Fields that are names, or files that hold names; a file must lie in the allowed paths."""

FILE_SUFFIXES = (".json", ".txt", ".yaml", ".yml")
"""How names end that the commands take for files in the folder where they run."""

READ_THROUGH: Mapping[str, tuple[str, ...]] = {
    "run": ("dataset", "weights"),
    "knowledge": ("weights",),
    "report": ("run", "dataset"),
    "index": ("run",),
}
"""The inputs that commands open of an artifact that they are given, besides its parts: a manifest may name any address for them."""


def with_checked_paths(kind: str, config: Mapping[str, Any], allowed: AllowedPaths, *, opens: bool = True) -> dict[str, Any]:
    """Return the values with absolute addresses, after checking that each is allowed.

    opens: check also that it has the right kind of artifact.
    """
    values = dict(config)
    of_losses = fields_of_losses(kind, config).items()
    named_by_losses = {name: None for name, field in of_losses if any(isinstance(mark, Address) for mark in field.metadata)}
    for name, what in {**ADDRESSES.get(kind, {}), **named_by_losses}.items():
        if not values.get(name) or (name == "weights" and values[name] in NAMED_WEIGHTS):
            continue
        where, given = f"{kind}: field {name!r}", values[name]
        found = [_checked_address(where, uri, what, allowed, opens) for uri in ([given] if isinstance(given, str) else given)]
        values[name] = found[0] if isinstance(given, str) else found
    for name in NAMES_OR_FILES:
        given = values.get(name) or ()
        checked = [
            _checked_name(f"{kind}: field {name!r}", name, value, allowed)
            for value in ([given] if isinstance(given, str) else given)
        ]
        if checked:
            values[name] = checked[0] if isinstance(given, str) else checked
    return values


def _checked_address(where: str, uri: str, what: Made | None, allowed: AllowedPaths, opens: bool) -> str:
    """Return an address in full, after checking that it is allowed and, if it is opened, has the right kind of artifact."""
    if what in ("run", "index") and is_model_address(uri):
        parse_address(uri)  # services.jobs.runs.model_inputs checks what it stands for
        return uri
    address = allowed.check(where, uri)
    if what and opens:
        check_inputs(where, _opened(where, address, what), allowed)
    return address


def _opened(where: str, uri: str, what: Made) -> Artifact:
    """Open an artifact. InputError that begins with the field where there is none of that kind."""
    try:
        return Artifact(uri, what)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _checked_name(where: str, field: str, value: str, allowed: AllowedPaths) -> str:
    """Return a name as it is, and the address of a file after checking that it may be read."""
    is_file = any(mark in value for mark in "/\\~") or value.startswith(".") or value.lower().endswith(FILE_SUFFIXES)
    is_file = is_file or (field == "space" and value not in SPACES)
    if not is_file:
        return value
    address = allowed.check(where, value)
    if "," in address:
        raise InputError(f"{where}: {address!r} has a comma, by which the parts of a list are told apart; move the file")
    return address


def check_inputs(where: str, artifact: Artifact, allowed: AllowedPaths) -> None:
    """Check the inputs of an artifact that the commands will open with it. InputError where one lies elsewhere.

    Like the commands, look in the artifact's own root first, where a copy of it has its inputs.
    """
    manifest = artifact.manifest
    opened = [manifest.reference(role) for role in READ_THROUGH.get(manifest.kind, ())]
    for reference in (*filter(None, opened), *parts(manifest)):
        role, uri = reference.role, reference.uri
        copied = join(root_of(artifact.uri), below_root(uri))
        if not _is_there(copied, role):
            allowed.check(f"{where}: the {role} that its manifest names", uri)
            continue
        allowed.check(f"{where}: the {role} that its manifest names", copied)
        if copied != uri and role != "weights" and Artifact(copied).digest != reference.digest:
            allowed.check(f"{where}: the {role} that its manifest names", uri)


def _is_there(uri: str, role: str) -> bool:
    if role != "weights":
        return exists(uri)
    folder, name = split_file(uri)
    return folder.size(name) is not None
