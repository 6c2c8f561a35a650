"""QuickDraw's drawings as images: an .ndjson file holds one drawing a line, strokes as lists of coordinates.

Both published forms are read: simplified (`[[x...], [y...]]`) and raw (`[[x...], [y...], [t...]]`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from zsbir.base.errors import InputError
from zsbir.base.filetypes import what_is
from zsbir.data.images import BadImage, encode_sketch

if TYPE_CHECKING:
    from zsbir.base.storage import Folder

SIDE_PX = 256
MARGIN_PX = 14
LINE_PX = 3.0
_SCALE = 2  # drawn larger and reduced: smooth lines
_MAX_LINE_BYTES = 10_000_000
_PIECE_BYTES = 2**22
_MAX_POINTS = 100_000


class Line(NamedTuple):
    """Position of one drawing in its file: number of the line from 0, first byte, length in bytes."""

    number: int
    start: int
    length: int


def drawings(folder: Folder, file: str, most: int) -> Iterator[Line]:
    """Find the first `most` drawings of an .ndjson file that the game recognised. Raises InputError where lines are too long."""
    return islice(_recognised(folder, file), most)


def _recognised(folder: Folder, file: str) -> Iterator[Line]:
    start = 0
    for number, line in enumerate(_lines(folder, file)):
        # Searched as bytes: parsing every drawing only to count them would take minutes a class.
        if line.strip() and b'"recognized":false' not in line.replace(b" ", b""):
            yield Line(number, start, len(line))
        start += len(line) + 1


def _lines(folder: Folder, file: str) -> Iterator[bytes]:
    """Yield the lines of a file without their ends, read in pieces as far as asked: such files have hundreds of megabytes."""
    rest = b""
    for at in count(0, _PIECE_BYTES):
        piece = folder.read_range(file, at, _PIECE_BYTES)
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if len(rest) > _MAX_LINE_BYTES:
            raise InputError(
                f"{folder.uri}/{file}: a line before byte {at + len(piece)} is too long for a drawing: is this .ndjson?"
            )
        if len(piece) < _PIECE_BYTES:
            break
    yield rest


def read_drawing(folder: Folder, file: str, start: int, length: int) -> bytes:
    """Render the drawing in `length` bytes at `start` of an .ndjson file as PNG. Raises BadImage for anything but a drawing."""
    return encode_sketch(render(parse(folder.read_range(file, start, min(length, _MAX_LINE_BYTES)))))


def parse(line: bytes) -> list[np.ndarray]:
    """Parse one line of an .ndjson file into strokes, each float [points, 2]. Raises BadImage."""
    try:
        drawing: Any = json.loads(line)["drawing"]
        strokes = [np.array([stroke[0], stroke[1]], dtype=np.float64).T for stroke in drawing if len(stroke[0])]
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        what = what_is(line) or f"{type(error).__name__} {' '.join(str(error).split())[:100]}"
        raise BadImage(f"not a QuickDraw drawing: {what}") from None
    if not strokes or any(stroke.ndim != 2 or stroke.shape[1] != 2 for stroke in strokes):
        raise BadImage("a drawing without strokes")
    points = np.concatenate(strokes)
    if len(points) > _MAX_POINTS or not np.isfinite(points).all():
        raise BadImage(f"a drawing of {len(points)} points, or with coordinates that are not numbers")
    return strokes


def render(strokes: list[np.ndarray], size_px: int = SIDE_PX) -> Image.Image:
    """Draw black strokes on white as a grey image, centred with a margin, proportions kept."""
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
