"""The survey of a storage root: every artifact, finished or not, and all files beside them, from one listing of each folder.

Nothing outside the folders that a root has (`layout.ARTIFACT_FOLDERS`) is ever read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from zsbir.base.artifact import Artifact, is_signed
from zsbir.base.errors import InputError
from zsbir.base.layout import ARTIFACT_FOLDERS, is_checkpoint
from zsbir.base.manifest import MANIFEST
from zsbir.base.storage import WORKSPACE, join, open_folder
from zsbir.storage_admin.lineage import is_weight_file
from zsbir.storage_admin.threads import in_threads

KINDS = (*(folder.kind for folder in ARTIFACT_FOLDERS.values()), "checkpoint")
"""The names of kinds on the command line, where what lies below `pretrained` is a kind of its own."""

BOOKKEEPING = {
    WORKSPACE: "left by a writer that was killed",
    ".parts": "records of an ingest",
    ".lease-": "a lease that nobody holds any more",
    ".probe": "a trial of the store",
    ".ray": "Ray's bookkeeping of a training",
}
"""Prefixes of the names of what stages keep in a folder while they work there, and what that is to a reader."""


class Item(NamedTuple):
    """A file, by its path below the root; on disk also an empty folder, or one that a writer works in (ends in "/")."""

    path: str
    size: int
    modified_s: float
    linked: bool = False


@dataclass(frozen=True)
class Unit:
    """The folder of an artifact, finished or not, and the files in it that belong to no unit within it.

    artifact: None where there is no manifest, or (`problem` says why) none that can be read.
    """

    path: str
    uri: str
    items: tuple[Item, ...]
    artifact: Artifact | None = None
    problem: str = ""

    @property
    def kind(self) -> str:
        """One of KINDS."""
        if is_checkpoint(self.path):
            return "checkpoint"
        folder = ARTIFACT_FOLDERS[self.path.partition("/")[0]].kind
        return self.artifact.manifest.kind if self.artifact and self.artifact.manifest.kind != "weights" else folder

    @property
    def is_unfinished(self) -> bool:
        """Whether it has no manifest: its writer is at work, or was killed."""
        return self.artifact is None and not self.problem

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(item.size for item in self.items)

    @property
    def newest_s(self) -> float:
        """When something in it changed last, in seconds since 1970."""
        return max((item.modified_s for item in self.items), default=0.0)

    @property
    def is_linked(self) -> bool:
        """Whether it lies behind a symbolic link, so not really in this root."""
        return any(item.linked for item in self.items)


@dataclass(frozen=True)
class Survey:
    """Everything that lies in a root. weights: the single weight files. loose: files that belong to no unit."""

    root: str
    units: Mapping[str, Unit]
    weights: Mapping[str, Item]
    loose: tuple[Item, ...]
    within: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The units below a unit: a run's checkpoints."""

    def nested(self, path: str) -> list[Unit]:
        """Return the units that lie below another."""
        return [self.units[below] for below in self.within.get(path, ())]

    def problems(self) -> list[Unit]:
        """Return the artifacts whose manifest cannot be read, and the folders that may not be listed."""
        return [unit for unit in self.units.values() if unit.problem]


def survey(root: str, *, below: str = "", known: Survey | None = None) -> Survey:
    """Survey a root, or the part of it below one path.

    known: an earlier survey; manifests that have not changed since are not read again. Raises InputError when a disk has no such
    folder.
    """
    folder = open_folder(root)
    path = folder.local()
    if path is not None and not path.is_dir():
        raise InputError(f"no storage root at {folder.uri!r}: give another with --root, or ZSBIR_ROOT")
    parts = [below] if below else list(ARTIFACT_FOLDERS)
    closed: list[OSError] = []
    if path is not None:
        items = list(chain.from_iterable(_walk_disk(path, part, closed) for part in parts))
    else:
        items = list(chain.from_iterable(in_threads(lambda part: _walk_store(folder.uri, part), parts)))
    return _survey_of(folder.uri, items, [_closed_unit(folder.uri, error) for error in closed], known)


def _survey_of(root: str, items: list[Item], closed: list[Unit], known: Survey | None) -> Survey:
    signed = {item.path.removesuffix(f"/{MANIFEST}") for item in items if item.path.endswith(f"/{MANIFEST}")}
    members: dict[str, list[Item]] = {}
    weights, loose = {}, []
    for item in items:
        unit = unit_of(item.path, signed)
        if unit:
            members.setdefault(unit, []).append(item)
            if is_checkpoint(unit):
                members.setdefault("/".join(unit.split("/")[:2]), [])  # a run that is not finished may have nothing else
        elif is_weight_file(item.path):
            weights[item.path] = item
        else:
            loose.append(item)
    found = [Unit(path, join(root, *path.split("/")), tuple(some)) for path, some in sorted(members.items())]
    units = _opened([unit for unit in found if unit.path in signed], known)
    units |= {unit.path: unit for unit in [*found, *closed] if unit.path not in signed}
    return Survey(root, dict(sorted(units.items())), weights, tuple(loose), _within(units))


def unit_of(path: str, signed: set[str]) -> str:
    """Return the folder of the artifact that a file belongs to, "" where there is none. signed: the folders that have a manifest.

    A folder counts as an artifact's when it has a manifest, or lies where artifacts do.
    """
    parts = path.rstrip("/").split("/")
    folders = parts if path.endswith("/") else parts[:-1]
    end = next((depth for depth, part in enumerate(folders) if bookkeeping(part)), len(folders))
    found = ""
    for depth in range(2, end + 1):
        candidate = "/".join(folders[:depth])
        if candidate in signed or is_checkpoint(candidate) or (not found and depth - 1 == _depth(folders[0])):
            found = candidate
    return found


def _depth(folder: str) -> int:
    found = ARTIFACT_FOLDERS.get(folder)
    return found.depth if found else -1


def bookkeeping(name: str) -> str:
    """Return what a file or folder of bookkeeping is, by its name; "" for everything else."""
    return next((meaning for start, meaning in BOOKKEEPING.items() if name.startswith(start)), "")


def _opened(units: list[Unit], known: Survey | None) -> dict[str, Unit]:
    """Return units with their artifacts, by path, without those that are removed at this moment."""
    before = {unit.path: _as_before(unit, known) for unit in units}
    new = in_threads(_read, [unit for unit in units if before[unit.path] is None])
    return {unit.path: unit for unit in (*before.values(), *new) if unit}


def _as_before(unit: Unit, known: Survey | None) -> Unit | None:
    """Return a unit with the artifact that an earlier survey read, if its manifest has not changed."""
    before = known.units.get(unit.path) if known else None
    if before and before.artifact and _manifest_item(before) == _manifest_item(unit):
        return replace(unit, artifact=before.artifact)
    return None


def _read(unit: Unit) -> Unit | None:
    try:
        artifact = Artifact(unit.uri)
    except InputError as error:
        return replace(unit, problem=str(error)) if is_signed(unit.uri) else None
    return replace(unit, artifact=artifact)


def _closed_unit(root: str, error: OSError) -> Unit:
    """Return a unit for a folder that this user may not list: what lies there is not known."""
    path = Path(error.filename).relative_to(root).as_posix()
    return Unit(path, str(error.filename), (), problem=f"cannot look into {error.filename}: {error.strerror}")


def _manifest_item(unit: Unit) -> Item | None:
    return next((item for item in unit.items if item.path == f"{unit.path}/{MANIFEST}"), None)


def _within(units: Mapping[str, Unit]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for path in units:
        parts = path.split("/")
        for depth in range(2, len(parts)):
            above = "/".join(parts[:depth])
            if above in units:
                found.setdefault(above, []).append(path)
    return {above: tuple(below) for above, below in found.items()}


def _walk_store(root: str, below: str) -> list[Item]:
    """Return the files below a path in a store, without the empty objects by which consoles show folders."""
    entries = open_folder(join(root, *below.split("/"))).walk()
    return [Item(f"{below}/{e.key}", e.size, e.modified_s) for e in entries if e.key and not e.key.endswith("/")]


def _walk_disk(root: Path, below: str, closed: list[OSError]) -> Iterator[Item]:
    """Yield the items below a path on a disk. Links are followed, so that no manifest is overlooked; items behind one are marked.

    closed: receives the errors of folders that may not be listed.
    """

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a training removes its older checkpoints
            closed.append(error)

    folder = root / below.partition("/")[0]
    real_folder = folder.resolve()
    for directory, names, files in os.walk(root / below, onerror=note, followlinks=True):
        here = Path(directory)
        real = here.resolve()
        if here.is_symlink() and real in {parent.resolve() for parent in here.parents}:
            names.clear()  # the link leads back to a folder above it
            continue
        linked = real != real_folder / here.relative_to(folder)
        if here.name.startswith(WORKSPACE) or not (names or files):
            yield from _item(root, here, "/", linked=linked)
        for name in files:
            yield from _item(root, here / name, "", linked=linked)


def _item(root: Path, path: Path, end: str, *, linked: bool) -> Iterator[Item]:
    try:
        stat = path.stat() if path.exists() else path.lstat()
    except FileNotFoundError:
        return
    yield Item(f"{path.relative_to(root).as_posix()}{end}", 0 if end else stat.st_size, stat.st_mtime, linked)
