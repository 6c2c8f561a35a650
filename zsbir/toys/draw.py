"""Photos and sketches drawn by program: a whole ZS-SBIR task without a download.

One list of parts (`zsbir.toys.objects`) renders as a photo (filled, lit, coloured, before a cluttered ground) or as a sketch
(wobbling dark strokes on white). `draw_pretext` makes photos of other, made-up objects, on which a small backbone can be
pre-trained: it stands in for ImageNet in the offline demonstration.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError
from zsbir.base.seeds import stream
from zsbir.data.images import encode_photo, encode_sketch
from zsbir.data.trees import Tree
from zsbir.toys.more_objects import MORE_OBJECTS
from zsbir.toys.objects import OBJECTS
from zsbir.toys.shapes import Material, Part, Points, Vary, compose

if TYPE_CHECKING:
    from zsbir.base.storage import Folder

DRAWING_VERSION = 1
"""Raised whenever a change makes the same seed draw something else."""

TOY_CLASSES: tuple[str, ...] = tuple(sorted(OBJECTS))
MORE_CLASSES: tuple[str, ...] = tuple(sorted(MORE_OBJECTS))
"""Classes that are drawn only where a list names them."""

TOY_UNSEEN: tuple[str, ...] = ("bicycle", "castle", "fish", "lamp", "mushroom", "snowman", "sword")
PRETEXT_CLASSES: tuple[str, ...] = tuple(f"form_{number:02d}" for number in range(40))

_PHOTO_SCALE = 2  # drawn larger and reduced: smooth edges
_SKETCH_SCALE = 2
_DETAIL = 0.14
_HUES: dict[Material, tuple[float, float, float, float, float, float]] = {
    # hue from, to (turns); saturation from, to; value from, to
    "wood": (0.04, 0.11, 0.35, 0.75, 0.35, 0.75),
    "leaf": (0.20, 0.42, 0.35, 0.8, 0.35, 0.75),
    "metal": (0.0, 1.0, 0.05, 0.55, 0.45, 0.85),
    "cloth": (0.0, 1.0, 0.45, 0.95, 0.5, 0.95),
    "stone": (0.05, 0.7, 0.03, 0.25, 0.45, 0.8),
    "glass": (0.45, 0.65, 0.2, 0.6, 0.6, 0.95),
    "clay": (0.93, 1.1, 0.45, 0.9, 0.45, 0.9),
    "dark": (0.0, 1.0, 0.05, 0.4, 0.08, 0.28),
    "light": (0.0, 1.0, 0.02, 0.15, 0.82, 1.0),
}
_BACKDROPS: tuple[tuple[Material, Material], ...] = (
    # above, below
    ("glass", "leaf"),
    ("glass", "stone"),
    ("light", "wood"),
    ("stone", "clay"),
    ("light", "stone"),
    ("leaf", "leaf"),
    ("cloth", "light"),
    ("dark", "stone"),
)


def draw(class_name: str, domain: str, rng: np.random.Generator, size_px: int = 96) -> Image.Image:
    """Draw an image of a toy class: RGB for a photo, grey for a sketch. Raises InputError for an unknown class."""
    makers = OBJECTS | MORE_OBJECTS
    if class_name not in makers:
        raise InputError(unknown_name("toy class", class_name, makers))
    parts = makers[class_name](Vary(rng))
    return _sketch(parts, rng, size_px) if domain == "sketch" else _photo(parts, rng, size_px)


def draw_pretext(class_name: str, rng: np.random.Generator, size_px: int = 96) -> Image.Image:
    """Draw a photo of a made-up object; classes differ in form alone, since colours are drawn anew each time.

    Raises InputError for an unknown class.
    """
    if class_name not in PRETEXT_CLASSES:
        raise InputError(unknown_name("pretext class", class_name, PRETEXT_CLASSES))
    return _photo(_composer(class_name)(Vary(rng)), rng, size_px, any_material=True)


@cache
def _composer(class_name: str) -> Any:
    return compose(PRETEXT_CLASSES.index(class_name))


@dataclass(frozen=True, slots=True)
class ToySource:
    """A drawing that ingest reads as if it were a file."""

    path: str
    domain: str
    class_name: str
    seed: tuple[int, int, int, int]
    size_px: int
    split_hint: str | None = None

    def read(self, folder: Folder) -> bytes:
        """Return the drawing as JPEG (photo) or PNG (sketch)."""
        del folder
        image = draw(self.class_name, self.domain, stream("toy drawing", *self.seed), self.size_px)
        return encode_photo(image) if self.domain == "photo" else encode_sketch(image)

    def stamp(self, tree: Tree) -> tuple[int, ...]:
        """Return what decides the drawing."""
        del tree
        return (DRAWING_VERSION, self.size_px, *self.seed)


def toy_sources(
    photos_per_class: int, sketches_per_class: int, size_px: int, seed: int, named: Collection[str] = ()
) -> list[ToySource]:
    """List every drawing of the toy data set. Each has its own seed, so more of them leave the first ones as they were.

    named: classes that the split names; those of MORE_CLASSES are drawn if they are among them.
    """
    return [
        ToySource(f"{domain}/{name}/{number:04d}", domain, name, (seed, row, kind, number), size_px)
        for row, name in enumerate((*TOY_CLASSES, *MORE_CLASSES))
        if name in TOY_CLASSES or name in named
        for kind, (domain, count) in enumerate((("photo", photos_per_class), ("sketch", sketches_per_class)))
        for number in range(count)
    ]


@dataclass(frozen=True)
class _Pose:
    """An affine map of the unit square."""

    matrix: np.ndarray
    offset: np.ndarray

    def __call__(self, points: Points) -> Points:
        return np.asarray(points @ self.matrix.T + self.offset, dtype=float)


def _pose(rng: np.random.Generator, *, turn_deg: float, smallest: float) -> _Pose:
    angle = math.radians(float(rng.normal()) * turn_deg / 2)
    scale = float(rng.uniform(smallest, 0.95))
    flip = 1.0 if rng.random() < 0.5 else -1.0
    stretch = float(rng.uniform(0.85, 1.15))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    form = np.array([[flip * stretch, float(rng.uniform(-0.12, 0.12))], [0.0, 1 / stretch]])
    matrix = scale * turn @ form
    slack = (1 - scale) * 0.45
    return _Pose(matrix, 0.5 + rng.uniform(-slack, slack, 2) - matrix @ np.array([0.5, 0.5]))


def _loosened(parts: list[Part], rng: np.random.Generator, amount: float) -> list[Points]:
    """Move and scale each part a little."""
    moved = []
    for part in parts:
        centre = part.points.mean(0)
        scale, shift = 1 + rng.uniform(-2, 2, 2) * amount, rng.uniform(-1, 1, 2) * amount
        moved.append((part.points - centre) * scale + centre + shift)
    return moved


def _sketch(parts: list[Part], rng: np.random.Generator, size_px: int) -> Image.Image:
    """Draw strokes on white, as a grey image."""
    side = size_px * _SKETCH_SCALE
    pose = _pose(rng, turn_deg=12.0, smallest=0.7)
    image = Image.new("L", (side, side), 255)
    pen = ImageDraw.Draw(image)
    thickness = float(rng.uniform(0.012, 0.024)) * side
    wobble, ink = float(rng.uniform(0.002, 0.009)), int(rng.integers(0, 70))
    for part, points in zip(parts, _loosened(parts, rng, 0.012), strict=True):
        if np.ptp(points, axis=0).max() < _DETAIL and rng.random() < 0.2:
            continue  # hands forget details
        stroke = _wobbled(_by_hand(pose(points), rng, closed=part.closed), rng, wobble) * side
        width = max(1, round(thickness * float(rng.uniform(0.8, 1.25))))
        pen.line([(x, y) for x, y in stroke.tolist()], fill=ink, width=width, joint="curve")
    return image.resize((size_px, size_px), Image.Resampling.BOX)


def _by_hand(points: Points, rng: np.random.Generator, *, closed: bool) -> Points:
    """Return the path of a hand: an outline starts anywhere, and ends short of its start or beyond it."""
    if not closed:
        return _dense(points)
    start = int(rng.integers(len(points)))
    path = _dense(np.concatenate([points[start:], points[:start], points[start : start + 1]]))
    extra = round(float(rng.normal(0.0, 0.03)) * len(path))
    return np.concatenate([path, path[1 : extra + 1]]) if extra > 0 else path[: len(path) + extra]


def _dense(points: Points) -> Points:
    """Return the same path with a point about every 0.03."""
    lengths = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    count = max(3, int(along[-1] / 0.03))
    # The corners stay in: without them a box would lose its edges.
    at = np.union1d(np.linspace(0, along[-1], count), along)
    return np.stack([np.interp(at, along, points[:, 0]), np.interp(at, along, points[:, 1])], axis=1)


def _wobbled(points: Points, rng: np.random.Generator, amount: float) -> Points:
    """Add a slow drift to either side along the path."""
    knots = max(2, len(points) // 4 + 1)
    noise = rng.normal(0, amount, (2, knots))
    at, grid = np.linspace(0, knots - 1, len(points)), np.arange(knots)
    drift = np.stack([np.interp(at, grid, noise[0]), np.interp(at, grid, noise[1])], axis=1)
    drifted: Points = points + drift
    return drifted


def _photo(parts: list[Part], rng: np.random.Generator, size_px: int, *, any_material: bool = False) -> Image.Image:
    """Draw an RGB image: parts filled, lit from one side, before a background, with grain."""
    side = size_px * _PHOTO_SCALE
    pose = _pose(rng, turn_deg=16.0, smallest=0.55)
    image = _ground(rng, side)
    light = _light(rng, side)
    colours: dict[Material, tuple[int, int, int]] = {name: _colour(name, rng, free=any_material) for name in _HUES}
    outlined = rng.random() < 0.5
    for part, points in zip(parts, _loosened(parts, rng, 0.008), strict=True):
        _fill(image, part, pose(points) * side, colours[part.material], light, outlined=outlined)
    return _grained(image.resize((size_px, size_px), Image.Resampling.BOX), rng)


def _fill(
    image: Image.Image, part: Part, points: Points, colour: tuple[int, int, int], light: Image.Image, *, outlined: bool
) -> None:
    """Paint one part: a shadowed colour everywhere, the lit colour as far as the light reaches."""
    width = 2 if part.closed else max(2, round(part.width * image.width * 0.8))
    # Only the part's own frame is worked on: most parts are small.
    left, top = np.maximum(np.floor(points.min(0)).astype(int) - width, 0).tolist()
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + width + 1, image.size).tolist()
    if right <= left or bottom <= top:
        return
    corners = [(x, y) for x, y in (points - (left, top)).tolist()]
    mask = Image.new("L", (right - left, bottom - top), 0)
    pen = ImageDraw.Draw(mask)
    if part.closed:
        pen.polygon(corners, fill=255)
    else:
        pen.line(corners, fill=255, width=width, joint="curve")
    frame = (left, top, right, bottom)
    image.paste(_mixed(colour, (0, 0, 0), 0.4), frame, mask)
    image.paste(_mixed(colour, (255, 255, 255), 0.12), frame, ImageChops.multiply(mask, light.crop(frame)))
    if outlined and part.closed:
        edge = [(x, y) for x, y in points.tolist()]
        ImageDraw.Draw(image).line([*edge, edge[0]], fill=_mixed(colour, (0, 0, 0), 0.6), width=width)


def _mixed(colour: tuple[int, int, int], other: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a * (1 - share) + b * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def _light(rng: np.random.Generator, side: int) -> Image.Image:
    """Return how brightly each pixel is lit: a ramp in a random direction, with the fine streaks of a material."""
    angle = float(rng.uniform(0, 2 * math.pi))
    grid = np.linspace(-0.7, 0.7, 32, dtype=np.float32)
    ramp = 0.55 + 0.5 * (math.cos(angle) * grid[None] + math.sin(angle) * grid[:, None]) + rng.normal(0, 0.06, (32, 32))
    return Image.fromarray((np.clip(ramp, 0, 1) * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)


def _colour(material: Material, rng: np.random.Generator, *, free: bool = False) -> tuple[int, int, int]:
    """Draw a random colour of a material; `free`: any colour at all."""
    hue0, hue1, sat0, sat1, val0, val1 = (0.0, 1.0, 0.1, 0.9, 0.25, 0.95) if free else _HUES[material]
    hue, sat, val = rng.uniform((hue0, sat0, val0), (hue1, sat1, val1))
    turns = (np.array([0.0, 2 / 3, 1 / 3]) + hue) % 1.0
    channel = np.clip(np.abs(turns * 6 - 3) - 1, 0, 1)
    red, green, blue = (255 * val * (1 - sat * (1 - channel))).astype(int).tolist()
    return red, green, blue


def _ground(rng: np.random.Generator, side: int) -> Image.Image:
    """Draw the background: two soft colours, a horizon now and then, blurred clutter."""
    small = side // 4
    above, below = _BACKDROPS[int(rng.integers(len(_BACKDROPS)))]
    top, bottom = (np.array(_colour(material, rng), dtype=np.float32) for material in (above, below))
    fade = np.linspace(0, 1, small, dtype=np.float32)[:, None, None]
    if rng.random() < 0.5:
        fade = (fade > rng.uniform(0.45, 0.8)).astype(np.float32)
    pixels = np.broadcast_to(top * (1 - fade) + bottom * fade, (small, small, 3)) * 0.75 + 50 * float(rng.uniform(0, 1.2))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 9))):
        (x, y), (rx, ry) = rng.uniform(0, small, 2).tolist(), rng.uniform(0.03, 0.2, 2).tolist()
        frame = [x - rx * small, y - ry * small, x + rx * small, y + ry * small]
        (pen.ellipse if rng.random() < 0.5 else pen.rectangle)(frame, fill=_colour("stone", rng))
    blurred = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.5, 2.5))))
    return blurred.resize((side, side), Image.Resampling.BILINEAR)


def _grained(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add sensor noise, exposure and a slight tint."""
    pixels = np.asarray(image, dtype=np.float32) * rng.uniform(0.85, 1.12, 3).astype(np.float32)
    pixels += rng.standard_normal(pixels.shape[:2], dtype=np.float32)[..., None] * float(rng.uniform(1, 6))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
