"""Copies of artifacts in another storage root, with everything they were made from.

Each keeps its path below the root; its files come first and its manifest last, byte for byte. So a copy is whole or invisible, and
finds its inputs in its own root (`Artifact.input`). Inputs are copied before what was made from them. Every file is checked on its
way; files that lie at the target already are not copied again, so an interrupted copy goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from zsbir.base import limits
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import InputError, RunError
from zsbir.base.events import say
from zsbir.base.files import sha256_file
from zsbir.base.layout import below_root, lies_in_root
from zsbir.base.manifest import MANIFEST, FileEntry, Manifest, checked_file_name, manifest_of, parts
from zsbir.base.storage import Folder, is_remote, join, open_folder, split_file
from zsbir.base.strict_json import parse_json
from zsbir.storage_admin.lineage import Origin, is_weight_file, lineage, weight_sha256
from zsbir.storage_admin.tables import bytes_text, count_text
from zsbir.storage_admin.threads import ByteProgress, in_threads
from zsbir.storage_admin.uploads import noted_sha256

COPIES = 8
"""Files that are copied at the same time; each lies on this machine's disk meanwhile."""

_IN_MEMORY_BYTES = 4 * 10**9
"""The largest weight file that can be copied to object storage: it is uploaded in one piece, under exactly its name."""


def copy(uri: str, target_root: str, *, inputs: bool = True) -> str:
    """Copy an artifact or a weight file, and what it was made from, to another root. Return its address there.

    inputs: False copies the artifact alone, with the segments of an index, without which it cannot be read.
    Raises InputError when an input is gone (then nothing is copied) or a file differs from its manifest, and RunError when the
    target holds another artifact at the same path, or cannot be written.
    """
    if not lies_in_root(uri):
        raise InputError(f"{uri} is not in a storage root: its address should read .../runs/..., .../datasets/... and so on")
    root = open_folder(target_root).uri
    if is_weight_file(uri):
        origins = [Origin("weights", uri, weight_sha256(uri))]
    else:
        artifact = Artifact(uri)
        origins = _wanted(lineage(artifact)) if inputs else _alone(artifact)
    plans = list(in_threads(lambda origin: _planned(origin, root), origins))
    to_do = [plan for plan in plans if plan.size or not plan.is_signed]
    for plan in plans:
        if plan not in to_do:
            say(f"there already: {plan.uri}")
    with ByteProgress("copy", sum(plan.size for plan in to_do)) as progress:
        for plan in to_do:
            plan.carry_out(progress.advance)
            say(f"copied {count_text(len(plan.missing), 'file')}, {bytes_text(plan.size)}: {plan.uri}")
    return plans[-1].uri


def _alone(artifact: Artifact) -> list[Origin]:
    """Return an artifact without its inputs, but with its parts before it. Raises InputError where one of these is missing."""
    found = [artifact.input(part.role, artifact.manifest.kind) for part in parts(artifact.manifest)]
    return [Origin("", each.uri, each.digest, artifact=each) for each in (*found, artifact)]


def _wanted(tree: Origin) -> list[Origin]:
    """Return each artifact and weight file once, inputs first. Raises InputError, which names every input that is missing."""
    found: dict[str, Origin] = {}
    lost = []
    for origin in tree.walk():
        if origin.state == "outside":
            say(f"not copied: {origin.role} {origin.uri} is not an artifact of a storage root")
        elif origin.state == "there":
            found.setdefault(origin.uri, origin)
        else:
            lost.append(f"{origin.role} {origin.uri} ({origin.note or origin.state})")
    if lost:
        raise InputError(f"not all that {tree.uri} was made from can be copied: {'; '.join(dict.fromkeys(lost))}; see --no-inputs")
    return list(found.values())


@dataclass(frozen=True)
class _WeightPlan:
    """A weight file to copy, unless the target has it."""

    source: str
    uri: str
    missing: tuple[str, ...]
    size: int
    is_signed: bool = True

    def carry_out(self, advance: Callable[[int], None]) -> None:
        folder, name = split_file(self.uri)
        source_folder, source_name = split_file(self.source)
        with folder.workspace() as work:
            source_folder.download(source_name, work / name)
            if sha256_file(work / name) != weight_sha256(self.source):
                raise InputError(f"{self.source} is damaged: its checksum is not that of its name")
            if not folder.create(name, (work / name).read_bytes()) and folder.size(name) != self.size:
                raise RunError(f"another file lies at {self.uri}: remove it and copy again")
        advance(self.size)


@dataclass(frozen=True)
class _Plan:
    """An artifact to copy: which of its files are missing at the target, and under which key the others lie there."""

    source: Artifact
    folder: Folder
    manifest: Manifest
    is_signed: bool
    keys: Mapping[str, str]
    missing: tuple[str, ...]

    @property
    def uri(self) -> str:
        return self.folder.uri

    @property
    def size(self) -> int:
        return sum(self.manifest.files[name].size for name in self.missing)

    def carry_out(self, advance: Callable[[int], None]) -> None:
        with self.folder.workspace() as work:
            arrived = dict(in_threads(lambda name: self._copy(name, work, advance), self.missing, COPIES))
        keys = {**self.keys, **arrived}
        if self.is_signed:
            return
        if not self.folder.create(MANIFEST, self._text(keys)):
            _check_same(self.source, Artifact(self.uri))

    def _copy(self, name: str, work: Path, advance: Callable[[int], None]) -> tuple[str, str]:
        file = work / checked_file_name(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        self.source.download(name, file)
        wanted = self.manifest.key(name)
        key = self.folder.publish(wanted, file, self.manifest.files[name].sha256)
        if self.is_signed and key != wanted:
            self.folder.delete([key])
            raise RunError(f"another file lies at {join(self.uri, wanted)}: remove {self.uri} and copy again")
        advance(self.manifest.files[name].size)
        return name, key

    def _text(self, keys: Mapping[str, str]) -> bytes:
        """Return the source's manifest, byte for byte, unless a file got another key in a store without conditional puts.

        Raises RunError when it is no longer the one that was checked.
        """
        original = self.source.folder.read(MANIFEST, limits.MANIFEST_BYTES)
        values = parse_json(original)
        if manifest_of(values, self.source.uri) != self.source.manifest:
            raise RunError(f"{self.source.uri} was replaced while it was copied; copy it again")
        if all(key == self.manifest.key(name) for name, key in keys.items()):
            return original
        stored_as = {name: key for name, key in sorted(keys.items()) if name != key}
        return (json.dumps({**values, "stored_as": stored_as}, indent=1, ensure_ascii=False) + "\n").encode()


def _planned(origin: Origin, root: str) -> _Plan | _WeightPlan:
    """Return what is left to do until `origin` is at the root too."""
    target = join(root, *below_root(origin.uri).split("/"))
    if origin.artifact is None:
        return _planned_weights(origin.uri, target)
    source, folder = origin.artifact, open_folder(target)
    there = Artifact(target) if exists(target) else None
    if there:
        _check_same(source, there)
    manifest = there.manifest if there else source.manifest
    sizes = {entry.key: entry.size for entry in folder.walk()}
    if there:
        keys = {name: key for name in manifest.files if (key := manifest.key(name)) in sizes}
        _check_sizes(there, keys, sizes)
    else:
        found = in_threads(lambda name: (name, _arrived(folder, manifest.key(name), manifest.files[name], sizes)), manifest.files)
        keys = {name: key for name, key in found if key}
    missing = tuple(name for name in manifest.files if name not in keys)
    if any(manifest.files[name] != source.manifest.files.get(name) for name in missing):
        raise RunError(f"{target} was made there, not copied, and is damaged (see verify): remove it and copy again")
    return _Plan(source, folder, manifest, there is not None, keys, missing)


def _planned_weights(uri: str, target: str) -> _WeightPlan:
    size = _file_size(uri)
    if size is None:
        raise InputError(f"no weight file at {uri}")
    if is_remote(target) and size > _IN_MEMORY_BYTES:
        raise InputError(f"{uri} has {bytes_text(size)}, more than the {bytes_text(_IN_MEMORY_BYTES)} that go up in one piece")
    there = _file_size(target)
    if there not in (None, size):
        raise RunError(f"another file lies at {target}: remove it and copy again")
    return _WeightPlan(uri, target, () if there else (uri,), 0 if there else size)


def _file_size(uri: str) -> int | None:
    folder, name = split_file(uri)
    return folder.size(name)


def _check_same(source: Artifact, there: Artifact) -> None:
    """Raise RunError unless both are the same artifact: copied before, or made there from the same inputs."""
    if (source.digest, source.manifest.kind) != (there.digest, there.manifest.kind):
        raise RunError(f"{there.uri} is another {there.manifest.kind} than {source.uri}: move or remove one of them")
    changed = [name for name, entry in source.manifest.files.items() if there.manifest.files.get(name) != entry]
    if changed:
        say(f"{there.uri} was made there from the same inputs; its {changed[0]} differs in its bytes, and it is left as it is")


def _check_sizes(there: Artifact, keys: Mapping[str, str], sizes: Mapping[str, int]) -> None:
    wrong = [name for name, key in keys.items() if sizes[key] != there.manifest.files[name].size]
    if wrong:
        raise RunError(f"{there.uri} is damaged (see verify), first its file {wrong[0]}: remove it and copy again")


def _arrived(folder: Folder, key: str, entry: FileEntry, sizes: Mapping[str, int]) -> str:
    """Return the key under which an interrupted copy left a file; "" where it did not.

    In a store without conditional puts each file has a unique key: `key~random`.
    """
    stem, dot, ending = key.rpartition(".") if "." in key.rpartition("/")[2] else (key, "", "")
    varied = [other for other in sizes if other.startswith(f"{stem}~") and other.endswith(f"{dot}{ending}")]
    for candidate in [key, *varied]:
        if sizes.get(candidate) == entry.size and noted_sha256(folder, candidate) == entry.sha256:
            return candidate
    return ""
