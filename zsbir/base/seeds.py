"""Streams of random numbers: each is named by its purpose and by numbers, and no two of them are the same.

NumPy's own seeds made of several numbers collide, because they are joined to words of 32 bits and filled up with zeros: [0, 5, 0]
and [0, 5] give one stream, and so do [1, 1] and [2**32 + 1]. Here purpose and numbers are hashed to one seed of 256 bits.

Draws that decide what is in a data set, or in weights that `zsbir.pretrain` makes, keep the seeds of version 0.1.0: other draws
would give another content to something that has a name already. Each purpose of these always has equally many numbers, so its own
streams are different too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

Purpose = Literal[
    "augmentation",  # seed, step, position in the global batch
    "order of classes",  # seed
    "order of images",  # seed, class, domain
    "random trial",  # seed of the sweep, number of the draw
    "TPE trial",  # seed of the sweep, number of the trial, number of the try
    "dev classes",  # seed
    "unseen classes",  # seed
    "training statistics",  # domain
    "calibration images",  # how many at most
    "calibration galleries",  # photos of a class
    "permuted knowledge",  # seed
    "layers that draw",  # seed, step, worker
    "losses that draw",  # seed, step
    "stochastic depth",  # seed, step
    "queries of a graph",  # how many photos there are
    "sketches to measure",  # how many there are
    "toy drawing",  # seed, class, domain, number
    "pretext form",  # class
    "pretext photo",  # seed, part, class, number
]
"""What random numbers are for, and which numbers tell the streams of one purpose apart."""

_FIRST_VERSION: Mapping[Purpose, Callable[..., list[int]]] = {
    "dev classes": lambda seed: [seed, 2],
    "unseen classes": lambda seed: [seed, 1],
    "toy drawing": lambda seed, class_number, domain, number: [seed, class_number, domain, number],
    "pretext form": lambda class_number: [class_number, 7],
    "pretext photo": lambda seed, part, class_number, number: [seed, part, class_number, number],
}
"""The seeds of version 0.1.0, for purposes that decide a stored content."""


def stream(purpose: Purpose, *numbers: int) -> np.random.Generator:
    """Return the stream of random numbers for a purpose, from its beginning; the same one for the same arguments."""
    if purpose in _FIRST_VERSION:
        return np.random.default_rng(_FIRST_VERSION[purpose](*numbers))
    return np.random.default_rng(_hashed(purpose, numbers, bits=256))


def short_seed(purpose: Purpose, *numbers: int) -> int:
    """Return a seed of 32 bits for a library that takes no longer one; two are equal by chance once in four thousand million."""
    return _hashed(purpose, numbers, bits=32)


def _hashed(purpose: Purpose, numbers: tuple[int, ...], *, bits: int) -> int:
    """Return the first bits of the sha256 of the arguments' JSON, which no other arguments have."""
    text = json.dumps([purpose, *map(int, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[: bits // 8], "little")
