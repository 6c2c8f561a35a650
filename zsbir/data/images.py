"""Images from bytes: safe decoding, encoding, and the one evaluation transform.

Legend of shapes: 3 = red, green, blue; s = `size_px`. Arrays are uint8, channels first.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from zsbir.base.filetypes import what_is

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that are read. Every other decoder of Pillow stays unused, since each is an attack surface for hostile files."""

MAX_PIXELS = 50_000_000
BLANK_SPREAD = 4
"""Grey levels between the lightest and the darkest pixel at or below which an image shows nothing."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"tRNS", b"acTL", b"fcTL", b"fdAT"})
"""Ancillary chunks of a PNG that change its pixels."""

_DARK = 96
"""Brightness below which the ground of a sketch is dark: paper is above 128 even in a badly lit photo of it."""
_ORIENTATION = 0x0112
_WHITE = (255, 255, 255)
# Pillow's decoders raise nearly anything on a damaged file; all of it means the same here: a bad image, named in quarantine.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
_STARTS = {
    b"\xff\xd8": "JPEG",
    _PNG_START: "PNG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
"""The first bytes of each format that is read."""
_BOMB_ERRORS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


Made = TypeVar("Made")


class BadImage(Exception):  # noqa: N818 - the name says what it is; the message is the reason
    """Raised for bytes that are not a usable image. The message is the reason, in one line."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the bytes of a file to an 8-bit RGB image, upright, with transparency flattened on white. Thread-safe.

    Raises BadImage for bytes that are damaged, of an unknown format, or larger than `max_pixels` by their header.
    """
    image = _decode(data, max_pixels)
    return image if image.mode == "RGB" else image.convert("RGB")


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image by its header and check what the header says; no pixel is decoded yet. Raises BadImage."""
    image = _open(data)
    width, height = image.size
    if width < 1 or height < 1:
        raise BadImage(f"the header gives a size of {width} x {height}")
    if width * height > max_pixels:
        raise BadImage(f"{width} x {height} = {width * height} pixels, more than the {max_pixels} allowed")
    return image


def finish(image: Image.Image) -> Image.Image:
    """Decode an opened image as `decode` does, except that a grey one stays grey ("L"), which is a third of the work.

    Raises BadImage.
    """
    try:
        image.load()
        if orientation(image) in range(2, 9):
            image = ImageOps.exif_transpose(image)
        return _eight_bit(image)
    except _BOMB_ERRORS as error:
        raise BadImage(f"decompression bomb: {error}") from None
    except _DECODER_ERRORS as error:
        raise BadImage(f"damaged: {_one_line(error)}") from None


def orientation(image: Image.Image) -> object:
    """Return the orientation tag of EXIF or XMP: 2 to 8 for turned images, 0 or 1 for upright ones, anything in a bad file.

    An image whose metadata cannot be read is shown as it is.
    """
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except _DECODER_ERRORS:
        return 1


def without_metadata(data: bytes) -> bytes:
    """Return a PNG without the chunks that say nothing about its pixels; other files, and PNGs without such chunks, as they are.

    Pillow refuses a whole image for a colour profile or a text of more than a megabyte, or for a wrong checksum of a chunk that no
    reader needs. Unlike the pixels' own, such a chunk may be left out (PNG specification, section 5.4: ancillary chunks).
    """
    if not data.startswith(_PNG_START):
        return data
    kept, at = [_PNG_START], len(_PNG_START)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        is_ancillary = bool(kind[0] & 0x20)
        whole = end <= len(data) and zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
        if not is_ancillary or kind in _PNG_KEPT or (kind == b"eXIf" and whole):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def is_inverted(image: Image.Image) -> bool:
    """Return whether a sketch (grey or RGB) is drawn in light strokes on a dark ground: most of its area is dark."""
    small = image.convert("L").resize((32, 32), Image.Resampling.BOX)
    return bool(np.median(np.asarray(small)) < _DARK)


def is_blank(image: Image.Image) -> bool:
    """Return whether the image (grey or RGB) is all one colour, such as an empty sheet."""
    return not differs(image, BLANK_SPREAD)


def differs(image: Image.Image, levels: int) -> bool:
    """Return whether two pixels of the image (grey or RGB) lie more than `levels` apart in a channel.

    A sample of pixels answers that for nearly every image; all are read only where the sample does not.
    """
    few = image.resize((16, 16), Image.Resampling.NEAREST)
    return any(_spread(band) > levels for part in (few, image) for band in part.split())


def _spread(band: Image.Image) -> int:
    darkest, brightest = cast("tuple[int, int]", band.getextrema())
    return brightest - darkest


def eval_image(data: bytes, size_px: int) -> UInt8[np.ndarray, "3 s s"]:
    """Decode the bytes and apply `eval_array`. Raises BadImage."""
    return eval_array(_decode(data, MAX_PIXELS), size_px)


def eval_array(image: Image.Image, size_px: int) -> UInt8[np.ndarray, "3 s s"]:
    """Squeeze the whole image to `size_px` square by antialiased bilinear interpolation: the only evaluation transform there is.

    It serves both domains, in validation during training, evaluation, indexing and search.
    """
    return channels_first(image.resize((size_px, size_px), Image.Resampling.BILINEAR))


def channels_first(image: Image.Image) -> UInt8[np.ndarray, "3 s s"]:
    """Return the pixels with their channels in front; a grey image is repeated three times."""
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return np.repeat(pixels[None], 3, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def encode_photo(image: Image.Image) -> bytes:
    """Encode as JPEG, quality 95, without chroma subsampling."""
    return _encoded(image, "JPEG", quality=95, subsampling=0)


def encode_sketch(image: Image.Image) -> bytes:
    """Encode as PNG, with a single grey channel where there is no colour."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all():
        image = image.getchannel(0)
    return _encoded(image, "PNG", compress_level=6)


def _encoded(image: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _decode(data: bytes, max_pixels: int) -> Image.Image:
    return tolerant(data, lambda read: finish(open_image(read, max_pixels)))


def tolerant(data: bytes, use: Callable[[bytes], Made]) -> Made:
    """Return `use(data)`; where that raises BadImage, try once more without metadata, if there is any.

    Raises BadImage with the reason of the last try.
    """
    try:
        return use(data)
    except BadImage:
        plain = without_metadata(data)
        if len(plain) == len(data):
            raise
    return use(plain)


def _open(data: bytes) -> Image.Image:
    if not data:
        raise BadImage("the file has zero bytes")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except _BOMB_ERRORS as error:
        raise BadImage(f"decompression bomb: {_one_line(error)}") from None
    except _DECODER_ERRORS:
        raise BadImage(_why_not_opened(data)) from None


def _why_not_opened(data: bytes) -> str:
    """Return what the file is if it is no image that can be read; else what its decoder says, which Pillow's `open` hides."""
    form = next((form for start, form in _STARTS.items() if data.startswith(start)), None)
    what = what_is(data)
    if form is None or what:
        return what or f"no readable image header, not one of {', '.join(FORMATS)}"
    try:
        Image.OPEN[form][0](io.BytesIO(data), "")
    except _BOMB_ERRORS as error:
        return f"decompression bomb: {_one_line(error)}"
    except (struct.error, LookupError):
        return f"damaged {form} file: it ends too early"
    except _DECODER_ERRORS as error:
        return f"damaged {form} file: {_one_line(error)}"
    return f"damaged {form} file"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _eight_bit(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to "L" or "RGB"."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_scaled(np.asarray(image)))
    if image.has_transparency_data:
        flat = Image.new("RGB", image.size, _WHITE)
        layer = image.convert("RGBA")
        flat.paste(layer, mask=layer.getchannel("A"))
        return flat
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _scaled(values: np.ndarray) -> np.ndarray:
    """Scale deep grey values to 8 bit, by the range of the file's own type where it has one (16 bit), else by the values."""
    top = float(values.max(initial=0))
    if not math.isfinite(top):
        raise ValueError("pixel values that are not finite numbers")
    full = 65535.0 if values.dtype.itemsize == 2 or 255 < top <= 65535 else 1.0 if 0 < top <= 1 else max(top, 255.0)
    return np.asarray(np.clip(values.astype(np.float32) * (255.0 / full), 0, 255) + 0.5).astype(np.uint8)
