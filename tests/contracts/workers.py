"""What processes of a crew do."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Barrier

from zsbir.base.storage import folder


def create_each(uri: str, keys: Sequence[str], data: bytes, barrier: Barrier) -> list[bool]:
    """Try to create each of the files, all processes at the same moment."""
    place, won = folder(uri), []
    for key in keys:
        barrier.wait(60)
        won.append(place.create(key, data))
    return won
