"""The comparison of artifacts with their manifests: every byte of every file, read where it lies and not from a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from zsbir.base.artifact import Artifact, is_signed
from zsbir.base.errors import InputError, RunError
from zsbir.base.manifest import MANIFEST, FileEntry, parts
from zsbir.base.storage import Folder, join, open_folder, split_file
from zsbir.storage_admin.lineage import is_weight_file, weight_sha256
from zsbir.storage_admin.roots import Survey
from zsbir.storage_admin.threads import ByteProgress, in_threads

CHUNK_BYTES = 8 * 2**20
"""Bytes that are read, and requested from a store, at once."""

NOTES = (".lock", ".undelivered")
"""A run's notes to itself, which its manifest does not name."""


class Problem(NamedTuple):
    """A fault of one file."""

    file: str
    what: str


@dataclass(frozen=True)
class Verdict:
    """The result of checking one artifact or weight file. unnamed: files in its folder that its manifest does not name."""

    uri: str
    kind: str
    files: int = 0
    size: int = 0
    problems: tuple[Problem, ...] = ()
    unnamed: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return {**vars(self), "problems": [problem._asdict() for problem in self.problems], "unnamed": list(self.unnamed)}


class _File(NamedTuple):
    """A file to read: where it lies, and what its size and checksum should be."""

    owner: str
    name: str
    folder: Folder
    key: str
    entry: FileEntry


def verifiable_uris(found: Survey) -> list[str]:
    """Return the addresses of everything that can be verified in a root, artifacts with damaged manifests included."""
    units = [unit.uri for unit in found.units.values() if not unit.is_unfinished]
    return units + [join(found.root, *path.split("/")) for path in found.weights]


def verify(uris: Sequence[str]) -> list[Verdict]:
    """Read all files of artifacts and weight files, and return whether each is whole; of an index, its segments too.

    Artifacts that are removed meanwhile are left out: a training replaces its checkpoints. Raises InputError where there is none.
    """
    subjects = list(in_threads(_subject, dict.fromkeys(address for uri in uris for address in (*_parts_of(uri), uri))))
    files = [file for _, some in subjects for file in some]
    problems: dict[str, list[Problem]] = {}
    with ByteProgress("verify", sum(file.entry.size for file in files)) as progress:
        for file, what in zip(files, in_threads(lambda file: _problem_of(file, progress.advance), files), strict=True):
            if what:
                problems.setdefault(file.owner, []).append(Problem(file.name, what))
    verdicts = [replace(verdict, problems=(*verdict.problems, *problems.get(verdict.uri, ()))) for verdict, _ in subjects]
    return [verdict for verdict in verdicts if not verdict.problems or is_weight_file(verdict.uri) or is_signed(verdict.uri)]


def _parts_of(uri: str) -> Iterator[str]:
    """Yield the addresses of an artifact's parts that are there; that one is missing is a problem of the artifact."""
    with suppress(InputError):
        artifact = Artifact(uri)
        for part in parts(artifact.manifest):
            with suppress(InputError):
                yield artifact.input(part.role, artifact.manifest.kind).uri


def _missing_parts(artifact: Artifact) -> Iterator[Problem]:
    for part in parts(artifact.manifest):
        try:
            artifact.input(part.role, artifact.manifest.kind)
        except InputError as error:
            yield Problem(part.role, str(error))


def _subject(uri: str) -> tuple[Verdict, list[_File]]:
    if is_weight_file(uri):
        return _weights(uri)
    try:
        artifact = Artifact(uri)
        entries = artifact.manifest.files
        files = [_File(artifact.uri, name, artifact.folder, artifact.key(name), entry) for name, entry in entries.items()]
    except InputError as error:
        if not is_signed(uri):
            raise
        return Verdict(open_folder(uri).uri, "damaged", problems=(Problem(MANIFEST, str(error)),)), []
    size = sum(entry.size for entry in entries.values())
    unnamed, missing = tuple(unnamed_files(artifact)), tuple(_missing_parts(artifact))
    return Verdict(artifact.uri, artifact.manifest.kind, len(files), size, missing, unnamed), files


def _weights(uri: str) -> tuple[Verdict, list[_File]]:
    folder, name = split_file(uri)
    size = folder.size(name)
    if size is None:
        raise InputError(f"no weight file at {uri}")
    entry = FileEntry(size=size, sha256=weight_sha256(uri))
    uri = join(folder.uri, name)
    return Verdict(uri, "weights", 1, size), [_File(uri, name, folder, name, entry)]


def unnamed_files(artifact: Artifact) -> Iterator[str]:
    """Yield the files in an artifact's folder that its manifest does not name, without those of artifacts within it."""
    named = {artifact.key(name) for name in artifact.manifest.files} | {MANIFEST}
    try:
        keys = [entry.key for entry in artifact.folder.walk()]
    except PermissionError:
        return  # files of a folder that cannot be listed are reported one by one, as unreadable
    within = tuple(key.removesuffix(MANIFEST) for key in keys if key.endswith(f"/{MANIFEST}"))
    yield from (key for key in keys if key not in named and key not in NOTES and not (within and key.startswith(within)))


def _problem_of(file: _File, advance: Callable[[int], None]) -> str:
    """Return what is wrong with a file; "" when nothing is."""
    try:
        if file.folder.leads_out(file.key):
            return "leads out of its folder"
        size, sha256 = read_through(file.folder, file.key, advance, file.entry.size)
        if size > file.entry.size:
            size = file.folder.size(file.key) or size
    except FileNotFoundError:
        return "missing"
    except (InputError, RunError, OSError) as error:
        return f"cannot be read: {error}"
    if size != file.entry.size:
        return f"{size} bytes instead of {file.entry.size}"
    return "" if sha256 == file.entry.sha256 else "changed: as many bytes, but others"


def read_through(folder: Folder, key: str, advance: Callable[[int], None], expected: int) -> tuple[int, str]:
    """Return size and sha256 of a file, read piece by piece, to its end or past `expected` bytes. Raises FileNotFoundError."""
    sha256, size = hashlib.sha256(), 0
    while True:
        chunk = folder.read_range(key, size, CHUNK_BYTES)
        sha256.update(chunk)
        size += len(chunk)
        advance(len(chunk))
        if len(chunk) < CHUNK_BYTES or size > expected:
            return size, sha256.hexdigest()
