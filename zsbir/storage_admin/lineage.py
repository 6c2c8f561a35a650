"""The lineage of artifacts, up to the images: read from their manifests, whose inputs point backwards only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from zsbir.base import limits
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import WEIGHT_FILE, below_root, lies_in_root, root_of
from zsbir.base.manifest import Reference, references
from zsbir.base.storage import join, split_file

State = Literal["there", "gone", "changed", "silent", "outside"]


@dataclass(frozen=True)
class Origin:
    """An artifact or a weight file, and what it was made from.

    uri: where it was found, else where it should be. artifact: None for weight files and for missing inputs.
    state: changed: another artifact lies there by now; silent: its store does not answer; outside: it is not in a storage root.
    note: why a silent one does not answer.
    """

    role: str
    uri: str
    digest: str
    state: State = "there"
    artifact: Artifact | None = None
    note: str = ""
    inputs: tuple[Origin, ...] = ()

    def walk(self) -> Iterator[Origin]:
        """Yield this origin and all below it, each once, inputs before what was made from them."""
        yield from _walk(self, set())


def _walk(origin: Origin, seen: set[tuple[str, int]]) -> Iterator[Origin]:
    here = (origin.uri, id(origin.inputs))  # an artifact in two roles is two origins with the same inputs
    if here not in seen:
        seen.add(here)
        for part in origin.inputs:
            yield from _walk(part, seen)
        yield origin


def is_weight_file(uri: str) -> bool:
    """Return whether `uri` is that of a weight file in a storage root."""
    return WEIGHT_FILE.search(uri) is not None


def weight_sha256(uri: str) -> str:
    """Return the checksum that a weight file is named by. Raises InputError for any other address."""
    found = WEIGHT_FILE.search(uri)
    if found is None:
        raise InputError(f"{uri} is not a weight file of a storage root (weights/<sha256>.safetensors)")
    return found[1]


def lineage(artifact: Artifact) -> Origin:
    """Return everything that an artifact was made from, as far as it can be found.

    Inputs more than `limits.LINEAGE_STEPS` back count as silent.
    """
    return _origin("", artifact, {}, 0)


def _origin(role: str, artifact: Artifact, known: dict[str, Origin], steps: int) -> Origin:
    """Return an artifact as an origin.

    known: the origins found so far, by address, since many artifacts share an input. steps: from the artifact that was asked about.
    Raises InputError for too many of them.
    """
    if artifact.uri not in known:
        if steps > limits.LINEAGE_STEPS:
            raise InputError(f"it lies more than {limits.LINEAGE_STEPS} steps back")
        known[artifact.uri] = Origin("", artifact.uri, artifact.digest)  # ends a circle of manifests that name each other
        inputs = tuple(_input(artifact, reference, known, steps + 1) for reference in references(artifact.manifest))
        known[artifact.uri] = Origin("", artifact.uri, artifact.digest, artifact=artifact, inputs=inputs)
    found = known[artifact.uri]
    return Origin(role, found.uri, found.digest, artifact=artifact, inputs=found.inputs)


def _input(artifact: Artifact, reference: Reference, known: dict[str, Origin], steps: int) -> Origin:
    """Return an input, looked for in the artifact's own root first: after a copy the original's store need not answer any more."""
    role, uri, digest = reference.role, reference.uri, reference.digest
    if not lies_in_root(uri):
        return Origin(role, uri, digest, "outside")
    changed, reason = False, ""
    for address in dict.fromkeys([join(root_of(artifact.uri), below_root(uri)), uri]):
        try:
            if is_weight_file(address):
                folder, name = split_file(address)
                if folder.size(name) is not None:
                    return Origin(role, address, digest)
            elif exists(address):
                found = Artifact(address)
                if found.digest == digest:
                    return _origin(role, found, known, steps)
                changed = True
        except (InputError, RunError, OSError) as error:
            reason = str(error)
    state: State = "changed" if changed else "silent" if reason else "gone"
    return Origin(role, uri, digest, state, note=reason)
