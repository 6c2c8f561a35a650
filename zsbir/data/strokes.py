"""Drawings as strokes: checked, drawn as images, cut short; and QuickDraw's files, which hold one drawing a line (.ndjson).

A stroke is a list of coordinates, `[[x...], [y...]]`, with or without a third list, the times at which its points were drawn: the
two published forms of QuickDraw, and what a browser sends. x grows to the right and y downwards, in any unit: proportions count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from PIL import Image, ImageDraw

from zsbir.base import limits
from zsbir.base.errors import InputError
from zsbir.base.filetypes import what_is
from zsbir.data.images import BadImage, encode_sketch
from zsbir.data.ink import QUICKDRAW, Ink

if TYPE_CHECKING:
    from zsbir.base.storage import Folder

Strokes = list[Float64[np.ndarray, "_ 2"]]
"""A drawing: the points of each stroke, x and y."""

SIDE_PX = 256
_LINE_PX = 6  # lines are drawn at least this wide, then the picture is reduced: smooth, and of nearly the right width
_LARGEST_PX = 4096  # side of the picture before it is reduced
_FRAME, _FRAME_STEPS = 255, 256
_MAX_LINE_BYTES = 10_000_000
_PIECE_BYTES = 2**22
_MAX_POINTS = 100_000  # of a drawing in a file, which is read once; one in a query has a lower limit


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


def parse(line: bytes) -> Strokes:
    """Parse one line of an .ndjson file into strokes, each float [points, 2]. Raises BadImage."""
    try:
        drawing: Any = json.loads(line)["drawing"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        what = what_is(line) or f"{type(error).__name__} {' '.join(str(error).split())[:100]}"
        raise BadImage(f"not a QuickDraw drawing: {what}") from None
    return parse_strokes(drawing, most_points=_MAX_POINTS)


def parse_strokes(value: Any, *, most_points: int = limits.DRAWING_POINTS) -> Strokes:
    """Check decoded JSON, `[[[x...], [y...]], ...]` or with a third list of times, and return the strokes that have points.

    Coordinates are bounded by `limits.DRAWING_COORDINATE` either way; times are not looked at. Nothing is copied before all lengths
    are known to be within `limits.DRAWING_STROKES` and `most_points`. Raises BadImage, one line, for anything else.
    """
    if not isinstance(value, list):
        raise BadImage(f"a drawing is a list of strokes, [[[x...], [y...]], ...], not {_kind(value)}")
    if len(value) > limits.DRAWING_STROKES:
        raise BadImage(f"a drawing of {len(value)} strokes, more than the {limits.DRAWING_STROKES} allowed")
    total = 0
    for number, stroke in enumerate(value):
        _check_stroke(stroke, number)
        total += len(stroke[0])
    if total > most_points:
        raise BadImage(f"a drawing of {total} points, more than the {most_points} allowed")
    for number, stroke in enumerate(value):
        for coordinate in (*stroke[0], *stroke[1]):
            _check_coordinate(coordinate, number)
    strokes = [np.array([stroke[0], stroke[1]], np.float64).T for stroke in value if stroke[0]]
    if not strokes:
        raise BadImage("a drawing without strokes")
    return strokes


def _check_stroke(stroke: Any, number: int) -> None:
    """Raise BadImage unless a stroke is two or three lists of one length."""
    if not isinstance(stroke, list) or len(stroke) not in (2, 3) or not all(isinstance(part, list) for part in stroke):
        raise BadImage(f"stroke {number} is not [[x...], [y...]], with or without a third list of times")
    if len({len(part) for part in stroke}) > 1:
        raise BadImage(f"stroke {number} has lists of different lengths: {', '.join(str(len(part)) for part in stroke)}")


def _check_coordinate(value: Any, number: int) -> None:
    """Raise BadImage unless a coordinate is a number within bounds, which NaN is not."""
    if type(value) not in (int, float):  # a bool is an int to isinstance
        raise BadImage(f"stroke {number} has a coordinate that is not a number but {_kind(value)}")
    if not -limits.DRAWING_COORDINATE <= value <= limits.DRAWING_COORDINATE:
        shown = f"{value:g}" if isinstance(value, float) else "a larger one"
        raise BadImage(f"stroke {number} has a coordinate beyond {limits.DRAWING_COORDINATE:g}: {shown}")


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def framed(strokes: Strokes) -> Strokes:
    """Bring a drawing into the frame of QuickDraw's simplified form: from 0 to 255 along its longer side, in steps of 1/256.

    So one drawing is one picture to the byte, whatever the size and pixel ratio of the canvas and wherever on it a hand drew: the
    last digits of scaled numbers no longer decide to which pixel they are rounded.
    """
    points = np.concatenate(strokes)
    low, extent = points.min(0), points.max(0) - points.min(0)
    scale = _FRAME / max(float(extent.max()), 1e-6)
    return [np.round((stroke - low) * scale * _FRAME_STEPS) / _FRAME_STEPS for stroke in strokes]


def prefix(strokes: Strokes, share: float) -> Strokes:
    """Return the first `share` of all points, in the order in which they were drawn: the drawing as it was at that moment.

    share: above 0, at most 1; at least one point is returned. Raises ValueError for another share.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    left = max(1, math.floor(share * sum(map(len, strokes)) + 0.5))
    begun: Strokes = []
    for stroke in strokes:
        if left <= 0:
            break
        begun.append(stroke[:left])
        left -= len(stroke)
    return begun


def render(strokes: Strokes, size_px: int = SIDE_PX, ink: Ink = QUICKDRAW) -> Image.Image:
    """Draw strokes as a grey image, the way `ink` says: the extent of the drawing is fitted into its box, whatever the canvas was.

    size_px: side of the square image, at most `limits.IMAGE_PX`. For a query use `draw_query`.
    """
    points = np.concatenate(strokes)
    width_px = ink.line_width * size_px
    factor = max(1, min(max(2, math.ceil(_LINE_PX / width_px)), _LARGEST_PX // size_px))
    side, box = factor * size_px, factor * (size_px - 2 * (ink.margin * size_px))
    low, extent = points.min(0), points.max(0) - points.min(0)
    scale = box / np.maximum(extent.max() if ink.keeps_proportions else extent, 1e-6)
    moved = (np.array([ink.across, ink.down]) - 0.5) * (box - extent * scale)
    offset = side / 2 - (low + extent / 2) * scale + moved
    image = Image.new("L", (side, side), ink.paper)
    pen = ImageDraw.Draw(image)
    width = max(1, round(width_px * factor))
    for stroke in strokes:
        _draw(pen, [(x, y) for x, y in (stroke * scale + offset).tolist()], width, ink.level)
    return image.resize((size_px, size_px), Image.Resampling.BOX)


def draw_query(strokes: Strokes, ink: Ink, size_px: int = SIDE_PX) -> Image.Image:
    """Draw the strokes of a query as the sketches were drawn that an encoder learned from: `render`, after `framed`."""
    return render(framed(strokes), size_px, ink)


def _draw(pen: ImageDraw.ImageDraw, path: Sequence[tuple[float, float]], width: int, level: int) -> None:
    """Draw a line through the points, in pixels, with round ends."""
    if len(path) > 1:
        pen.line(path, fill=level, width=width, joint="curve")
    for x, y in (path[0], path[-1]):
        pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=level)
