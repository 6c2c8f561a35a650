"""Image bytes by (shard, row): Parquet is the exchange format, a memory-mapped Arrow file in the cache is the working copy.

Parquet cannot give one row without decoding its row group; so each process of a node shares one Arrow file a shard, made once
(checked against the manifest, written atomically) and mapped into memory.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.storage import cache_dir, sha256_file
from zsbir.data.samples import Samples
from zsbir.data.schema import shard_name


class Images:
    """The images of a data set: `images.read(position)` gives the stored bytes. Safe to share between threads."""

    def __init__(self, dataset: Artifact, samples: Samples):
        self._dataset, self._samples = dataset, samples
        self._columns: dict[int, pa.Array] = {}
        self._lock = threading.Lock()

    def read(self, position: int) -> bytes:
        """The encoded image at a position of the sample table. InputError when its shard is missing or damaged."""
        column = self._column(int(self._samples.shard[position]))
        data: bytes = column[int(self._samples.row[position])].as_py()
        return data

    def _column(self, shard: int) -> pa.Array:
        if shard not in self._columns:
            with self._lock:
                if shard not in self._columns:
                    self._columns[shard] = _map_column(self._dataset, shard)
        return self._columns[shard]


def _map_column(dataset: Artifact, shard: int) -> pa.Array:
    path = cache_dir() / "shards" / dataset.digest[:16] / f"{shard:05d}.arrow"
    if not path.exists():
        _write_working_copy(dataset, shard, path)
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).get_batch(0).column(0)


def _write_working_copy(dataset: Artifact, shard: int, path: Path) -> None:
    source = dataset.file(shard_name(shard))
    if sha256_file(source) != dataset.manifest.files[shard_name(shard)].sha256:
        raise InputError(f"{source} differs from its manifest: the shard was changed or damaged; ingest again")
    table = pq.read_table(source, columns=["image"]).combine_chunks()
    column = pc.struct_field(table["image"], "bytes").combine_chunks()
    batch = pa.record_batch([column], names=["bytes"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part, pa.ipc.new_file(part, batch.schema) as writer:
        writer.write_batch(batch)
    Path(part.name).replace(path)
