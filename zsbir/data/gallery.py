"""The photos of an index: those of a data set, or every image below a folder of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from zsbir.base import limits
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.folder import TooLarge
from zsbir.data.domains import SPLITS
from zsbir.data.images import BadImage, decode, encode_photo, eval_array
from zsbir.data.loader import default_threads
from zsbir.data.names import IMAGE_SUFFIXES
from zsbir.data.passed_over import PassedOver
from zsbir.data.samples import Samples, load_samples
from zsbir.data.shards import Images
from zsbir.data.trees import open_tree

if TYPE_CHECKING:
    from zsbir.base.storage import Folder

THUMBNAIL_PX = 128
"""Longest side of the pictures kept in an index, which can so show its results without the photos."""
_THREADS_REMOTE = 16


@dataclass(frozen=True)
class Item:
    """One photo of a gallery: where it came from, a small JPEG, and its pixels as the encoder takes them."""

    path: str
    thumbnail: bytes
    pixels: UInt8[np.ndarray, "3 h w"]


@dataclass(frozen=True)
class Unreadable:
    """A photo of a gallery that cannot be read: its path, and why."""

    path: str
    reason: str


class FolderSource:
    """Reads photos of a folder by path. It can be sent to other processes."""

    def __init__(self, folder: Folder):
        self.folder = folder

    @property
    def threads(self) -> int:
        """How many threads read: more than there are cores where requests to object storage wait."""
        return max(_THREADS_REMOTE, default_threads()) if self.folder.local() is None else default_threads()

    def read(self, path: str, _position: int) -> bytes:
        """Return the encoded bytes of a photo. Raises OSError and InputError where it cannot be read. Thread-safe."""
        return self.folder.read(path, limits.ORIGINAL_BYTES)

    def prefetch(self, positions: Sequence[int]) -> None:
        """Do nothing: photos are read one by one."""


class DatasetSource:
    """Reads photos of a data set by their positions in its sample table. Another process to which it is sent opens it anew."""

    threads = property(lambda _: default_threads())

    def __init__(self, dataset_uri: str, samples: Samples | None = None):
        self._uri = dataset_uri
        dataset = Artifact(dataset_uri, "dataset")
        self.images = Images(dataset, load_samples(dataset) if samples is None else samples)

    def __reduce__(self) -> tuple[type[DatasetSource], tuple[str]]:
        return DatasetSource, (self._uri,)

    def read(self, _path: str, position: int) -> bytes:
        """Return the encoded bytes of a photo. Raises InputError where its shard is missing or damaged. Thread-safe."""
        return self.images.read(position)

    def prefetch(self, positions: Sequence[int]) -> None:
        """Fetch what these photos lie in, in the background."""
        self.images.prefetch(np.array(positions, np.int64))


PhotoSource = FolderSource | DatasetSource


def read_item(source: PhotoSource, path: str, position: int, image_px: int) -> Item | Unreadable:
    """Return one photo of a source, decoded; an Unreadable where that cannot be done."""
    try:
        image = decode(source.read(path, position))
    except (BadImage, TooLarge) as error:
        return Unreadable(path, str(error))
    except OSError as error:
        return Unreadable(path, f"cannot be read: {error.strerror or error}")
    return Item(path, thumbnail(image), eval_array(image, image_px))


@dataclass(frozen=True)
class Gallery:
    """Photos to index: path and class name of each, for a data set its position in the sample table, and where they are read."""

    entries: list[tuple[str, str]]
    source: PhotoSource
    positions: tuple[int, ...] = ()
    stamps: tuple[tuple[str, int, int], ...] = ()
    """For a folder: path, size in bytes and time of change (ns) of each photo, which show a changed gallery without reading it."""

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.entries)

    def chosen(self, numbers: Sequence[int]) -> Gallery:
        """Return a gallery of some of the photos, in the order of `numbers`."""
        return Gallery(
            [self.entries[number] for number in numbers],
            self.source,
            positions=tuple(self.positions[number] for number in numbers) if self.positions else (),
            stamps=tuple(self.stamps[number] for number in numbers) if self.stamps else (),
        )


def thumbnail(image: Image.Image) -> bytes:
    """Return the image as a small JPEG."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BICUBIC)
    return encode_photo(small)


def dataset_gallery(dataset: Artifact, split: str) -> Gallery:
    """Return the photos of one split of a data set, or of `all`. Raises InputError for an unknown or empty split."""
    if split != "all" and split not in SPLITS:
        raise InputError(f"split must be all, {', '.join(SPLITS)}, got {split!r}")
    samples = load_samples(dataset)
    positions = samples.select(split=None if split == "all" else split, domain="photo")
    if not len(positions):
        raise InputError(f"{dataset.uri} has no photos of split {split!r}")
    names = [samples.class_names[class_id] for class_id in samples.class_id[positions]]
    entries = list(zip(samples.path[positions].tolist(), names, strict=True))
    return Gallery(entries, DatasetSource(dataset.uri, samples), tuple(positions.tolist()))


def folder_gallery(uri: str | Path, passed: PassedOver | None = None) -> Gallery:
    """Return every image below a folder (a path or an `s3://` URI), by path. What is passed over is noted in `passed`.

    Hidden files, those that an operating system or a network drive put there, and links that lead out of the folder are no photos.
    Raises InputError where there is no folder, or no image in it.
    """
    tree = open_tree(uri)
    folder = tree.folder
    if not tree.has_folder(""):
        raise InputError(f"no folder at {folder.uri!r}")
    passed = PassedOver() if passed is None else passed
    tree.note_odd_keys(passed)
    found = tree.below(IMAGE_SUFFIXES, passed)
    if not found:
        why = "; ".join(f"{fact['count']} passed over: {fact['reason']}" for fact in passed.facts())
        raise InputError(f"no images below {folder.uri!r} ({', '.join(sorted(IMAGE_SUFFIXES))}){f'; {why}' if why else ''}")
    stamps = tuple((path, *tree.stamp(path)) for path in found)
    return Gallery([(path, "") for path in found], FolderSource(folder), stamps=stamps)
