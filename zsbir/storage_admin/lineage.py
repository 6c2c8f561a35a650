"""What an artifact was made from, up to the images: read from the manifests, whose inputs point backwards only."""

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
"""Weights are single files, called by their checksum."""


@dataclass(frozen=True)
class Reference:
    """What a manifest says of one input."""

    role: str
    uri: str
    digest: str


@dataclass(frozen=True)
class Origin:
    """An artifact or a weight file, and what it was made from.

    uri: where it was found, else where it should be. artifact: None for weight files, and for what is not there.
    state: changed: another one lies there by now; silent: its store does not answer; outside: a folder of no storage root.
    note: the reason of a silent one.
    """

    role: str
    uri: str
    digest: str
    state: State = "there"
    artifact: Artifact | None = None
    note: str = ""
    inputs: tuple[Origin, ...] = ()

    def walk(self) -> Iterator[Origin]:
        """Itself and all below, inputs before what was made from them."""
        for origin in self.inputs:
            yield from origin.walk()
        yield self


def references(manifest: Manifest) -> list[Reference]:
    """The inputs that a manifest names, by role."""
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
    """Whether `uri` is that of a kept weight file."""
    return WEIGHT_FILE.search(uri) is not None


def weight_sha256(uri: str) -> str:
    """The checksum that a weight file's name promises."""
    found = WEIGHT_FILE.search(uri)
    if found is None:
        raise InputError(f"{uri} is no weight file of a storage root (weights/<sha256>.safetensors)")
    return found[1]


def lineage(artifact: Artifact) -> Origin:
    """All that an artifact was made from, as far as it can be found."""
    return _origin("", artifact, {})


def _origin(role: str, artifact: Artifact, known: dict[str, Origin]) -> Origin:
    """known: what was found already, by address: a data set is an input of many."""
    if artifact.uri not in known:
        known[artifact.uri] = Origin("", artifact.uri, artifact.digest)  # manifests that name each other end here
        inputs = tuple(_input(artifact, reference, known) for reference in references(artifact.manifest))
        known[artifact.uri] = Origin("", artifact.uri, artifact.digest, artifact=artifact, inputs=inputs)
    found = known[artifact.uri]
    return Origin(role, found.uri, found.digest, artifact=artifact, inputs=found.inputs)


def _input(artifact: Artifact, reference: Reference, known: dict[str, Origin]) -> Origin:
    """The input at its own root first: after a copy it lies there, and where it came from need not answer any more."""
    role, uri, digest = reference.role, reference.uri, reference.digest
    if not lies_in_root(uri):
        return Origin(role, uri, digest, "outside")
    changed, reason = False, ""
    for folder in dict.fromkeys([join(root_of(artifact.uri), below_root(uri)), uri]):
        try:
            if is_weight_file(folder):
                parent, name = split_file(folder)
                if parent.size(name) is not None:
                    return Origin(role, folder, digest)
            elif exists(folder):
                found = Artifact(folder)
                if found.digest == digest:
                    return _origin(role, found, known)
                changed = True
        except (InputError, RunError) as error:
            reason = str(error)
    state: State = "changed" if changed else "silent" if reason else "gone"
    return Origin(role, uri, digest, state, note=reason)
