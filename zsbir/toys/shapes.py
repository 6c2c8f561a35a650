"""Parts of toy objects in the unit square (x to the right, y down), and made-up objects composed of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from zsbir.base.seeds import stream

Material = Literal["wood", "leaf", "metal", "cloth", "stone", "glass", "clay", "dark", "light"]
Points = Float[np.ndarray, "_ 2"]
Number = int | float
"""Coordinates are often whole numbers, which the shape checks of the tests would refuse as `float`."""


@dataclass(frozen=True)
class Part:
    """One outline (closed: filled in a photo) or one line, `width` thick in a photo, of one material."""

    points: Points
    closed: bool
    material: Material
    width: Number = 0.03


class Vary:
    """The randomness of one drawing: `vary(low, high)` is a number between the two."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def __call__(self, low: Number, high: Number) -> float:
        """Return a number between the two."""
        return low + (high - low) * float(self.rng.random())

    def count(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return int(self.rng.integers(low, high + 1))


def shape(material: Material, *points: tuple[Number, Number]) -> Part:
    """Make a closed outline through corners."""
    return Part(np.array(points, dtype=float), closed=True, material=material)


def box(material: Material, left: Number, top: Number, right: Number, bottom: Number) -> Part:
    """Make a rectangle."""
    return shape(material, (left, top), (right, top), (right, bottom), (left, bottom))


def line(material: Material, *points: tuple[Number, Number], width: Number = 0.03) -> Part:
    """Make a line through points."""
    return Part(np.array(points, dtype=float), closed=False, material=material, width=width)


def round_shape(
    material: Material, x: Number, y: Number, rx: Number, ry: Number, *, span: tuple[Number, Number] = (0, 360)
) -> Part:
    """Make an ellipse, or the closed piece of it over the degrees of `span` (0 right, 90 down)."""
    return Part(_arc(x, y, rx, ry, span), closed=True, material=material)


def arc(
    material: Material, x: Number, y: Number, rx: Number, ry: Number, *, span: tuple[Number, Number], width: Number = 0.03
) -> Part:
    """Make a piece of an ellipse as a line."""
    return Part(_arc(x, y, rx, ry, span), closed=False, material=material, width=width)


def _arc(x: Number, y: Number, rx: Number, ry: Number, span: tuple[Number, Number]) -> Points:
    angles = np.radians(np.linspace(*span, 25))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def wheel(x: Number, y: Number, radius: Number) -> list[Part]:
    """Make a tyre with its hub."""
    return [round_shape("dark", x, y, radius, radius), round_shape("metal", x, y, radius * 0.5, radius * 0.5)]


def roof(material: Material, left: Number, right: Number, top: Number, bottom: Number) -> Part:
    """Make a gable."""
    return shape(material, (left, bottom), ((left + right) / 2, top), (right, bottom))


_MATERIALS: tuple[Material, ...] = ("wood", "metal", "cloth", "stone", "clay")


def compose(seed: int) -> Callable[[Vary], list[Part]]:
    """Make up an object: body, attachments and their positions follow from `seed`, their proportions vary with each drawing."""

    def draw(v: Vary) -> list[Part]:
        plan = stream("pretext form", seed)
        body = _block(plan, v, (0.5, 0.5), (plan.uniform(0.16, 0.24), plan.uniform(0.16, 0.26)))
        arrangement = int(plan.integers(4))
        return [*_attached(plan, v, arrangement), body, *_marks(plan, v)]

    return draw


def _attached(plan: np.random.Generator, v: Vary, arrangement: int) -> list[Part]:
    """Attach parts to the body: two mirrored sides, a stack, a ring or a row of limbs."""
    count, size = int(plan.integers(3, 7)), float(plan.uniform(0.07, 0.12))
    kind = int(plan.integers(1 << 30))
    match arrangement:
        case 0:
            centres: Sequence[tuple[Number, Number]] = [
                (0.5 + s * 0.3, y) for s in (-1, 1) for y in np.linspace(0.35, 0.65, max(1, count // 2))
            ]
        case 1:
            centres = [(0.5, 0.14), (0.5, 0.86), (0.5 + float(plan.choice([-0.2, 0.2])), 0.8)]
        case 2:
            centres = [(0.5 + 0.33 * math.cos(a), 0.5 + 0.33 * math.sin(a)) for a in np.arange(count) * 2 * math.pi / count]
        case _:
            row = float(plan.choice([0.2, 0.8]))
            limbs = [line("wood", (x, 0.5), (x + v(-0.03, 0.03), row), width=0.05) for x in np.linspace(0.25, 0.75, count)]
            return [*limbs, _block(plan, v, (0.5, row), (0.3, 0.06))]
    return [_block(np.random.default_rng(kind), v, centre, (size, size)) for centre in centres]


def _marks(plan: np.random.Generator, v: Vary) -> list[Part]:
    """Draw marks on the body that distinguish this class from a similar one."""
    match int(plan.integers(4)):
        case 0:
            return [line("dark", (0.36, y), (0.64, y), width=0.02) for y in np.linspace(0.42, 0.58, int(plan.integers(2, 4)))]
        case 1:
            return [round_shape("light", 0.5 + dx, 0.47, v(0.03, 0.05), 0.04) for dx in (-0.08, 0.08)]
        case 2:
            return [line("dark", (0.4, 0.4), (0.6, 0.6), width=0.02), line("dark", (0.6, 0.4), (0.4, 0.6), width=0.02)]
        case _:
            return [_block(plan, v, (0.5, 0.5), (0.09, 0.09))]


def _block(plan: np.random.Generator, v: Vary, centre: tuple[Number, Number], radii: tuple[Number, Number]) -> Part:
    """Make one of eight plain outlines around `centre`."""
    material = _MATERIALS[int(plan.integers(len(_MATERIALS)))]
    (x, y), rx, ry = centre, radii[0] * v(0.85, 1.15), radii[1] * v(0.85, 1.15)
    corners = int(plan.integers(8))
    if corners < 2:
        return round_shape(material, x, y, rx, ry)
    if corners == 2:
        return round_shape(material, x, y + ry / 2, rx, ry * 1.5, span=(180, 360))
    inner = float(plan.uniform(0.45, 0.6)) if corners > 5 else 1.0
    count = corners * 2 if inner < 1 else corners
    angles = np.arange(count) * 2 * math.pi / count - math.pi / 2 + (math.pi / 4 if corners == 4 else 0)
    reach = np.where(np.arange(count) % 2, inner, 1.0) * 1.2
    return Part(
        np.stack([x + rx * reach * np.cos(angles), y + ry * reach * np.sin(angles)], axis=1), closed=True, material=material
    )
