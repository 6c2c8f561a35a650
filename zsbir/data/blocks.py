"""A data set cut into blocks: the unit of packing, of resuming after a crash, and of distributed work. Each becomes a shard.

Where the cuts lie depends on the images and the configuration alone, so the files are the same for any number of workers and of
interruptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from zsbir.data.preparing import Source

BLOCK_BYTES = 64_000_000
BLOCK_IMAGES = 4096


@dataclass(frozen=True)
class Block:
    """The sources of shard `number`. `start`: the sample id of the first one, its position in the plan of the whole data set."""

    number: int
    start: int
    sources: Sequence[Source]


@dataclass(frozen=True)
class Cuts:
    """Where each block ends, in the order of blocks; the first begins at 0."""

    stops: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.stops)

    def bounds(self, number: int) -> tuple[int, int]:
        """Return the position of a block's first source, and the position after its last."""
        return self.stops[number - 1] if number else 0, self.stops[number]

    def images(self, number: int) -> int:
        """Return how many sources a block has."""
        start, stop = self.bounds(number)
        return stop - start

    def blocks(self, sources: Sequence[Source], numbers: Sequence[int]) -> Iterator[Block]:
        """Yield the blocks of these numbers, each made when it is asked for."""
        for number in numbers:
            start, stop = self.bounds(number)
            yield Block(number, start, sources[start:stop])


def cut(sizes: Int64[np.ndarray, "n"], joined: Bool[np.ndarray, "n"], *, max_bytes: int, max_images: int) -> Cuts:
    """Cut the sources into blocks, in order, each of at most `max_bytes` and `max_images` together.

    sizes: bytes of each source. joined: whether it must lie in the block of the one before it. A group that exceeds a bound
    alone becomes a block of its own.
    """
    firsts = np.flatnonzero(~joined | (np.arange(len(joined)) == 0))
    if not len(firsts):
        return Cuts(())
    together = np.add.reduceat(sizes, firsts).tolist(), np.diff(firsts, append=len(sizes)).tolist()
    stops, size, images = [], 0, 0
    for first, more_size, more_images in zip(firsts.tolist(), *together, strict=True):
        if images and (size + more_size > max_bytes or images + more_images > max_images):
            stops.append(first)
            size = images = 0
        size, images = size + more_size, images + more_images
    return Cuts((*stops, len(sizes)))


def stored_bytes(sizes: Int64[np.ndarray, "n"], short_side_px: int) -> Int64[np.ndarray, "n"]:
    """Estimate the bytes that files of these sizes take in a shard: larger images are reduced first (0: none is).

    200 photos of ImageNet, reduced to a short side of s px, took 0.5 s**2 to 2.1 s**2 bytes.
    """
    return np.minimum(sizes, 2 * short_side_px**2) if short_side_px else sizes
