"""Small images for tests: a photo without two corners alike, a drawing of one stroke, and both as files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def picture(width=60, height=40):
    """Red to the right, green to the bottom: no two corners alike."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 128 + 0 * x], axis=-1).astype(np.uint8))


def drawing(side=80):
    pixels = np.full((side, side), 255, np.uint8)
    pixels[side // 4 : -side // 4, side // 2 - 1 : side // 2 + 1] = 0
    return Image.fromarray(pixels)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
