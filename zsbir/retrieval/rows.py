"""Vectors of a gallery whose parts may lie in several files, mapped from disk.

Letters: n rows over all parts, d dimensions, r rows asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64

from zsbir.base.errors import InputError


class Rows:
    """Float vectors in parts, one after the other in gallery order. Nothing is read before it is asked for."""

    def __init__(self, parts: Sequence[Float32[np.ndarray, "_ d"]]):
        for part in parts:
            if part.ndim != 2 or part.shape[1] != parts[0].shape[1]:
                raise InputError(f"gallery: expected matrices of one width, got shapes {[part.shape for part in parts]}")
        # A memmap is a subclass, whose every slice costs microseconds more than an array's.
        self._parts = [np.asarray(part) for part in parts if len(part)]
        self._ends = np.cumsum([len(part) for part in self._parts])
        if not self._parts or not self._parts[0].shape[1]:
            raise InputError("gallery: expected at least one row and column")
        self.dimensions: int = self._parts[0].shape[1]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def between(self, start: int, stop: int) -> Float32[np.ndarray, "r d"]:
        """Return the rows from `start` to before `stop`: a view where they lie in one part."""
        pieces, began = [], 0
        for part, end in zip(self._parts, self._ends.tolist(), strict=True):
            if start < end and began < stop:
                pieces.append(part[max(0, start - began) : stop - began])
            began = end
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def take(self, rows: Int64[np.ndarray, "r"]) -> Float32[np.ndarray, "r d"]:
        """Return a copy of the rows of these numbers, in this order."""
        if len(self._parts) == 1:
            return self._parts[0].take(rows, axis=0)
        taken = np.empty((len(rows), self.dimensions), np.float32)
        holder, began = np.searchsorted(self._ends, rows, side="right"), 0
        for number, (part, end) in enumerate(zip(self._parts, self._ends.tolist(), strict=True)):
            here = np.flatnonzero(holder == number)
            if len(here):
                taken[here] = part.take(rows[here] - began, axis=0)
            began = end
        return taken
