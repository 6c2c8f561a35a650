"""The lineage of artifacts, up to the images: read from their manifests, whose inputs point backwards only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from zsbir.base.artifact import Artifact, Manifest, exists
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import below_root, lies_in_root, root_of
from zsbir.base.storage import join, split_file

State = Literal["there", "gone", "changed", "silent", "outside"]

WEIGHT_FILE = re.compile(r"(?:^|/)weights/([0-9a-f]{64})\.safetensors$")
"""Weights are single files, named by their checksum."""


@dataclass(frozen=True)
class Reference:
    """What a manifest says about one of its inputs."""

    role: str
    uri: str
    digest: str


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
        """Yield this origin and all below it, inputs before what was made from them."""
        for origin in self.inputs:
            yield from origin.walk()
        yield self


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
    """Return everything that an artifact was made from, as far as it can be found."""
    return _origin("", artifact, {})


def _origin(role: str, artifact: Artifact, known: dict[str, Origin]) -> Origin:
    """Return an artifact as an origin. known: the origins found so far, by address, since many artifacts share an input."""
    if artifact.uri not in known:
        known[artifact.uri] = Origin("", artifact.uri, artifact.digest)  # ends a circle of manifests that name each other
        inputs = tuple(_input(artifact, reference, known) for reference in references(artifact.manifest))
        known[artifact.uri] = Origin("", artifact.uri, artifact.digest, artifact=artifact, inputs=inputs)
    found = known[artifact.uri]
    return Origin(role, found.uri, found.digest, artifact=artifact, inputs=found.inputs)


def _input(artifact: Artifact, reference: Reference, known: dict[str, Origin]) -> Origin:
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
                    return _origin(role, found, known)
                changed = True
        except (InputError, RunError) as error:
            reason = str(error)
    state: State = "changed" if changed else "silent" if reason else "gone"
    return Origin(role, uri, digest, state, note=reason)
