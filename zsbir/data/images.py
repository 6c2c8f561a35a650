"""Images from bytes: safe decoding, encoding, THE evaluation transform and the augmentation of training.

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
from PIL import Image, ImageDraw, ImageOps
from pydantic import Field

from zsbir.base.config import Config

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What is read. Every other decoder of Pillow stays shut: each is a door for hostile files."""

MAX_PIXELS = 50_000_000
BLANK_SPREAD = 4
"""Grey levels between the lightest and the darkest pixel at or below which an image shows nothing."""

_ORIENTATION = 0x0112
_WHITE = (255, 255, 255)
_LUMA = np.array([0.299, 0.587, 0.114])
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


class Augmentation(Config):
    """How far an augmented image may lie from the original. All zeros, and `crop_scale_min` 1, leave it as it is."""

    crop_scale_min: float = Field(0.6, gt=0, le=1, description="smallest share of the image's area that a random crop keeps")
    rotation_deg: float = Field(10, ge=0, le=180, description="largest rotation either way; shear goes to a third of it")
    flip_prob: float = Field(0.5, ge=0, le=1, description="chance of a horizontal flip")
    colour_jitter: float = Field(0.3, ge=0, lt=1, description="photos: largest relative change of brightness, contrast, saturation")
    grayscale_prob: float = Field(0.1, ge=0, le=1, description="photos: chance to lose all colour")
    stroke_width_prob: float = Field(0.3, ge=0, le=1, description="sketches: chance of thicker or thinner strokes")
    stroke_erase_prob: float = Field(0.2, ge=0, le=1, description="sketches: chance that a few pieces of stroke are missing")


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
    return _channels_first(image.resize((size_px, size_px), Image.Resampling.BILINEAR))


def augment_image(
    data: bytes, size_px: int, domain: str, rng: np.random.Generator, strength: Augmentation
) -> UInt8[np.ndarray, "3 s s"]:
    """A random variation of the image: one affine warp for both domains, then colours (photo) or strokes (sketch).

    All chance comes from `rng`: the same state gives the same pixels. Raises BadImage.
    """
    image = _decode(data, MAX_PIXELS)
    if domain == "sketch":
        return _channels_first(_vary_strokes(_warp(image, size_px, rng, strength, paper=True), rng, strength))
    return _channels_first(_vary_colours(_warp(image, size_px, rng, strength, paper=False), rng, strength))


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


def _channels_first(image: Image.Image) -> UInt8[np.ndarray, "3 s s"]:
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return np.repeat(pixels[None], 3, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _warp(image: Image.Image, size_px: int, rng: np.random.Generator, strength: Augmentation, *, paper: bool) -> Image.Image:
    """Crop, rotation, shear and flip as one affine map of the unit square that `eval_image` shows.

    The image is first resized such that the map is about 1:1 (antialiasing happens there). A sketch may also shrink, since
    its white sheet goes on; a photo is continued by reflection where a rotation looks over its edge.
    """
    largest = 2 - strength.crop_scale_min if paper else 1.0
    side = math.sqrt(rng.uniform(strength.crop_scale_min, largest))
    stretch = math.exp(rng.uniform(-0.15, 0.15) * (1 - strength.crop_scale_min))
    wide, high = side * stretch, side / stretch
    if not paper:
        wide, high = min(wide, 1.0), min(high, 1.0)
    centre = np.array([0.5, 0.5]) + rng.uniform(-0.5, 0.5, 2) * np.abs([1 - wide, 1 - high])
    angle, shear = np.radians(rng.uniform(-1, 1, 2) * strength.rotation_deg) * [1, 1 / 3]
    flip = -1.0 if rng.random() < strength.flip_prob else 1.0
    scaled = image.resize((max(1, round(size_px / wide)), max(1, round(size_px / high))), Image.Resampling.BILINEAR)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn @ np.array([[flip, math.tan(shear)], [0.0, 1.0]])
    offset = centre * scaled.size - matrix @ np.array([size_px / 2, size_px / 2])
    if paper:
        return _affine(scaled, size_px, matrix, offset, fill=255)
    return _affine(*_reflected(scaled, size_px, matrix, offset), fill=0)


def _affine(image: Image.Image, size_px: int, matrix: np.ndarray, offset: np.ndarray, *, fill: int) -> Image.Image:
    data = (*matrix[0], offset[0], *matrix[1], offset[1])
    colour = fill if image.mode == "L" else (fill, fill, fill)
    return image.transform((size_px, size_px), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=colour)


def _reflected(
    image: Image.Image, size_px: int, matrix: np.ndarray, offset: np.ndarray
) -> tuple[Image.Image, int, np.ndarray, np.ndarray]:
    """The image continued by reflection as far as the map looks over its edges, and the map shifted to match."""
    corners = matrix @ (np.array([[0, 1, 0, 1], [0, 0, 1, 1]]) * size_px) + offset[:, None]
    before = np.ceil(np.maximum(0, 1 - corners.min(1))).astype(int)
    after = np.ceil(np.maximum(0, corners.max(1) + 1 - image.size)).astype(int)
    edges = [(int(before[1]), int(after[1])), (int(before[0]), int(after[0]))]
    pixels = np.asarray(image)
    padded = np.pad(pixels, edges + [(0, 0)] * (pixels.ndim - 2), mode="symmetric")
    return Image.fromarray(padded), size_px, matrix, offset + before


def _vary_colours(image: Image.Image, rng: np.random.Generator, strength: Augmentation) -> Image.Image:
    """Brightness, contrast, saturation and loss of colour as one linear map of red, green and blue."""
    brightness, contrast, saturation = 1 + rng.uniform(-1, 1, 3) * strength.colour_jitter
    if rng.random() < strength.grayscale_prob:
        saturation = 0.0
    image = image if image.mode == "RGB" else image.convert("RGB")
    mean = float(np.asarray(image).mean(axis=(0, 1)) @ _LUMA)
    mix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * np.tile(_LUMA, (3, 1)))
    shift = brightness * (1 - contrast) * mean
    rows = [float(value) for row in mix for value in (*row, shift)]
    return image.convert("RGB", matrix=tuple(rows))


def _vary_strokes(image: Image.Image, rng: np.random.Generator, strength: Augmentation) -> Image.Image:
    """Strokes a little thicker or thinner, and here and there a piece missing, as pens and hands have it."""
    if rng.random() < strength.stroke_width_prob:
        image = _change_width(image, thicker=bool(rng.random() < 0.5), amount=float(rng.uniform(0.3, 0.8)))
    if rng.random() < strength.stroke_erase_prob:
        image = _erase_pieces(image, rng)
    return image


def _change_width(image: Image.Image, *, thicker: bool, amount: float) -> Image.Image:
    """Mixed with the minimum (thicker) or maximum (thinner) of each 3 x 3 pixels: in part, so that thin lines survive."""
    pixels = np.asarray(image)
    pick = np.minimum if thicker else np.maximum
    spread = pixels.copy()
    spread[1:] = pick(spread[1:], pixels[:-1])
    spread[:-1] = pick(spread[:-1], pixels[1:])
    rows = spread.copy()
    spread[:, 1:] = pick(spread[:, 1:], rows[:, :-1])
    spread[:, :-1] = pick(spread[:, :-1], rows[:, 1:])
    return Image.blend(image, Image.fromarray(spread), amount)


def _erase_pieces(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One to three white blobs, each on a stroke."""
    dark = np.argwhere(np.asarray(image.convert("L")) < 128)
    if not len(dark):
        return image
    image = image.copy()
    pen = ImageDraw.Draw(image)
    for row, column in dark[rng.integers(0, len(dark), rng.integers(1, 4))].tolist():
        radius = float(rng.uniform(0.02, 0.07)) * image.width
        pen.ellipse([column - radius, row - radius, column + radius, row + radius], fill="white")
    return image
