"""The fuzzer: good files, and hostile ones that once did harm, changed at random and read.

A short run tries some of each, always the same ones; `make test-long` tries others for a minute each. A failure names the seed that
makes the bytes again: `changed(examples, seed)`.
"""

from __future__ import annotations

import json
import random
import resource
import time
from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest

from zsbir.base import limits
from zsbir.base.artifact import Artifact

TRIES = 150
MINUTE_S = 60.0
MEMORY_BYTES = 1024 * limits.MIB
"""Memory by which a whole run may grow: no single reader may have taken gigabytes."""

NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
TEXTS = [
    b"../", b"/", b"\\", b"\0", b"\n", b"\x1b[2J", b"\xe2\x80\xae", b"\xff\xfe", b"NaN", b"1e999", b"[" * 2000, b"{}", b"9" * 30,
]  # fmt: skip
VALUES = [
    None, -1, 2**70, 1.5, "", "..", "../../x", "/etc/passwd", "a\x1b", "x" * 5000, [], [[[]]], {"uri": "/a/../b"}, {}, True,
]  # fmt: skip

Change = Callable[[list[bytes], int], bytes]


def changed(examples: list[bytes], seed: int) -> bytes:
    """Return one of the examples after one to six random changes."""
    rng = random.Random(seed)
    data = bytearray(rng.choice(examples))
    for _ in range(rng.randint(1, 6)):
        at, end = sorted(rng.randint(0, len(data)) for _ in range(2))
        end = min(end, at + rng.choice([1, 4, 16, 1000, len(data)]))
        size = rng.choice([1, 2, 4, 8])
        match rng.randrange(8):
            case 0 if data:
                data[min(at, len(data) - 1)] = rng.randrange(256)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end]
            case 3:
                data[at : at + size] = (rng.choice(NUMBERS) & (256**size - 1)).to_bytes(size, rng.choice(["little", "big"]))
            case 4:
                data[at:at] = rng.choice(TEXTS)
            case 5:
                data[at:end] = rng.choice(examples)[at:end]
            case 6:
                del data[at:]
            case _:
                data[at:end] = rng.randbytes(end - at)
    return bytes(data[: 4 * limits.MIB])


def json_changed(examples: list[bytes], seed: int) -> bytes:
    """Return a JSON example in which values were replaced by others of the wrong kind, or bytes were changed."""
    rng = random.Random(seed)
    value = value_of(rng.choice(examples))
    if rng.random() < 0.3 or not value:
        return changed(examples, seed)
    for _ in range(rng.randint(1, 4)):
        if not value:
            break
        here, key = value, rng.choice(keys_of(value))
        while isinstance(here[key], (dict, list)) and here[key] and rng.random() < 0.8:
            here = here[key]
            key = rng.choice(keys_of(here))
        if rng.random() < 0.3:
            other = here.pop(key)
            here.append(other) if isinstance(here, list) else here.update({str(rng.choice(VALUES)): other})
        else:
            here[key] = deepcopy(rng.choice(VALUES))
    return json.dumps(value).encode()


def value_of(example: bytes) -> dict | list | None:
    """Return the JSON object or list that an example is; None for anything else."""
    try:
        value = json.loads(example)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, (dict, list)) else None


def keys_of(value: dict | list) -> list:
    """Return the names or places of what a JSON object or list holds."""
    return list(value) if isinstance(value, dict) else list(range(len(value)))


def head_changed(examples: list[bytes], seed: int) -> bytes:
    """Return an example whose beginning was changed more often than the rest."""
    rng = random.Random(seed)
    data = rng.choice(examples)
    head = rng.choice([16, 64, 256, len(data)])
    return changed([data[:head]], seed) + data[head:]


def tries(seconds: float) -> Iterator[int]:
    """Yield seeds: the same few for a short run, others for as long as it may take."""
    if not seconds:
        yield from range(TRIES)
        return
    seed, until = time.time_ns(), time.monotonic() + seconds
    while time.monotonic() < until:
        yield seed
        seed += 1


def fuzz(examples: list[bytes], read: Callable[[bytes], object], errors, seconds: float, change: Change = changed) -> None:
    """Read the examples, and changed ones. Fails for any other exception, for long errors, and for memory beyond bounds."""
    before, answers = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, set()
    for data in examples:
        answers.add(answer_of(read, errors, data, "an example"))
    for seed in tries(seconds):
        answers.add(answer_of(read, errors, change(examples, seed), f"seed {seed}"))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MEMORY_BYTES, f"{grown / 1e6:.0f} MB"
    assert answers == {"read", "refused"}, "both happen, or nothing was tried"


def answer_of(read: Callable[[bytes], object], errors, data: bytes, which: str) -> str:
    line = None
    try:
        read(data)
    except errors as error:
        line = str(error)
    except BaseException as error:
        error.add_note(f"{which}, data {data[:200]!r}")
        raise
    assert line is None or 0 < len(line) < 10_000, which
    return "read" if line is None else "refused"


LENGTHS = pytest.mark.parametrize("seconds", [0.0, pytest.param(MINUTE_S, marks=pytest.mark.long)])


class Unchecked(Artifact):
    """An artifact whose maker signed whatever its files hold."""

    def _matches_manifest(self, name, path):
        return True
