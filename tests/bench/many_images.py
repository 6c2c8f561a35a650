"""Ingest of many tiny images that no disk holds, or the opening of what came of it; prints what it cost as JSON.

    python many_images.py ingest ROOT COUNT
    python many_images.py open URI

No benchmark in itself: `bench_ingest` runs it, since the peak of a process's memory is that of its whole life.
"""

from __future__ import annotations

import json
import struct
import sys
import time
import zlib
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from zsbir import ingest
from zsbir.base.artifact import Artifact
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.ingestion import plan

CLASSES = 100
SIDE_PX = 8


@dataclass(frozen=True, slots=True)
class Drawn:
    """Image `number`: a PNG of 64 grey pixels that no other one has."""

    path: str
    domain: str
    class_name: str
    number: int
    split_hint: str | None = None

    def read(self, folder: object) -> bytes:
        """About 150 bytes."""
        rows = ((self.number * 2654435761 + row * 97) % 2**64 for row in range(SIDE_PX))
        pixels = b"".join(b"\0" + row.to_bytes(SIDE_PX, "little") for row in rows)
        header = struct.pack(">IIBBBBB", SIDE_PX, SIDE_PX, 8, 0, 0, 0, 0)
        parts = {b"IHDR": header, b"IDAT": zlib.compress(pixels, 1), b"IEND": b""}
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts.items())

    def stamp(self, tree: object) -> tuple[int, ...]:
        """What decides it."""
        return (self.number,)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def drawn(count: int) -> list[Drawn]:
    """Half photos, half sketches, of all classes in turn."""
    kinds = [(domain, f"class_{number:03d}") for domain in ("photo", "sketch") for number in range(CLASSES)]
    turns = zip(range(count), cycle(kinds), strict=False)
    return [Drawn(f"{domain}/{name}/{number:07d}.png", domain, name, number) for number, (domain, name) in turns]


def made(root: str, count: int) -> dict[str, Any]:
    """Ingest `count` images in this process."""
    plan._sources = lambda config, tree: drawn(count)
    config = ingest.IngestConfig(layout="folder", unseen_frac=0.2, name=f"many{count}")
    return {"uri": ingest.ingest(config, ".", ingest.Settings(root=root, threads=2)).uri}


def opened(uri: str) -> dict[str, Any]:
    """Open a data set as every stage does, and read its last image."""
    dataset = Artifact(uri, "dataset")
    samples = load_samples(dataset)
    images = Images(dataset, samples)
    return {"samples": len(samples), "images": repr(images)}


def main() -> None:
    """See the module."""
    began, before_mb = time.perf_counter(), peak_mb()
    found = opened(sys.argv[2]) if sys.argv[1] == "open" else made(sys.argv[2], int(sys.argv[3]))
    costs = {"s": time.perf_counter() - began, "before_mb": before_mb, "peak_mb": peak_mb()}
    print(json.dumps({**found, **costs}))


def peak_mb() -> float:
    """The most memory this process has had so far. (getrusage would tell that of the process it was forked from.)"""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
