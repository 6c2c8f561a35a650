"""The augmentation of training: a random variation of an image, decided by a seed.

Legend of shapes: 3 = red, green, blue; s = `size_px`. Arrays are uint8, channels first.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFilter
from pydantic import Field

from zsbir.base.config import Added, Config
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
    stroke_bend_prob: Annotated[float, Added(neutral=0.0)] = Field(
        0.0, ge=0, le=1, description="sketches: chance that all strokes are bent smoothly, as another hand would draw them"
    )
    ink_crop_prob: Annotated[float, Added(neutral=0.0)] = Field(
        0.0, ge=0, le=1, description="sketches: chance that the paper around the strokes is cut off"
    )
    edges_prob: Annotated[float, Added(neutral=0.0)] = Field(
        0.0, ge=0, le=1, description="photos: chance to be replaced by a drawing of their edges"
    )


def augment_image(
    data: bytes, size_px: int, domain: str, rng: np.random.Generator, strength: Augmentation
) -> UInt8[np.ndarray, "3 s s"]:
    """Return a random variation of the image: one affine warp for both domains, then colours (photo) or strokes (sketch).

    All randomness comes from `rng`: the same state gives the same pixels. Raises BadImage.
    """
    image = finish(open_image(data))
    if domain == "sketch" and strength.ink_crop_prob and rng.random() < strength.ink_crop_prob:
        image = _cut_to_ink(image)
    if domain == "sketch" and strength.stroke_bend_prob and rng.random() < strength.stroke_bend_prob:
        image = _bend(image, rng)
    if domain == "photo" and strength.edges_prob and rng.random() < strength.edges_prob:
        image = _edges(image, size_px)
    if domain == "sketch":
        return channels_first(_vary_strokes(_warp(image, size_px, rng, strength, paper=True), rng, strength))
    return channels_first(_vary_colours(_warp(image, size_px, rng, strength, paper=False), rng, strength))


def _cut_to_ink(image: Image.Image) -> Image.Image:
    """Cut off the paper around the strokes but for a margin, and keep a square."""
    dark = np.argwhere(np.asarray(image.convert("L")) < 128)
    if not len(dark):
        return image
    (top, left), (bottom, right) = dark.min(axis=0).tolist(), dark.max(axis=0).tolist()
    half = 0.55 * max(bottom - top, right - left, 8)
    x, y = (left + right) / 2, (top + bottom) / 2
    box = (round(x - half), round(y - half), round(x + half), round(y + half))
    plain = image if image.mode in ("L", "RGB") else image.convert("RGB")
    paper = Image.new(plain.mode, (box[2] - box[0], box[3] - box[1]), "white")
    paper.paste(plain, (-box[0], -box[1]))
    return paper


def _bend(image: Image.Image, rng: np.random.Generator, cells: int = 4, most: float = 0.03) -> Image.Image:
    """Move the points of a grid over the image at random, by up to `most` of its side, and all between them smoothly along."""
    plain = image if image.mode in ("L", "RGB") else image.convert("RGB")
    width, height = plain.size
    columns, rows = np.meshgrid(np.linspace(0, width, cells + 1), np.linspace(0, height, cells + 1))
    points = np.stack([columns, rows], axis=2)
    moved = points + rng.uniform(-most, most, points.shape) * [width, height]
    mesh = []
    for row in range(cells):
        for column in range(cells):
            box = tuple(round(float(value)) for value in (*points[row, column], *points[row + 1, column + 1]))
            corners = (moved[row, column], moved[row + 1, column], moved[row + 1, column + 1], moved[row, column + 1])
            mesh.append((box, tuple(float(value) for corner in corners for value in corner)))
    return plain.transform(plain.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR, fillcolor="white")


def _edges(image: Image.Image, size_px: int) -> Image.Image:
    """Draw the edges of a photo, dark on white: the length of its gradient, at twice the size that the network sees."""
    side = 2 * size_px
    grey = image.convert("L").resize((side, side), Image.Resampling.BILINEAR).filter(ImageFilter.GaussianBlur(1.5))
    down, right = np.gradient(np.asarray(grey, np.float32))
    length = np.hypot(down, right)
    strong = length / max(float(np.quantile(length, 0.98)), 1.0)
    drawn = 255 * (1 - np.clip(1.5 * strong - 0.25, 0, 1))
    return Image.fromarray(drawn.astype(np.uint8)).convert("RGB")


def _warp(image: Image.Image, size_px: int, rng: np.random.Generator, strength: Augmentation, *, paper: bool) -> Image.Image:
    """Crop, rotate, shear and flip by one affine map of the unit square that `eval_image` shows.

    The image is first resized, with antialiasing, such that the map is about 1:1. A sketch may also shrink, since its paper
    is continued in white; a photo is continued by reflection where a rotation reads past its edge.
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
    """Continue the image by reflection as far as the map reads past its edges, and shift the map to match."""
    corners = matrix @ (np.array([[0, 1, 0, 1], [0, 0, 1, 1]]) * size_px) + offset[:, None]
    before = np.ceil(np.maximum(0, 1 - corners.min(1))).astype(int)
    after = np.ceil(np.maximum(0, corners.max(1) + 1 - image.size)).astype(int)
    edges = [(int(before[1]), int(after[1])), (int(before[0]), int(after[0]))]
    pixels = np.asarray(image)
    padded = np.pad(pixels, edges + [(0, 0)] * (pixels.ndim - 2), mode="symmetric")
    return Image.fromarray(padded), size_px, matrix, offset + before


def _vary_colours(image: Image.Image, rng: np.random.Generator, strength: Augmentation) -> Image.Image:
    """Vary brightness, contrast and saturation, or drop all colour, by one linear map of red, green and blue."""
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
    """Make strokes a little thicker or thinner and erase a few pieces, as pens and hands do."""
    if rng.random() < strength.stroke_width_prob:
        image = _change_width(image, thicker=bool(rng.random() < 0.5), amount=float(rng.uniform(0.3, 0.8)))
    if rng.random() < strength.stroke_erase_prob:
        image = _erase_pieces(image, rng)
    return image


def _change_width(image: Image.Image, *, thicker: bool, amount: float) -> Image.Image:
    """Mix the image with the minimum (thicker) or maximum (thinner) of each 3 x 3 pixels, in part, so that thin lines survive."""
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
    """Draw one to three white blobs, each on a stroke."""
    dark = np.argwhere(np.asarray(image.convert("L")) < 128)
    if not len(dark):
        return image
    image = image.copy()
    pen = ImageDraw.Draw(image)
    for row, column in dark[rng.integers(0, len(dark), rng.integers(1, 4))].tolist():
        radius = float(rng.uniform(0.02, 0.07)) * image.width
        pen.ellipse([column - radius, row - radius, column + radius, row + radius], fill="white")
    return image
