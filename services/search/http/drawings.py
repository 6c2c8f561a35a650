"""Strokes as the network sees them."""

from __future__ import annotations

import json
from typing import Any

from PIL import Image

from zsbir.data.strokes import parse, render


def checked(strokes: list[Any]) -> list[Any]:
    """Return strokes as plain lists of numbers. Raises BadImage for anything but strokes within bounds."""
    return [stroke.T.round(2).tolist() for stroke in parse(json.dumps({"drawing": strokes}).encode())]


def drawn(strokes: list[Any]) -> Image.Image:
    """Draw strokes as the encoder's training sketches look. Raises BadImage for anything but strokes within bounds."""
    return render(parse(json.dumps({"drawing": strokes}).encode()))
