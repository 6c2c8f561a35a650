"""What opening an index takes, plain and prepared for search options, by the number of its photos.

    PYTHONPATH=tests python -m bench.opening 10000 20000 50000

Vectors of 512 dimensions are scattered around one centre for each hundred of them; statistics are measured on as many around other
centres. The thumbnails are tiny. Prints the seconds of all threads on a CPU, and those by the clock. Not a test.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bench.machine import described
from building import put
from pictures import encoded, picture

from zsbir.evaluation.statistics import STATISTICS_FILE
from zsbir.index import IndexConfig
from zsbir.model.encoder import Encoder
from zsbir.retrieval.options import SearchOptions
from zsbir.retrieval.whitening import measure_statistics
from zsbir.search_run.choice import Wanted
from zsbir.search_run.engine import Engine

DIMENSIONS, OF_A_KIND = 512, 100


def scattered(count: int, kinds: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors around points, with a cosine of about .5 between two of a kind, and the kind of each."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(kinds), count)
    return (kinds[labels] + random.standard_normal((count, DIMENSIONS))).astype(np.float32), labels


def index_of(photos: int, place: Path) -> str:
    """Return the URI of an index of that many photos, with statistics of training embeddings."""
    random = np.random.default_rng(0)
    training, kinds = (random.standard_normal((count, DIMENSIONS)) for count in (50, photos // OF_A_KIND))
    measure_statistics(*scattered(1000, training, 1), *scattered(1000, training, 2)).save(place / "statistics")
    Encoder("resnet18", DIMENSIONS, 112).save(place / "encoder")
    vectors, items = io.BytesIO(), io.BytesIO()
    np.save(vectors, scattered(photos, kinds, 3)[0])
    columns = {
        "item_id": pa.array(range(photos), pa.int64()),
        "path": [f"{number}.jpg" for number in range(photos)],
        "class_name": [""] * photos,
        "thumbnail": pa.array([encoded(picture(16, 16), "JPEG")] * photos, pa.binary()),
    }
    pq.write_table(pa.table(columns), items, row_group_size=64)
    files = {
        "encoder.safetensors": (place / "encoder").read_bytes(),
        STATISTICS_FILE: (place / "statistics").read_bytes(),
        "vectors.npy": vectors.getvalue(),
        "items.parquet": items.getvalue(),
    }
    return put(str(place), "index", files=files, config=IndexConfig(precision="fp32"), counts={"photos": photos}).uri


def main() -> None:
    """Open indexes of the sizes on the command line."""
    torch.manual_seed(0)
    print(described())
    for photos in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as place:
            uri = index_of(photos, Path(place))
            wanted: dict[str, Wanted] = {"plain": "plain", "default": SearchOptions(flip=False)}
            Engine(uri)  # the first opening loads libraries
            for name, options in wanted.items():
                began_s, began_cpu_s = time.perf_counter(), time.process_time()
                Engine(uri, wanted=options)
                cpu_s, clock_s = time.process_time() - began_cpu_s, time.perf_counter() - began_s
                print(f"{photos} photos, {name:7}: {cpu_s:6.2f} CPU seconds, {clock_s:6.2f} by the clock", flush=True)


if __name__ == "__main__":
    main()
