"""Images from bytes: safe decoding, encoding, and the one evaluation transform.

Legend of shapes: 3 = red, green, blue; s = `size_px`. Arrays are uint8, channels first.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What is read. Every other decoder of Pillow stays shut: each is a door for hostile files."""

MAX_PIXELS = 50_000_000
BLANK_SPREAD = 4
"""Grey levels between the lightest and the darkest pixel at or below which an image shows nothing."""

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
_BOMB_ERRORS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class BadImage(Exception):  # noqa: N818 - the name says what it is; the message is the reason
    """Bytes that are no usable image. The message is the reason, in one line."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An 8-bit RGB image from the bytes of a file, upright, transparency flattened on white. Safe in threads.

    Raises BadImage for what is damaged, of an unknown format, or larger than `max_pixels` by its header.
    """
    image = _decode(data, max_pixels)
    return image if image.mode == "RGB" else image.convert("RGB")


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image by its header, checked as far as that tells: nothing is decoded yet. Raises BadImage."""
    image = _open(data)
    width, height = image.size
    if width < 1 or height < 1:
        raise BadImage(f"the header gives a size of {width} x {height}")
    if width * height > max_pixels:
        raise BadImage(f"{width} x {height} = {width * height} pixels, more than the {max_pixels} allowed")
    return image


def finish(image: Image.Image) -> Image.Image:
    """An opened image decoded to its end, as `decode` gives it, but grey ones stay grey ("L"): a third of the work for sketches.

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
    """What EXIF or XMP say of how the image is to be turned: 2 to 8, or 1 and 0 for upright; in a bad file anything."""
    return image.getexif().get(_ORIENTATION, 1)


def is_blank(image: Image.Image) -> bool:
    """Whether the image (grey or RGB) shows nothing: all one colour, such as an empty sheet."""
    return not differs(image, BLANK_SPREAD)


def differs(image: Image.Image, levels: int) -> bool:
    """Whether two pixels of the image (grey or RGB) lie more than `levels` apart in a channel.

    A few of its pixels tell it of nearly every image; all of them are looked at where those do not.
    """
    few = image.resize((16, 16), Image.Resampling.NEAREST)
    return any(_spread(band) > levels for part in (few, image) for band in part.split())


def _spread(band: Image.Image) -> int:
    darkest, brightest = cast("tuple[int, int]", band.getextrema())
    return brightest - darkest


def eval_image(data: bytes, size_px: int) -> UInt8[np.ndarray, "3 s s"]:
    """`eval_array` of encoded bytes. Raises BadImage."""
    return eval_array(_decode(data, MAX_PIXELS), size_px)


def eval_array(image: Image.Image, size_px: int) -> UInt8[np.ndarray, "3 s s"]:
    """THE evaluation transform: the whole image, squeezed to `size_px` square with antialiased bilinear interpolation.

    Both domains, at training's validation, evaluation, index and search alike.
    """
    return channels_first(image.resize((size_px, size_px), Image.Resampling.BILINEAR))


def channels_first(image: Image.Image) -> UInt8[np.ndarray, "3 s s"]:
    """Return the pixels with their channels in front; a grey image is repeated three times."""
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return np.repeat(pixels[None], 3, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def encode_photo(image: Image.Image) -> bytes:
    """JPEG, quality 95, colours not subsampled."""
    return _encoded(image, "JPEG", quality=95, subsampling=0)


def encode_sketch(image: Image.Image) -> bytes:
    """PNG: one grey channel where there is no colour."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all():
        image = image.getchannel(0)
    return _encoded(image, "PNG", compress_level=6)


def _encoded(image: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _decode(data: bytes, max_pixels: int) -> Image.Image:
    return finish(open_image(data, max_pixels))


def _open(data: bytes) -> Image.Image:
    if not data:
        raise BadImage("the file has zero bytes")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except _BOMB_ERRORS as error:
        raise BadImage(f"decompression bomb: {_one_line(error)}") from None
    except _DECODER_ERRORS:
        raise BadImage(_what_else(data)) from None


def _what_else(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    readable = f"not one of {', '.join(FORMATS)}"
    if b"<svg" in head:
        return f"an SVG drawing, {readable}"
    if head.startswith((b"<!doctype html", b"<html")):
        return f"a web page, {readable}"
    return f"no readable image header, {readable}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _eight_bit(image: Image.Image) -> Image.Image:
    """Any mode as "L" or "RGB"."""
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
    """Deep grey values as 8 bit. The range is the file's own type where it has one (16 bit), else what the values need."""
    top = float(values.max(initial=0))
    if not math.isfinite(top):
        raise ValueError("pixel values that are no finite numbers")
    full = 65535.0 if values.dtype.itemsize == 2 or 255 < top <= 65535 else 1.0 if 0 < top <= 1 else max(top, 255.0)
    return np.asarray(np.clip(values.astype(np.float32) * (255.0 / full), 0, 255) + 0.5).astype(np.uint8)
