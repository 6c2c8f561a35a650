"""The first drawings of a Quick, Draw! file as PNG files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from zsbir.base import events
from zsbir.base.errors import InputError
from zsbir.base.strict_json import parse_json
from zsbir.data import strokes
from zsbir.data.images import BadImage, encode_sketch

BYTES_PER_DRAWING = 2048
"""Bytes that are asked for, for each drawing that is wanted: a line of the simplified files has 300 to 1,500."""

FEWEST = 4
"""Drawings below which a file is taken for something else."""


class Drawing(NamedTuple):
    """A drawing as an image. name: the number that Quick, Draw! gave it. png: 256 px square, black on white."""

    name: str
    png: bytes


def drawings(file: Path, word: str, most: int, first_bytes: int) -> Iterator[Drawing]:
    """Yield the first drawings of a word that the game recognised, from the first bytes of an .ndjson file.

    The last line may be cut. Lines that are no drawing are passed over with a warning. Raises InputError for a file with fewer
    than FEWEST drawings.
    """
    with file.open("rb") as opened:
        data = opened.read(first_bytes)
    *lines, rest = data.split(b"\n")
    seen: set[str] = set()
    bad = 0
    for line in [*lines, rest]:
        if len(seen) == most:
            break
        try:
            name = _recognised(line, word)
            if name and name not in seen:
                yield Drawing(name, encode_sketch(strokes.render(strokes.parse(line))))
                seen.add(name)
        except (BadImage, ValueError):
            bad += line is not rest
    if bad:
        events.warn(f"{file.name}: {bad} of {len(lines)} lines are no drawings, and were passed over")
    if len(seen) < min(FEWEST, most):
        raise InputError(
            f"{file} holds {len(seen)} drawings of {word!r}: is it the file of Quick, Draw!? remove it, or fetch it again"
        )


def _recognised(line: bytes, word: str) -> str:
    """Return the number of a drawing; "" where it is of another word, or the game did not recognise it. Raises ValueError."""
    if not line.strip():
        return ""
    value = parse_json(line)
    if not isinstance(value, dict) or value.get("word") != word or value.get("recognized") is not True:
        return ""
    name = str(value.get("key_id", ""))
    if not re.fullmatch(r"\d{1,24}", name):
        raise ValueError("a drawing without a number")
    return name
