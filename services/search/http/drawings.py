"""Strokes as the network sees them: drawn with the ink of the sketches that the served encoder was trained on."""

from __future__ import annotations

from typing import Any

from PIL import Image

from services.search.serving.catalogue import Served
from zsbir.data.strokes import draw_query, framed, parse_strokes


def drawn(strokes: list[Any], served: Served) -> Image.Image:
    """Draw strokes for an encoder. Raises BadImage for anything but strokes within bounds."""
    return draw_query(parse_strokes(strokes), served.engine.ink)


def checked(strokes: list[Any]) -> list[Any]:
    """Return strokes as plain lists of numbers, in the frame of QuickDraw's drawings. Raises BadImage as `drawn` does."""
    return [stroke.T.round(2).tolist() for stroke in framed(parse_strokes(strokes))]
