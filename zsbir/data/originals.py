"""The photos that an index was made of, read where its galleries still are: a folder, or a data set's shards."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from zsbir.base import limits
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.manifest import references
from zsbir.base.storage import open_folder
from zsbir.base.text import clean

GALLERY, MORE_GALLERIES = "gallery", "more_galleries"
FOLDER, DATASET = "folder", "dataset"


class NoOriginal(InputError):  # noqa: N818 - it describes the photo
    """A photo of an index is gone from its gallery, or cannot be read there any more."""


@dataclass(frozen=True)
class Source:
    """A gallery that photos of an index come from. kind: FOLDER or DATASET. role: its name among the manifest's inputs."""

    kind: str
    uri: str
    digest: str
    role: str = ""

    @property
    def folder(self) -> str:
        """The address of the folder; "" for a data set."""
        return self.uri if self.kind == FOLDER else ""


def sources_of(segment: Artifact) -> list[Source]:
    """Return the galleries of the photos in an index's own files; rows name them by their place in this list."""
    manifest = segment.manifest
    found = [reference for reference in references(manifest) if reference.role.partition(".")[0] in (GALLERY, MORE_GALLERIES)]
    usual = FOLDER if manifest.config["gallery"] else DATASET
    entries = [manifest.inputs.get(GALLERY), *(manifest.inputs.get(MORE_GALLERIES) or ())]
    if len(found) != len(entries):
        raise InputError(f"{segment.uri} does not say where its photos come from: make the index again")
    kinds = [str(entry.get("kind", usual)) for entry in entries if isinstance(entry, Mapping)]
    if not {FOLDER, DATASET}.issuperset(kinds):
        raise InputError(f"{segment.uri} has photos from something that is neither a folder nor a data set: make the index again")
    return [Source(kind, each.uri, each.digest, each.role) for kind, each in zip(kinds, found, strict=True)]


def inputs_of(sources: Sequence[Source]) -> dict[str, Any]:
    """Return galleries as the manifest of an index names them: the opposite of `sources_of`."""
    values = [{"uri": source.uri, "digest": source.digest, "kind": source.kind} for source in sources]
    return {GALLERY: values[0], **({MORE_GALLERIES: values[1:]} if values[1:] else {})}


class Originals:
    """Reads photos of one segment by gallery and path. Thread-safe."""

    def __init__(self, segment: Artifact):
        self._segment = segment
        self._data: dict[int, Any] = {}
        self._lock = threading.Lock()

    @cached_property
    def sources(self) -> list[Source]:
        """The galleries of the segment's photos, as `sources_of` returns them."""
        return sources_of(self._segment)

    def read(self, source: int, path: str) -> bytes:
        """Return the encoded bytes of a photo. source: its gallery's place in `sources`.

        Raises NoOriginal where it is gone or cannot be read, and another InputError where its data set is gone, it leads out of its
        folder, or it has more than `limits.ORIGINAL_BYTES`.
        """
        if not 0 <= source < len(self.sources):
            raise InputError(f"{self._segment.uri} has no gallery {source}")
        gallery = self.sources[source]
        try:
            return self._from_dataset(source, path) if gallery.kind == DATASET else _from_folder(gallery.uri, path)
        except OSError as error:
            reason = "it is gone" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            raise NoOriginal(f"the photo {clean(path[:300])!r} of {gallery.uri} cannot be read: {reason}") from None

    def _from_dataset(self, source: int, path: str) -> bytes:
        with self._lock:
            if source not in self._data:
                self._data[source] = _photos_of(self._segment.input(self.sources[source].role, "dataset"))
        images, positions = self._data[source]
        if path not in positions:
            raise FileNotFoundError
        data: bytes = images.read(positions[path])
        return data


def _from_folder(uri: str, path: str) -> bytes:
    folder = open_folder(uri)
    if folder.leads_out(path):
        raise InputError(f"the photo {clean(path[:300])!r} of {uri} is a link that leads out of the folder")
    return folder.read(path, limits.ORIGINAL_BYTES)


def _photos_of(dataset: Artifact) -> tuple[Any, dict[str, int]]:
    """Return the images of a data set, and the position of each of its photos by path."""
    from zsbir.data.samples import load_samples
    from zsbir.data.shards import Images

    samples = load_samples(dataset)
    positions = samples.select(domain="photo")
    return Images(dataset, samples), dict(zip(samples.path[positions].tolist(), positions.tolist(), strict=True))
