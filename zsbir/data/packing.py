"""From sources to shards: each image read and checked in threads, then written in order as the Dataset's Parquet files.

Memory stays bounded: a few images a worker wait in order, and a row group is written as soon as it is full.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq

from zsbir.base.artifact import Draft
from zsbir.data.images import BadImage, decode, is_blank, normalise_for_storage
from zsbir.data.schema import ROW_GROUP_ROWS, SAMPLE_FIELDS, SAMPLES_SCHEMA, SHARD_SCHEMA, shard_name

SHARD_BYTES = 64_000_000
MAX_FILE_BYTES = 100_000_000
_WAITING_PER_WORKER = 8


@runtime_checkable
class Source(Protocol):
    """What can be packed: an image file, a drawing of strokes, a toy."""

    @property
    def path(self) -> str:
        """Relative to the data set's root."""

    @property
    def domain(self) -> str:
        """`photo` or `sketch`."""

    @property
    def class_name(self) -> str:
        """The class, in the data set's spelling."""

    @property
    def split_hint(self) -> str | None:
        """`seen` or `unseen`, where the data set itself says so."""

    def read(self, root: Path) -> bytes:
        """The bytes of the image. Raises OSError or BadImage."""

    def stamp(self, root: Path) -> Sequence[int]:
        """What changes when the source changes, without reading it."""


@dataclass(frozen=True)
class Packed:
    """A good image as it goes into a shard."""

    data: bytes
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class Refused:
    """Why an image does not go into a shard."""

    reason: str


def prepare(source: Source, root: Path, short_side_px: int) -> Packed | Refused:
    """One image read, checked and brought into the form of shards."""
    try:
        data = source.read(root)
        if len(data) > MAX_FILE_BYTES:
            return Refused(f"a file of {len(data)} bytes, more than the {MAX_FILE_BYTES} allowed")
        image = decode(data)
        if is_blank(image):
            return Refused("blank: all one colour")
        stored, width, height = normalise_for_storage(data, image, short_side_px, source.domain)
    except BadImage as error:
        return Refused(str(error))
    except OSError as error:
        return Refused(f"cannot be read: {error.strerror or error}")
    return Packed(stored, width, height, hashlib.sha256(stored).hexdigest())


def prepare_all(sources: Sequence[Source], root: Path, short_side_px: int, workers: int) -> Iterator[Packed | Refused]:
    """`prepare` of every source, in order. Threads, since decoding leaves Python's lock alone."""
    with ThreadPoolExecutor(workers, thread_name_prefix="ingest") as pool:
        waiting: deque[Future[Packed | Refused]] = deque()
        try:
            for source in sources:
                waiting.append(pool.submit(prepare, source, root, short_side_px))
                if len(waiting) >= workers * _WAITING_PER_WORKER:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Row:
    """One row of the sample table, without the image's own columns."""

    source: Source
    class_id: int
    split: str


class ShardWriter:
    """Writes shards of about 64 MB into a draft, row group by row group, and keeps the sample table."""

    def __init__(self, work: Draft, shard_bytes: int = SHARD_BYTES):
        self._work, self._shard_bytes = work, shard_bytes
        self._rows: list[dict[str, Any]] = []
        self._samples: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None
        self._shard, self._shard_rows, self._written = 0, 0, 0

    def add(self, row: Row, packed: Packed) -> None:
        """The next image. Its sample id is its place in the order of calls."""
        values = {
            "sample_id": len(self._samples),
            "domain": row.source.domain,
            "class_id": row.class_id,
            "class_name": row.source.class_name,
            "split": row.split,
            "width": packed.width,
            "height": packed.height,
            "sha256": packed.sha256,
            "path": row.source.path,
        }
        self._samples.append({**values, "shard": self._shard, "row": self._shard_rows})
        self._rows.append({**values, "image": {"bytes": packed.data, "path": row.source.path}})
        self._shard_rows += 1
        self._written += len(packed.data)
        if len(self._rows) == ROW_GROUP_ROWS:
            self._flush()
            if self._written >= self._shard_bytes:
                self._close_shard()

    def finish(self) -> pa.Table:
        """Close the last shard, write samples.parquet, and return that table (SAMPLES_SCHEMA)."""
        self._flush()
        self._close_shard()
        table = pa.Table.from_pylist(self._samples, SAMPLES_SCHEMA)
        pq.write_table(table, self._work.file("samples.parquet"), compression="zstd")
        return table

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._writer = _open_shard(self._work.file(shard_name(self._shard)))
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._writer.schema), row_group_size=ROW_GROUP_ROWS)
        self._rows = []

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._shard, self._shard_rows, self._written = self._shard + 1, 0, 0


def _open_shard(path: Path) -> pq.ParquetWriter:
    """Images are compressed already, and their statistics would only swell the footer."""
    names = [field.name for field in SAMPLE_FIELDS]
    return pq.ParquetWriter(
        path,
        SHARD_SCHEMA.with_metadata({b"huggingface": _hugging_face_features()}),
        compression="none",
        use_dictionary=["domain", "class_name", "split"],
        write_statistics=names,
    )


def _hugging_face_features() -> bytes:
    """What makes `datasets` decode the image column."""
    features: dict[str, dict[str, str]] = {field.name: {"dtype": str(field.type), "_type": "Value"} for field in SAMPLE_FIELDS}
    features["image"] = {"_type": "Image"}
    return json.dumps({"info": {"features": features}}).encode()
