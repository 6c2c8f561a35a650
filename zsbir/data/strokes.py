"""QuickDraw's drawings as images: an .ndjson file holds one drawing a line, strokes as lists of coordinates.

Both published forms are read: simplified (`[[x...], [y...]]`) and raw (`[[x...], [y...], [t...]]`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from zsbir.data.images import BadImage, encode_sketch

SIDE_PX = 256
MARGIN_PX = 14
LINE_PX = 3.0
_SCALE = 2  # drawn larger and reduced: smooth lines
_MAX_LINE_BYTES = 10_000_000
_MAX_POINTS = 100_000


def drawing_starts(file: Path, count: int) -> Iterator[tuple[int, int]]:
    """(line number from 0, byte offset) of the first `count` drawings that the game recognised."""
    return islice(_recognised(file), count)


def _recognised(file: Path) -> Iterator[tuple[int, int]]:
    start = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            # Searched as bytes: parsing every drawing only to count them would take minutes a class.
            if line.strip() and b'"recognized":false' not in line.replace(b" ", b""):
                yield number, start
            start += len(line)


def read_drawing(file: Path, start: int) -> bytes:
    """The drawing at byte `start` of an .ndjson file as PNG. Raises BadImage when the line is no drawing."""
    with file.open("rb") as lines:
        lines.seek(start)
        return encode_sketch(render(parse(lines.readline(_MAX_LINE_BYTES))))


def parse(line: bytes) -> list[np.ndarray]:
    """Strokes of one line of an .ndjson file, each float [points, 2]. Raises BadImage."""
    try:
        drawing: Any = json.loads(line)["drawing"]
        strokes = [np.array([stroke[0], stroke[1]], dtype=np.float64).T for stroke in drawing if len(stroke[0])]
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise BadImage(f"no QuickDraw drawing: {type(error).__name__} {' '.join(str(error).split())[:100]}") from None
    if not strokes or any(stroke.ndim != 2 or stroke.shape[1] != 2 for stroke in strokes):
        raise BadImage("a drawing without strokes")
    points = np.concatenate(strokes)
    if len(points) > _MAX_POINTS or not np.isfinite(points).all():
        raise BadImage(f"a drawing of {len(points)} points, or with coordinates that are no numbers")
    return strokes


def render(strokes: list[np.ndarray], size_px: int = SIDE_PX) -> Image.Image:
    """Black strokes on white, grey, centred with a margin, proportions kept."""
    points = np.concatenate(strokes)
    low, extent = points.min(0), points.max(0) - points.min(0)
    scale = _SCALE * (size_px - 2 * MARGIN_PX) / max(float(extent.max()), 1e-6)
    offset = _SCALE * size_px / 2 - (low + extent / 2) * scale
    image = Image.new("L", (size_px * _SCALE, size_px * _SCALE), 255)
    pen = ImageDraw.Draw(image)
    width = round(LINE_PX * _SCALE)
    for stroke in strokes:
        path = [(x, y) for x, y in (stroke * scale + offset).tolist()]
        if len(path) > 1:
            pen.line(path, fill=0, width=width, joint="curve")
        for x, y in (path[0], path[-1]):
            pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=0)
    return image.resize((size_px, size_px), Image.Resampling.BOX)
