"""The segments of an index: which artifacts hold its photos, in which order, and which of these are deleted.

An index that was never grown is one segment: its own vectors.npy and items.parquet. A grown one names the artifacts that hold the
segments before its own as the inputs `segments`, oldest first, and may have `tombstones.parquet`: the rows, counted over all
segments, of photos that are deleted. It has a segment of its own unless it only deletes. A segment's artifact names exactly the
segments before it in turn, so that no chain of references is followed, and none can be a circle. What is about the whole index,
such as its encoder, lies in the first segment alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from zsbir.base import limits
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.manifest import Reference, parts
from zsbir.base.parquet import read_table

VECTORS, ITEMS, TOMBSTONES = "vectors.npy", "items.parquet", "tombstones.parquet"
GRAPH = "graph.safetensors"
ENCODER, EXAMPLES = "encoder.safetensors", "examples.parquet"
OWN_FILES = frozenset({VECTORS, ITEMS, TOMBSTONES, GRAPH, "passed_over.parquet"})
"""Files that are about a segment's own photos. Others of the first segment, such as the encoder, are about the whole index."""

TOMBSTONES_SCHEMA = pa.schema([("row", pa.int64())])


@dataclass(frozen=True)
class Segment:
    """Photos of an index: the artifact that holds them, and how many it says that its files have, deleted ones included.

    photos: None where it does not say.
    """

    artifact: Artifact
    photos: int | None


@dataclass(frozen=True)
class Segments:
    """The photos of an index, by segment, oldest first. deleted: rows over all of them, ascending."""

    parts: tuple[Segment, ...]
    deleted: Int64[np.ndarray, "m"]

    def alive(self, total: int) -> Bool[np.ndarray, "n"] | None:
        """Return which photos are not deleted; None where all are left. total: the photos of all segments."""
        if not len(self.deleted):
            return None
        alive = np.ones(total, bool)
        alive[self.deleted] = False
        return alive


def is_flipped(index: Artifact) -> bool:
    """Return whether an index holds the mean of each photo's embedding and that of its mirror image.

    Raises InputError where its manifest says neither yes nor no.
    """
    said = index.manifest.config.get("flip", False)
    if not isinstance(said, bool):
        raise InputError(f"{index.uri} does not say whether its photos were embedded by both views: flip is {str(said)[:100]!r}")
    return said


def segments_of(index: Artifact) -> Segments:
    """Return the segments of an index.

    Raises InputError, which names the index, where one is missing, has changed, belongs to another index or another run, and where
    the numbers of photos do not add up.
    """
    named = parts(index.manifest)
    if not named:
        return Segments((Segment(index, index.manifest.counts.get("photos")),), np.zeros(0, np.int64))
    if len(named) > limits.INDEX_SEGMENTS:
        raise InputError(f"{index.uri} has {len(named)} segments, more than the {limits.INDEX_SEGMENTS} allowed")
    found, before = [], 0
    for number, reference in enumerate(named):
        part = index.input(reference.role, "index")
        _check_belongs(index, part, named[:number])
        photos = _own_photos(part)
        found.append(Segment(part, photos))
        before += photos
    own, deleted = _own_photos(index), _deleted(index, before)
    if own:
        found.append(Segment(index, own))
    if before + own > limits.INDEX_PHOTOS or before + own - len(deleted) != index.manifest.counts["photos"]:
        raise InputError(
            f"{index.uri} says that it has {index.manifest.counts['photos']} photos, but its segments hold {before + own}, of which"
            f" {len(deleted)} are deleted: make the index again"
        )
    return Segments(tuple(found), deleted)


def index_file(index: Artifact, name: str) -> Path:
    """Return a checked local path of a file that is about the whole index, such as encoder.safetensors.

    It lies in the index itself or in its first segment. Raises InputError where it is in neither.
    """
    return holder_of(index, name).verified(name)


def holder_of(index: Artifact, name: str) -> Artifact:
    """Return the artifact in which a file about the whole index lies: the index itself, or its first segment."""
    named = parts(index.manifest)
    return index if name in index.manifest.files or not named else index.input(named[0].role, "index")


def _own_photos(index: Artifact) -> int:
    """Return how many photos an index's own files hold; in one that was never grown, all that it has."""
    own = index.manifest.counts["own_photos" if parts(index.manifest) else "photos"]
    if not 0 <= own <= limits.INDEX_PHOTOS:
        raise InputError(f"{index.uri} says that its own files hold {own} photos: make the index again")
    return own


def _check_belongs(index: Artifact, part: Artifact, before: list[Reference]) -> None:
    if part.manifest.named("run").digest != index.manifest.named("run").digest:
        raise InputError(f"{index.uri} names {part.uri} as a segment, which was made by another run")
    if [found.digest for found in parts(part.manifest)] != [found.digest for found in before]:
        raise InputError(f"{index.uri} names {part.uri} as a segment, which belongs to other segments")


def _deleted(index: Artifact, before: int) -> Int64[np.ndarray, "m"]:
    """Return the deleted rows, checked. before: photos in the segments before the index's own, which alone may be deleted."""
    if TOMBSTONES not in index.manifest.files:
        return np.zeros(0, np.int64)
    where = index.address(TOMBSTONES)
    rows: np.ndarray = read_table(index.verified(TOMBSTONES), {"row": pa.int64()}, where)["row"].to_numpy()
    if len(rows) and not (rows[0] >= 0 and rows[-1] < before and (np.diff(rows) > 0).all()):
        raise InputError(
            f"{where} does not name rows of the {before} photos before it, each once and in order: make the index again"
        )
    return rows
