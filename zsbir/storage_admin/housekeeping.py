"""The removal of debris that killed writers left in a storage root, and of whole artifacts that nothing needs any more.

Both are found first and removed afterwards. Directly before each removal the folder is surveyed again, and what has changed stays.
`.lock`, `.undelivered`, `mlflow*` and everything outside the artifact folders of a root are never touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from filelock import FileLock, Timeout

from zsbir.base.artifact import MANIFEST
from zsbir.base.draft import remove
from zsbir.base.errors import InputError, RunError
from zsbir.base.events import say, warn
from zsbir.base.layout import ARTIFACT_FOLDERS, is_checkpoint
from zsbir.base.storage import join, open_folder, split_file
from zsbir.storage_admin.reachability import Criteria, paths_to_keep, paths_to_remove
from zsbir.storage_admin.roots import Item, Survey, Unit, bookkeeping, survey, unit_of
from zsbir.storage_admin.uploads import Upload, abort_upload, pending_uploads

SURVEY_VALID_S = 2.0
"""Seconds for which a survey of a whole root is relied on; after that the root is surveyed again before the next removal."""

_UNTOUCHED = (".lock", ".undelivered")


@dataclass(frozen=True)
class Waste:
    """Something that may be removed.

    path: what is shown, below the root as all paths are. home: the folder in which nothing may have changed.
    """

    path: str
    home: str
    why: str
    kind: str = "debris"
    items: tuple[Item, ...] = ()
    uploads: tuple[Upload, ...] = ()

    @property
    def size(self) -> int:
        """Bytes that its removal frees."""
        return sum(item.size for item in self.items) + sum(upload.size for upload in self.uploads)

    @property
    def files(self) -> int:
        """Number of files that are removed."""
        return sum(not item.path.endswith("/") for item in self.items)

    def as_json(self, root: str) -> dict[str, Any]:
        """Return it as JSON values."""
        facts = {"kind": self.kind, "size": self.size, "files": self.files, "why": self.why}
        return {"uri": join(root, *self.path.split("/")), **facts}


def debris(found: Survey, uploads: list[Upload], before_s: float) -> list[Waste]:
    """Return what killed writers left in folders where nothing has changed since `before_s`; in others a writer may be at work.

    uploads: `unended_uploads` of the root.
    """
    named = {path for unit in found.units.values() for path in _named(unit)}
    wastes = [waste for unit in found.units.values() for waste in _unit_debris(found, unit, named, before_s)]
    return wastes + list(_loose_debris(found, before_s)) + _upload_debris(found, uploads, before_s)


def unended_uploads(root: str) -> list[Upload]:
    """Return the unfinished multipart uploads below a root's folders; none, with a warning, where the store does not list them."""
    found: list[Upload] = []
    for part in ARTIFACT_FOLDERS:
        try:
            uploads = pending_uploads(open_folder(join(root, part)))
        except (InputError, RunError, FileNotFoundError) as error:
            warn(f"uploads that were not ended are not looked for: {error}")
            break
        found += [upload._replace(key=f"{part}/{upload.key}") for upload in uploads]
    return found


def remove_debris(root: str, wastes: list[Waste], before_s: float) -> list[Waste]:
    """Remove debris folder by folder, except where something has changed. Return what was removed."""
    removed = []
    for home, group in groupby(sorted(wastes, key=lambda waste: waste.home), lambda waste: waste.home):
        together = list(group)
        try:
            with _locked(root, home):
                uploads = unended_uploads(root) if any(waste.uploads for waste in together) else []
                again = debris(survey(root, below=home), uploads, before_s)
                for waste in together:
                    if waste in again:
                        _remove_items(root, waste)
                        removed.append(waste)
                    else:
                        say(f"stays: {waste.path} has changed meanwhile")
        except Timeout:
            say(f"stays: another process is working on {home}")
    return removed


@dataclass(frozen=True)
class RootState:
    """A root at one moment, and the runs that its model registries name."""

    found: Survey
    registered: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decision:
    """The artifacts that nothing needs, each before what it names; and for the others of the kinds asked for, why they stay."""

    goes: list[Waste]
    stays: dict[str, str] = field(default_factory=dict)


def unneeded(state: RootState, criteria: Criteria) -> Decision:
    """Return which whole artifacts may be removed. Raises RunError while a manifest cannot be read: what it names is not known."""
    found = state.found
    damaged = found.problems()
    if damaged:
        raise RunError(
            f"not all manifests can be read ({len(damaged)}), so what they name is not known; first: {damaged[0].problem};"
            " repair them or remove their folders"
        )
    criteria = replace(criteria, registered=state.registered)
    stays = paths_to_keep(found, criteria)
    asked = {path: reason for path, reason in stays.items() if _kind(found, path) in criteria.kinds}
    return Decision([_whole(found, path) for path in paths_to_remove(found, criteria, stays)], asked)


def remove_unneeded(found: Survey, criteria: Criteria, current_state: Callable[[Survey], RootState]) -> list[Waste]:
    """Remove what nothing needs. Before each removal the artifact is surveyed again, and every few seconds the whole root.

    What is new or has changed meanwhile stays with all that it names. current_state: returns the root and its registries as they
    are now, given an earlier survey. Return what was removed.
    """
    state, looked_s = current_state(found), time.monotonic()
    known = {*state.found.units, *state.found.weights}
    plan = unneeded(state, criteria).goes
    current, changed = {waste.path: waste for waste in plan}, set[str]()
    removed = []
    for waste in plan:
        if time.monotonic() - looked_s >= SURVEY_VALID_S:
            state, looked_s = current_state(state.found), time.monotonic()
            keep = criteria.keep | changed | ({*state.found.units, *state.found.weights} - known)
            current = {waste.path: waste for waste in unneeded(state, replace(criteria, keep=keep)).goes}
        if current.get(waste.path) == waste and _remove_whole(state.found.root, waste):
            removed.append(waste)
            say(f"removed {waste.path}")
        else:
            say(f"stays: {waste.path} has changed meanwhile, or is needed by now")
            changed.add(waste.path)
            looked_s = float("-inf")  # survey again, so that what it names stays too
    return removed


def _unit_debris(found: Survey, unit: Unit, named: set[str], before_s: float) -> Iterator[Waste]:
    around = (unit, *found.nested(unit.path))
    if any(part.newest_s >= before_s for part in around) or unit.is_linked:
        return
    rest: list[Item] = []
    for top, items in _by_bookkeeping([item for item in unit.items if item.path not in named and not _is_untouched(item)]):
        if top:
            yield Waste(top, unit.path, bookkeeping(top.rpartition("/")[2]), items=tuple(items))
        else:
            rest += items
    if unit.artifact:
        for item in (item for item in rest if not item.path.endswith("/")):
            yield Waste(item.path, unit.path, "not named by its manifest", items=(item,))
    elif rest and unit.is_unfinished and not any(part.artifact or part.problem for part in around):
        yield Waste(unit.path, unit.path, f"{unit.kind} without a manifest: never finished", items=tuple(rest))


def _named(unit: Unit) -> Iterator[str]:
    """Yield the paths that a manifest names, and its own."""
    if not unit.is_unfinished:
        yield f"{unit.path}/{MANIFEST}"
    if unit.artifact:
        yield from (f"{unit.path}/{unit.artifact.key(name)}" for name in unit.artifact.manifest.files)


def _is_untouched(item: Item) -> bool:
    parts = item.path.split("/")
    return parts[-1] in _UNTOUCHED or any(part.startswith("mlflow") for part in parts)


def _by_bookkeeping(items: list[Item]) -> list[tuple[str, list[Item]]]:
    """Return items grouped by the file or folder of bookkeeping that they belong to; the rest comes last, under ""."""
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(_top_bookkeeping(item.path), []).append(item)
    return sorted(found.items(), key=lambda entry: (not entry[0], entry[0]))


def _top_bookkeeping(path: str) -> str:
    parts = path.rstrip("/").split("/")
    depth = next((depth for depth, part in enumerate(parts, start=1) if bookkeeping(part)), 0)
    return "/".join(parts[:depth])


def _loose_debris(found: Survey, before_s: float) -> Iterator[Waste]:
    """Yield bookkeeping beside artifacts, and weight files whose writing was cut off."""
    loose = [item for item in found.loose if not item.linked and not _is_untouched(item)]
    tops = [(top, items) for top, items in _by_bookkeeping(loose) if top]
    homes = {top: top.rpartition("/")[0] for top, _ in tops}
    newest: dict[str, float] = {}
    for top, items in tops:
        newest[homes[top]] = max(newest.get(homes[top], 0.0), *(item.modified_s for item in items))
    for top, items in tops:
        if newest[homes[top]] < before_s:
            yield Waste(top, homes[top], bookkeeping(top.rpartition("/")[2]), items=tuple(items))
    for item in loose:
        if _is_unfinished_weights(item.path) and item.modified_s < before_s:
            yield Waste(item.path, "weights", "a weight file that was not written to its end", items=(item,))


def _is_unfinished_weights(path: str) -> bool:
    folder, _, name = path.partition("/")
    return folder == "weights" and name.startswith(".") and ".safetensors." in name and "/" not in name


def _upload_debris(found: Survey, uploads: list[Upload], before_s: float) -> list[Waste]:
    """Return the unfinished uploads to folders where nothing changes."""
    signed = {path for path, unit in found.units.items() if not unit.is_unfinished}
    wastes: dict[str, list[Upload]] = {}
    for upload in uploads:
        home = unit_of(upload.key, signed) or upload.key.rpartition("/")[0]
        unit = found.units.get(home)
        if upload.begun_s < before_s and not (unit and unit.newest_s >= before_s):
            wastes.setdefault(home, []).append(upload)
    return [Waste(home, home, "uploads that were not ended", uploads=tuple(some)) for home, some in wastes.items()]


def _remove_items(root: str, waste: Waste) -> None:
    folder = open_folder(join(root, *waste.home.split("/")))
    files = [item.path for item in waste.items if not item.path.endswith("/")]
    folder.delete(path.removeprefix(f"{waste.home}/") for path in files)
    for path in sorted((item.path for item in waste.items if item.path.endswith("/")), key=len, reverse=True):
        _remove_empty(join(root, *path.rstrip("/").split("/")))
    for upload in waste.uploads:
        abort_upload(open_folder(root), upload)


def _remove_empty(uri: str) -> None:
    """Remove a folder on disk if it is empty; one that is gone, or holds something, is ignored."""
    directory = open_folder(uri).local()
    if directory is not None:
        with suppress(OSError):
            directory.rmdir()


@contextmanager
def _locked(root: str, home: str) -> Iterator[None]:
    """Hold the lock of a folder on this disk, or of the run it belongs to, if it has one. Raises Timeout when another holds it."""
    parts = home.split("/")
    for end in range(len(parts), 1, -1):
        path = open_folder(join(root, *parts[:end])).local(".lock")
        if path is not None and path.is_file():
            with FileLock(path, blocking=False):
                yield
            return
    yield


def _kind(found: Survey, path: str) -> str:
    return found.units[path].kind if path in found.units else "weights"


def _whole(found: Survey, path: str) -> Waste:
    unit = found.units.get(path)
    if unit is None:
        return Waste(path, path, "nothing names it", kind="weights", items=(found.weights[path],))
    items = [item for part in (unit, *found.nested(path)) for item in part.items]
    return Waste(path, path, "nothing names it", kind=unit.kind, items=tuple(items))


def _remove_whole(root: str, waste: Waste) -> bool:
    """Remove a whole artifact and return whether that was done: not when it has changed, or another process works on it."""
    uri = join(root, *waste.path.split("/"))
    if waste.kind == "weights":
        folder, name = split_file(uri)
        as_it_was = folder.size(name) == waste.size
        if as_it_was:
            folder.delete([name])
        return as_it_was
    try:
        with _locked(root, waste.path):
            again = survey(root, below=waste.path)
            if waste.path not in again.units or _whole(again, waste.path) != waste:
                return False
            # A run without its manifest, but with checkpoints, would be taken for one that is not finished.
            folder, names = open_folder(uri), [item.path for item in waste.items if item.path.endswith(f"/{MANIFEST}")]
            folder.delete([MANIFEST])
            folder.delete(path.removeprefix(f"{waste.path}/") for path in names)
            remove(uri)
            if is_checkpoint(waste.path):
                _remove_empty(join(root, *waste.path.split("/")[:-1]))  # else the run would seem to have changed lately
    except Timeout:
        return False
    return True
