"""From files to what a shard stores: each file read, checked to its last byte and brought into the stored form, in threads.

Most photos are upright and small enough, so their own bytes are stored, and pixels are decoded only for the check. For those
the brightness alone is decoded, which finds the same damage without the work on colours; where it cannot decide, the image is
decoded in full. Verdicts and bytes are always those of the full decode.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from zsbir.data.images import (
    BadImage,
    differs,
    encode_photo,
    encode_sketch,
    finish,
    is_blank,
    is_inverted,
    open_image,
    orientation,
    tolerant,
)

if TYPE_CHECKING:
    from zsbir.base.storage import Folder
    from zsbir.data.trees import Tree

MAX_FILE_BYTES = 100_000_000

_RUN = 8
"""Images a thread prepares in one go: handing over each one alone costs as much as its header."""
_RUNS_WAITING = 2
"""Runs a worker may be ahead of the reader, the one it works on included."""

_BRIGHTNESS_PROOF = 90
"""Levels of brightness (Y of YCbCr) between two pixels that make their colours differ, whatever their Cb and Cr.

Colours are clipped to 0..255, so one colour can come of several Y: two that differ by BLANK_SPREAD or less in red, green and
blue are at most 83 apart in Y (a test tries them all). The rest is room for rounding.
"""
_USUAL_SAMPLING = {((across, down), (1, 1), (1, 1)) for across in (1, 2) for down in (1, 2)}
"""Sampling of colour JPEGs: brightness in full, both colour channels in full or halved. Others may fail in their colours alone."""


@runtime_checkable
class Source(Protocol):
    """An image that can be packed: a file, a drawing of strokes, a toy."""

    @property
    def path(self) -> str:
        """The path relative to the data set's root."""

    @property
    def domain(self) -> str:
        """The domain, `photo` or `sketch`."""

    @property
    def class_name(self) -> str:
        """The class, in the data set's spelling."""

    @property
    def split_hint(self) -> str | None:
        """The side of the split, `seen` or `unseen`, where the data set itself names it."""

    def read(self, folder: Folder) -> bytes:
        """Return the bytes of the image. Raises OSError or BadImage."""

    def stamp(self, tree: Tree) -> Sequence[int]:
        """Return what changes when the source changes, without reading it."""


class Stored(NamedTuple):
    """The bytes of a good image for a shard, and its size in pixels. inverted: a sketch that came light on a dark ground."""

    data: bytes
    width: int
    height: int
    inverted: bool = False


@dataclass(frozen=True)
class Form:
    """How images are stored. short_side_px: larger ones are reduced to it, 0 keeps every size; invert: light sketches turn dark."""

    short_side_px: int
    invert: bool = False


@dataclass(frozen=True)
class Packed:
    """A good image as it goes into a shard."""

    data: bytes
    width: int
    height: int
    sha256: str
    inverted: bool = False


@dataclass(frozen=True)
class Refused:
    """The reason why an image does not go into a shard."""

    reason: str


def prepare_all(sources: Sequence[Source], folder: Folder, form: Form, workers: int) -> Iterator[Packed | Refused]:
    """Yield `prepare` of every source, in order, computed by threads, since decoding releases the interpreter lock.

    A few images a worker wait in memory. When the reader stops, each thread finishes its current image and ends.
    """
    stop = threading.Event()

    def run(part: Sequence[Source]) -> list[Packed | Refused]:
        return [prepare(source, folder, form) for source in part if not stop.is_set()]

    pool = ThreadPoolExecutor(workers, thread_name_prefix="ingest")
    waiting: deque[Future[list[Packed | Refused]]] = deque()
    try:
        for start in range(0, len(sources), _RUN):
            waiting.append(pool.submit(run, sources[start : start + _RUN]))
            if len(waiting) >= workers * _RUNS_WAITING:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def prepare(source: Source, folder: Folder, form: Form) -> Packed | Refused:
    """Read and check one image and bring it into the form of shards."""
    try:
        data = source.read(folder)
        if len(data) > MAX_FILE_BYTES:
            return Refused(f"a file of {len(data)} bytes, more than the {MAX_FILE_BYTES} allowed")
        stored = stored_form(data, form.short_side_px, source.domain, invert=form.invert)
    except BadImage as error:
        return Refused(str(error))
    except OSError as error:
        return Refused(f"cannot be read: {error.strerror or error}")
    return Packed(stored.data, stored.width, stored.height, hashlib.sha256(stored.data).hexdigest(), stored.inverted)


def stored_form(data: bytes, short_side_px: int, domain: str, *, invert: bool = False) -> Stored:
    """Return bytes for a shard, with width and height: the original ones where any reader sees in them what `decode` shows.

    A short side above `short_side_px` is reduced to it; 0 keeps every size. invert: sketches of light strokes on a dark ground
    become dark on light. What must be written anew becomes JPEG (photos, quality 95) or PNG (sketches, grey where there is no
    colour). Raises BadImage for what is damaged, too large or blank.
    """
    return tolerant(data, partial(_stored_form, short_side_px=short_side_px, domain=domain, invert=invert))


def _stored_form(data: bytes, short_side_px: int, domain: str, *, invert: bool) -> Stored:
    image = open_image(data)
    plain, size = _plain(image, data), image.size
    if plain and size == _stored_size(image, short_side_px) and _is_usual_jpeg(image):
        if _surely_good(image):
            inverted = domain == "sketch" and is_inverted(image)
            if not (inverted and invert):
                return Stored(data, *size, inverted)
        image = open_image(data)
    shown = finish(image)
    if is_blank(shown):
        raise BadImage("blank: all one colour")
    size, inverted = _stored_size(shown, short_side_px), domain == "sketch" and is_inverted(shown)
    if inverted and invert:
        shown, plain = ImageOps.invert(shown), False
    if size == shown.size and plain and orientation(image) in (0, 1):
        return Stored(data, *size, inverted)
    return Stored(_written_anew(shown, size, domain), *size, inverted)


def _plain(image: Image.Image, data: bytes) -> bool:
    """Return whether the header says 8-bit grey or RGB, JPEG or PNG, opaque. To be called before the pixels are loaded."""
    deep_png = image.format == "PNG" and data[24] != 8  # the bit depth of IHDR: Pillow's mode does not tell it for RGB
    return image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB") and not deep_png and not image.has_transparency_data


def _stored_size(image: Image.Image, short_side_px: int) -> tuple[int, int]:
    short = min(image.size)
    if not short_side_px or short <= short_side_px:
        return image.size
    return round(image.width * short_side_px / short), round(image.height * short_side_px / short)


def _written_anew(image: Image.Image, size: tuple[int, int], domain: str) -> bytes:
    if domain == "photo" and image.mode != "RGB":
        image = image.convert("RGB")
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return encode_photo(image) if domain == "photo" else encode_sketch(image)


def _is_usual_jpeg(image: Image.Image) -> bool:
    """Return whether the image is a colour JPEG of a sampling that any decoder knows."""
    return isinstance(image, JpegImageFile) and tuple(layer[1:3] for layer in image.layer) in _USUAL_SAMPLING


def _surely_good(image: Image.Image) -> bool:
    """Return whether a usual JPEG is surely upright, whole and not blank, judged by its brightness alone.

    True agrees with the full decode: every coded bit is read here too, and no colours hide such differences in brightness.
    False decides nothing: the image is then used up, and the bytes have to be decoded in full.
    """
    try:
        return image.draft("L", None) is not None and orientation(image) in (0, 1) and differs(image, _BRIGHTNESS_PROOF)
    except Exception:  # noqa: BLE001 - the full decode meets the same error and explains it
        return False
