"""The photos of an index: those of a data set, or every image below a folder of the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.domains import SPLITS
from zsbir.data.images import BadImage, decode, encode_photo, eval_array
from zsbir.data.loader import default_threads
from zsbir.data.names import IMAGE_SUFFIXES
from zsbir.data.passed_over import PassedOver
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.data.trees import open_tree

if TYPE_CHECKING:
    from zsbir.base.storage import Folder

THUMBNAIL_PX = 128
"""Longest side of the pictures kept in an index, which can so show its results without the photos."""
_THREADS_REMOTE = 16


@dataclass(frozen=True)
class Item:
    """One photo of a gallery: where it came from, its class where known, a small JPEG, and its pixels as the encoder takes them."""

    path: str
    class_name: str
    thumbnail: bytes
    pixels: UInt8[np.ndarray, "3 h w"]


@dataclass(frozen=True)
class Unreadable:
    """A photo of a gallery that cannot be read: its path, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Gallery:
    """A source of photos: path and class name of each, and where its encoded bytes are read."""

    entries: list[tuple[str, str]]
    dataset_images: Images | None = None
    positions: tuple[int, ...] = ()
    folder: Folder | None = None
    stamps: tuple[tuple[str, int, int], ...] = ()
    """For a folder: path, size in bytes and time of change (ns) of each photo, which show a changed gallery without reading it."""

    def read(self, number: int) -> bytes:
        """Return the encoded bytes of photo `number`. Thread-safe."""
        if self.dataset_images is not None:
            return self.dataset_images.read(self.positions[number])
        assert self.folder is not None
        return self.folder.read(self.entries[number][0])

    def items(self, image_px: int) -> Iterator[Item | Unreadable]:
        """Yield every photo in order, decoded by threads; an Unreadable stands for one that cannot be read."""

        def item(number: int) -> Item | Unreadable:
            path, class_name = self.entries[number]
            try:
                image = decode(self.read(number))
            except BadImage as error:
                return Unreadable(path, str(error))
            except OSError as error:
                return Unreadable(path, f"cannot be read: {error.strerror or error}")
            return Item(path, class_name, thumbnail(image), eval_array(image, image_px))

        if self.dataset_images is not None:
            self.dataset_images.prefetch(np.array(self.positions))
        numbers = iter(range(len(self.entries)))
        with ThreadPoolExecutor(self._threads()) as pool:
            # In pieces, since `map` would decode the whole gallery ahead of its reader.
            while piece := list(islice(numbers, 256)):
                yield from pool.map(item, piece)

    def _threads(self) -> int:
        """Return how many threads read: more than there are cores where requests to object storage wait."""
        remote = self.folder is not None and self.folder.local() is None
        return max(_THREADS_REMOTE, default_threads()) if remote else default_threads()


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
    return Gallery(entries, Images(dataset, samples), tuple(positions.tolist()))


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
    return Gallery([(path, "") for path in found], folder=folder, stamps=tuple((path, *tree.stamp(path)) for path in found))
