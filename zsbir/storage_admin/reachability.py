"""Reachability in a storage root: which artifacts are needed by something, and which may be removed whole.

The walk starts at what stays in any case and follows what manifests name. Everything that a name could mean counts as named: an
address in this root or at the same path of another, or a digest, anywhere in a manifest's inputs or configuration. A writer that
might be at work counts as at work. So an error here keeps too much, never too little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zsbir.base.layout import ARTIFACT_FOLDERS
from zsbir.base.manifest import references
from zsbir.base.storage import folder_name, is_remote, local_path, open_folder
from zsbir.storage_admin.lineage import weight_sha256
from zsbir.storage_admin.roots import Survey, Unit

READS = {
    "knowledge": ("dataset", "weights", "pretrained"),
    "runs": ("dataset", "knowledge", "weights", "pretrained"),
    "reports": ("run", "dataset", "weights"),
    "indexes": ("run", "dataset", "index"),
    "sweeps": ("dataset", "knowledge", "weights", "pretrained", "run"),
    "exports": ("run", "dataset"),
}
"""The kinds that the stages read which write below each of a root's folders."""


@dataclass(frozen=True)
class Criteria:
    """The artifacts that the user allows to be removed.

    kinds: only these. before_s: only what has not changed since, in seconds since 1970. keep: paths below the root that stay.
    registered: names of runs' folders, or addresses, that a model registry names; they stay, too.
    """

    kinds: frozenset[str]
    before_s: float
    keep: frozenset[str] = frozenset()
    registered: frozenset[str] = frozenset()


def paths_to_keep(found: Survey, criteria: Criteria) -> dict[str, str]:
    """Return everything that stays, by path, each with the reason."""
    graph = _Graph(found)
    stays = dict(_always_kept(found, criteria))
    waiting = list(stays)
    while waiting:
        path = waiting.pop()
        for needed in graph.needs(path, with_checkpoints="checkpoint" not in criteria.kinds):
            if needed not in stays:
                stays[needed] = f"named by {path}"
                waiting.append(needed)
    return stays


def paths_to_remove(found: Survey, criteria: Criteria, stays: Mapping[str, str]) -> list[str]:
    """Return the paths of what may be removed, each before what it names, without what lies within another of them."""
    goes = [path for path in (*found.units, *found.weights) if path not in stays and _may_go(found, path, criteria)]
    lie_within = {below for path in goes for below in found.within.get(path, ())}
    graph, left = _Graph(found), [path for path in goes if path not in lie_within]
    parts = {path: (path, *found.within.get(path, ())) for path in left}
    names = {path: {named for part in parts[path] for named in graph.needs(part)} & set(left) - {path} for path in left}
    ordered: list[str] = []
    while left:
        named = {other for path in left for other in names[path]}
        # Manifests that name each other are not written by any stage; then any order will do.
        free = [path for path in left if path not in named] or left
        ordered += free
        left = [path for path in left if path not in free]
    return ordered


def _may_go(found: Survey, path: str, criteria: Criteria) -> bool:
    """Return whether a path is an artifact or a weight file of a kind that was asked for."""
    unit = found.units.get(path)
    return "weights" in criteria.kinds if unit is None else unit.artifact is not None and unit.kind in criteria.kinds


def _always_kept(found: Survey, criteria: Criteria) -> Iterator[tuple[str, str]]:
    """Yield what stays whatever else does, with the reason."""
    busy = dict(_possibly_read(found, criteria))
    for path, unit in found.units.items():
        reason = _own_reason(found, unit, criteria) or _general_reason(path, unit.kind, criteria, busy)
        if reason:
            yield path, reason
    for path, item in found.weights.items():
        reason = "changed recently" if item.modified_s >= criteria.before_s else "behind a link" if item.linked else ""
        reason = reason or _general_reason(path, "weights", criteria, busy)
        if reason:
            yield path, reason


def _general_reason(path: str, kind: str, criteria: Criteria, busy: Mapping[str, str]) -> str:
    if kind not in criteria.kinds and kind != "checkpoint":
        return "not asked for"
    if path in criteria.keep:
        return "to be kept"
    if folder_name(path) in criteria.registered or path in criteria.registered:
        return "registered as a model"
    return busy.get(kind, "")


def _own_reason(found: Survey, unit: Unit, criteria: Criteria) -> str:
    if unit.problem:
        return "damaged"
    if unit.artifact is None:
        return "" if _last_change(found, unit) < criteria.before_s else "not finished yet"
    if any(part.newest_s >= criteria.before_s for part in (unit, *found.nested(unit.path))):
        return "changed recently"
    if any(part.is_linked for part in (unit, *found.nested(unit.path))):
        return "behind a link"
    if any(item.path == f"{unit.path}/.undelivered" for item in unit.items):
        return "not all of it has reached MLflow"
    return "of an unfinished run" if unit.kind == "checkpoint" and not _has_finished_run(found, unit) else ""


def _has_finished_run(found: Survey, checkpoint: Unit) -> bool:
    run = found.units.get("/".join(checkpoint.path.split("/")[:2]))
    return run is not None and run.artifact is not None


def _last_change(found: Survey, unit: Unit) -> float:
    return max(part.newest_s for part in (unit, *found.nested(unit.path)))


def _possibly_read(found: Survey, criteria: Criteria) -> Iterator[tuple[str, str]]:
    """Yield kinds that may be being read: by a writer at work, or by a run that will go on from its checkpoint."""
    folders = {unit.path.split("/")[0]: unit.path for unit in _at_work(found, criteria)}
    for folder, path in folders.items():
        for kind in READS.get(folder, ()):
            yield kind, f"{path} is not finished and may read it"


def _at_work(found: Survey, criteria: Criteria) -> Iterator[Unit]:
    for unit in found.units.values():
        if not unit.is_unfinished:
            continue
        checkpoints = [part.artifact for part in found.nested(unit.path) if part.artifact]
        says_what_it_reads = any(references(checkpoint.manifest) for checkpoint in checkpoints)
        is_fresh = _last_change(found, unit) >= criteria.before_s
        if not says_what_it_reads and (checkpoints or is_fresh):
            yield unit


class _Graph:
    """The needs of each artifact of a root, within that root."""

    def __init__(self, found: Survey):
        self._found = found
        self._digests: dict[str, list[str]] = {}
        for unit in found.units.values():
            if unit.artifact:
                for digest in (unit.artifact.digest, str(unit.artifact.manifest.facts.get("weights_sha256", ""))):
                    self._digests.setdefault(digest, []).append(unit.path)
        for path in found.weights:
            self._digests.setdefault(weight_sha256(path), []).append(path)

    def needs(self, path: str, *, with_checkpoints: bool = False) -> Iterator[str]:
        """Yield the paths of what an artifact names, and of the artifacts it lies in.

        with_checkpoints: those of a run count as a part of it.
        """
        parts = path.split("/")
        yield from self._artifacts_on(parts[:-1])
        unit = self._found.units.get(path)
        if unit is None:
            return
        if with_checkpoints:
            yield from self._found.within.get(path, ())
        if unit.artifact:
            manifest = unit.artifact.manifest
            for text in _texts([manifest.inputs, manifest.config]):
                yield from self._digests.get(text, ()) if text else ()
                for address in _addresses(text, self._found.root):
                    yield from self._artifacts_on(address.split("/"))

    def _artifacts_on(self, parts: list[str]) -> Iterator[str]:
        """Yield the artifacts that an address leads to or into."""
        for end in range(2, len(parts) + 1):
            path = "/".join(parts[:end])
            if path in self._found.units or path in self._found.weights:
                yield path


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _addresses(text: str, root: str) -> Iterator[str]:
    """Yield every path below this root that a text may stand for, whatever root it was written in."""
    text = text.rstrip("/")
    if text.startswith(f"{root}/"):
        yield text.removeprefix(f"{root}/")
    parts = text.split("/")
    yield from ("/".join(parts[start:]) for start, part in enumerate(parts) if part in ARTIFACT_FOLDERS)


def path_below(uri: str, root: str) -> str:
    """Return the path below a root that a user's address means; "" where it is elsewhere."""
    full = uri.rstrip("/") if is_remote(uri) else str(local_path(uri).resolve())
    prefix = open_folder(root).uri
    return full.removeprefix(f"{prefix}/") if full.startswith(f"{prefix}/") else ""
