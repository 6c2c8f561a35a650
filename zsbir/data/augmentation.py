"""The augmentation of training: a random variation of an image, decided by a seed.

Legend of shapes: 3 = red, green, blue; s = `size_px`. Arrays are uint8, channels first.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from pydantic import Field

from zsbir.base.config import Config
from zsbir.data.images import channels_first, finish, open_image

_LUMA = np.array([0.299, 0.587, 0.114])


class Augmentation(Config):
    """How far an augmented image may lie from the original. All zeros, and `crop_scale_min` 1, leave it as it is."""

    crop_scale_min: float = Field(0.6, gt=0, le=1, description="smallest share of the image's area that a random crop keeps")
    rotation_deg: float = Field(10, ge=0, le=180, description="largest rotation either way; shear goes to a third of it")
    flip_prob: float = Field(0.5, ge=0, le=1, description="chance of a horizontal flip")
    colour_jitter: float = Field(0.3, ge=0, lt=1, description="photos: largest relative change of brightness, contrast, saturation")
    grayscale_prob: float = Field(0.1, ge=0, le=1, description="photos: chance to lose all colour")
    stroke_width_prob: float = Field(0.3, ge=0, le=1, description="sketches: chance of thicker or thinner strokes")
    stroke_erase_prob: float = Field(0.2, ge=0, le=1, description="sketches: chance that a few pieces of stroke are missing")


def augment_image(
    data: bytes, size_px: int, domain: str, rng: np.random.Generator, strength: Augmentation
) -> UInt8[np.ndarray, "3 s s"]:
    """A random variation of the image: one affine warp for both domains, then colours (photo) or strokes (sketch).

    All chance comes from `rng`: the same state gives the same pixels. Raises BadImage.
    """
    image = finish(open_image(data))
    if domain == "sketch":
        return channels_first(_vary_strokes(_warp(image, size_px, rng, strength, paper=True), rng, strength))
    return channels_first(_vary_colours(_warp(image, size_px, rng, strength, paper=False), rng, strength))


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
