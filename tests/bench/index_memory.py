"""Peak memory of making and opening an index, by the number of its photos: the slope that 10 million photos are told from.

    python tests/bench/index_memory.py 10000 100000                 whole: a folder of tiny photos, listed, read, embedded, written
    python tests/bench/index_memory.py --write 100000 1000000       vectors of 512 dimensions and thumbnails of 2 kB, written alone
    python tests/bench/index_memory.py --open 100000 1000000        such an index opened, and a mask of a filter made

Each number is measured in a process of its own. The network is one of a single layer; a real one takes its own memory once. Not a
test: it takes minutes, and files of n x 4 kB in the folder for temporary files.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

DIMENSIONS = 512
THUMBNAIL_BYTES = 2000
CHUNK = 64


def peak_mb() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def whole(photos: int, place: Path) -> float:
    """Make an index of a folder of that many photos of 8 x 8 pixels. Return peak memory before it began."""
    from index_photos import Small
    from pictures import encoded, picture

    from zsbir.index import IndexConfig, Settings, build_index
    from zsbir.index_run import embedding

    data = encoded(picture(8, 8))
    for number in range(photos):
        file = place / "photos" / f"{number // 1000:05d}" / f"photo-{number:08d}.png"
        if number % 1000 == 0:
            file.parent.mkdir(parents=True)
        file.write_bytes(data)
    embedding.Encoder.load = lambda _: Small()  # type: ignore[method-assign, assignment]
    run = _run(place)
    before = peak_mb()
    build_index(run, IndexConfig(gallery=str(place / "photos")), Settings(root=str(place / "root")))
    return before


def written(photos: int, place: Path) -> float:
    """Write a segment of that many photos. Return peak memory before it began."""
    _write(photos, place, rehearse=True)
    before = peak_mb()
    _write(photos, place)
    return before


def opened(photos: int, place: Path) -> float:
    """Open an index of that many photos and make a filter's mask. Return peak memory before it began."""
    from zsbir.base.artifact import Artifact
    from zsbir.data.index_files import IndexFiles
    from zsbir.data.items import Filter

    subprocess.run(
        [sys.executable, __file__, "--one", "write", str(photos), "--place", str(place)], check=True, stdout=subprocess.PIPE
    )
    before = peak_mb()
    files = IndexFiles(Artifact(place / "root" / "indexes" / "it" / "0", "index"), DIMENSIONS)
    mask = files.mask(Filter(folder="00001"))
    assert mask is not None
    assert mask.sum() == min(1000, max(photos - 1000, 0))
    return before


def _write(photos: int, place: Path, *, rehearse: bool = False) -> None:
    import pyarrow as pa

    from zsbir.base.draft import draft
    from zsbir.index_run.writing import SegmentWriter, items_schema

    random, rows = np.random.default_rng(0), 1000 if rehearse else photos
    with draft(place / "root" / "indexes" / "it" / ("rehearsal" if rehearse else "0"), "index", "it") as work:
        with SegmentWriter(work, DIMENSIONS, items_schema({}, stamps=True, sources=False)) as writer:
            for start in range(0, rows, CHUNK):
                numbers = range(start, min(start + CHUNK, rows))
                paths = [f"{number // 1000:05d}/photo-{number:08d}.png" for number in numbers]
                thumbnails = [random.bytes(THUMBNAIL_BYTES) for _ in numbers]
                items = {"path": paths, "class_name": [""] * len(paths), "thumbnail": pa.array(thumbnails, pa.binary())}
                writer.add(random.random((len(paths), DIMENSIONS), np.float32), pa.table(items))
        work.commit(digest="0" * 64, counts={"photos": rows})


def _run(place: Path) -> str:
    import torch
    from building import put

    from zsbir.model.encoder import save_encoder

    save_encoder(place / "encoder", {"backbone": "resnet18", "embedding_dim": 8, "image_px": 8}, {"nothing": torch.zeros(1)})
    return put(str(place / "root"), "run", files={"encoder.safetensors": (place / "encoder").read_bytes()}).uri


MODES = {"whole": whole, "write": written, "open": opened}


def main() -> None:
    """Measure each number in a process of its own, and print the slope between the last two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--write", dest="mode", action="store_const", const="write", default="whole")
    parser.add_argument("--open", dest="mode", action="store_const", const="open")
    parser.add_argument("--one", choices=sorted(MODES))
    parser.add_argument("--place", type=Path)
    asked = parser.parse_args()
    if asked.one:
        before = MODES[asked.one](asked.photos[0], asked.place)
        print(before, peak_mb())
        return
    found: list[tuple[int, float]] = []
    for photos in asked.photos:
        place, started = Path(tempfile.mkdtemp()), time.monotonic()
        words = [sys.executable, __file__, "--one", asked.mode, str(photos), "--place", str(place)]
        out = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
        shutil.rmtree(place)
        before, peak = map(float, out.split()[-2:])
        found.append((photos, peak - before))
        took_s = time.monotonic() - started
        print(f"{asked.mode} {photos:>9,} photos: {peak:8.0f} MB at most, {peak - before:8.1f} more than before; {took_s:.0f} s")
    (few, less), (many, more) = found[-2:]
    slope = (more - less) / (many - few)
    print(f"slope {1000 * slope:.3f} kB a photo; 10 million photos: {(more + slope * (10_000_000 - many)) / 1000:.1f} GB")


if __name__ == "__main__":
    main()
