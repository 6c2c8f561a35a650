"""Manifests: what an artifact is, what it was made from, and the checksum of each of its files.

A manifest may come from a stranger. `read_manifest` is the one place where it is checked, before anything is done with it: its size
and depth, and whatever becomes a part of a path, an address or the name of a file. Writers are held to the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

import zsbir
from zsbir.base import limits
from zsbir.base.config import Config
from zsbir.base.errors import InputError
from zsbir.base.folder import Folder, checked_key
from zsbir.base.strict_json import parse_json
from zsbir.base.text import clean

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

Kind = Literal["dataset", "knowledge", "run", "checkpoint", "report", "index", "weights", "sweep", "export"]

_LONGEST_PART_BYTES = 255
_NAMED, _VERSION = 5, 50
"""Unknown keys that an error names, and characters of a version."""

_COUNT = 2**63


def checked_file_name(name: str) -> str:
    """Return the name of a file of an artifact, relative to its folder ("shards/part-00000.parquet").

    Raises InputError where it would lead out of the folder, be another name of the same file, hide among bookkeeping (names that
    begin with a dot) or stand for a manifest, and where it is too long or holds characters that are not visible.
    """
    checked_key(name)
    parts = name.split("/")
    if any(part.startswith(".") or part.casefold() == MANIFEST for part in parts) or clean(name) != name:
        raise InputError(f"{name!r} is not the name of a file in an artifact")
    if len(name.encode()) > limits.FILE_NAME_BYTES or any(len(part.encode()) > _LONGEST_PART_BYTES for part in parts):
        raise InputError(f"{name[:50]!r}... is too long for the name of a file: {len(name)} characters")
    return name


def _file_name(name: str) -> str:
    try:
        return checked_file_name(name)
    except InputError as error:
        raise ValueError(error) from None


def _one_part(name: str) -> str:
    """Return a name that becomes a part of the addresses of other artifacts."""
    if name in {".", ".."} or "/" in name or "\\" in name or clean(name) != name:
        raise ValueError(f"{name!r} cannot be a part of an address")
    return name


class Section(dict[str, Any]):
    """A mapping of a manifest. Asking for what it does not hold is the artifact's fault: it raises InputError."""

    def __missing__(self, name: str) -> Any:
        raise _lacking(name)


def _lacking(name: str) -> InputError:
    return InputError(f"an artifact's manifest lacks {name!r}, which every artifact of its kind has: zsbir did not make it")


def _section(values: dict[str, Any]) -> Section:
    return Section({name: Section(value) if isinstance(value, dict) else value for name, value in values.items()})


Facts = Annotated[dict[str, Any], AfterValidator(_section)]
FileName = Annotated[str, AfterValidator(_file_name)]
Count = Annotated[int, Field(strict=True, ge=-_COUNT, lt=_COUNT)]


class FileEntry(Config):
    """Size and checksum of one file of an artifact."""

    size: int = Field(strict=True, ge=0, le=limits.FILE_BYTES)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Reference:
    """What a manifest says about one of its inputs."""

    role: str
    uri: str
    digest: str


class Manifest(Config):
    """What an artifact is, what made it, and the checksum of each of its files.

    stored_as: the keys of files that do not lie under their own names. written_by: identifies the writer.
    """

    kind: Kind
    schema_version: int = Field(SCHEMA_VERSION, strict=True, ge=1, le=SCHEMA_VERSION)
    name: Annotated[str, AfterValidator(_one_part)] = Field(max_length=200)
    digest: str = Field(pattern="^[0-9A-Za-z_-]{1,128}$")
    config: Facts = {}
    inputs: Facts = {}
    counts: Annotated[dict[str, Count], AfterValidator(_section)] = {}
    facts: Facts = {}
    files: dict[FileName, FileEntry] = Field({}, max_length=limits.FILES)
    stored_as: dict[FileName, FileName] = {}
    code: dict[str, str] = {}
    created_utc: str = Field("", max_length=100)
    written_by: str = Field("", max_length=1000)

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        """Raise ValueError unless `stored_as` gives each file that it names a key of its own."""
        strangers = self.stored_as.keys() - self.files.keys()
        if strangers:
            raise ValueError(f"stored_as names {min(strangers)!r}, which is not one of the files")
        if len({self.key(name) for name in self.files}) < len(self.files):
            raise ValueError("stored_as gives two files one key")
        return self

    @model_validator(mode="after")
    def _check_inputs(self) -> Self:
        found = references(self)
        if len(found) > limits.INPUTS:
            raise ValueError(f"it names {len(found)} inputs, more than the {limits.INPUTS} allowed")
        for reference in found:
            if len(reference.uri) > limits.URI_CHARACTERS or "\0" in reference.uri or ".." in reference.uri.split("/"):
                raise ValueError(f"the address of its input {reference.role!r} cannot be used: {reference.uri[:200]!r}")
        return self

    def key(self, name: str) -> str:
        """Return the key, below the artifact's folder, of the file of this name."""
        return self.stored_as.get(name, name)

    def reference(self, role: str) -> Reference | None:
        """Return what the artifact was made from in this role ("run", "segments.0"); None where the manifest names nothing."""
        return next((found for found in references(self) if found.role == role), None)

    def named(self, role: str) -> Reference:
        """Return what the artifact was made from in a role that all of its kind have. Raises InputError where it names nothing."""
        found = self.reference(role)
        if found is None:
            raise _lacking(role)
        return found


def is_part(role: str) -> bool:
    """Return whether an input in this role is a part of the artifact, without which it cannot be read: a segment of an index."""
    return role.partition(".")[0] == "segments"


def parts(manifest: Manifest) -> list[Reference]:
    """Return the inputs that are parts of the artifact: the segments of a grown index before its own, oldest first."""
    return [found for found in references(manifest) if is_part(found.role)]


def references(manifest: Manifest) -> list[Reference]:
    """Return the inputs that a manifest names."""
    return [found for role, value in manifest.inputs.items() for found in _references(role, value)]


def _references(role: str, value: Any) -> Iterator[Reference]:
    if isinstance(value, dict) and isinstance(value.get("uri"), str):
        yield Reference(role, value["uri"], str(value.get("digest", "")))
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _references(f"{role}.{name}", part)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _references(f"{role}.{number}", part)


def read_manifest(folder: Folder) -> Manifest:
    """Read the manifest of the artifact in a folder.

    Raises FileNotFoundError where there is none, and InputError, which names the file, for one that cannot be read or trusted.
    """
    where = f"{folder.uri}/{MANIFEST}"
    try:
        if folder.leads_out(MANIFEST):
            raise InputError(f"{where} leads out of its folder; copy the file into it")
        values = parse_json(folder.read(MANIFEST, limits.MANIFEST_BYTES))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {where}: {error}") from None
    return manifest_of(values, where)


def manifest_of(values: Any, where: str) -> Manifest:
    """Return JSON values as a manifest. Raises InputError, which begins with `where`."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: a manifest is a mapping, not {type(values).__name__}")
    version = values.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"{where.removesuffix('/' + MANIFEST)} was written by a newer {_maker(values)} (schema {version}; this is zsbir"
            f" {zsbir.__version__}, schema {SCHEMA_VERSION}); upgrade to read it"
        )
    if unknown := sorted(str(name) for name in values.keys() - Manifest.model_fields.keys())[:_NAMED]:
        raise InputError(
            f"{where}: zsbir {zsbir.__version__} does not know what {', '.join(map(repr, unknown))} means;"
            f" read it with the version that made it ({_maker(values)})"
        )
    return Manifest.of(values, where=where)


def _maker(values: dict[str, Any]) -> str:
    code = values.get("code")
    version = code.get("zsbir") if isinstance(code, dict) else None
    return f"zsbir {version[:_VERSION]}" if isinstance(version, str) else "zsbir"
