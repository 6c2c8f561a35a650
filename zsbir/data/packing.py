"""From blocks of sources to shards: images read and checked in threads, each block's shard published, then its record written.

A record is a small file `.parts/00007.arrow` beside the shards: the block's rows of the sample table, its refused images, and
which shard holds it. A block with a record is not packed again when another process resumes; when the data set is complete,
the records are removed. Memory stays bounded: a few images a thread wait in order, and a row group is written once it is full.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL
import pyarrow as pa
import pyarrow.parquet as pq

from zsbir.base.artifact import FileEntry
from zsbir.base.cores import usable_cores
from zsbir.base.files import sha256_file
from zsbir.base.storage import is_remote, open_folder
from zsbir.data.blocks import Block
from zsbir.data.preparing import Form, Packed, Refused, Source, prepare_all
from zsbir.data.schema import (
    IMAGE_FIELD,
    QUARANTINE_SCHEMA,
    ROW_GROUP_ROWS,
    SAMPLE_FIELDS,
    SAMPLES_SCHEMA,
    SHARD_SCHEMA,
    shard_name,
)

if TYPE_CHECKING:
    from zsbir.base.storage import Folder

PARTS = ".parts"
"""The folder of records, beside the shards."""

SHARDS_WAITING = 3
"""Finished shards that may wait to be published while the next is packed, which bounds the disk they take."""

_FORM = f"2, pyarrow {pa.__version__}, pillow {PIL.__version__}"
"""Format and library versions. Others may write other bytes, so shards of different versions are not mixed."""

_REMOTE_THREADS = 4
"""Threads a core where sources lie in object storage: most of them wait for an answer."""


class OtherForm(Exception):  # noqa: N818 - not an error: the block is packed again
    """Raised for bytes that are not a record, or were written by another version of this program."""


@dataclass(frozen=True)
class Shard:
    """A published shard: its key, size and checksum."""

    key: str
    entry: FileEntry


@dataclass(frozen=True)
class Record:
    """A packed block: its rows of the sample table, the refused images, and its shard (None where all were refused).

    inverted: the paths of its sketches that came as light strokes on a dark ground.
    """

    samples: pa.Table
    refused: pa.Table
    shard: Shard | None
    inverted: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Serialise as an Arrow file whose metadata holds the rest. Equal records give equal bytes."""
        key, file = (self.shard.key, self.shard.entry.model_dump()) if self.shard else ("", {})
        rest = {"form": _FORM, "key": key, "file": file, "refused": self.refused.to_pylist(), "inverted": self.inverted}
        table = self.samples.combine_chunks().replace_schema_metadata({"zsbir": json.dumps(rest)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    @staticmethod
    def of(data: bytes) -> Record:
        """Read the record in these bytes. Raises OtherForm."""
        try:
            table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
            rest: dict[str, Any] = json.loads(table.schema.metadata[b"zsbir"])
            if rest["form"] != _FORM:
                raise OtherForm(rest["form"])
            refused = pa.Table.from_pylist(rest["refused"], QUARANTINE_SCHEMA)
            shard = Shard(rest["key"], FileEntry(**rest["file"])) if rest["key"] else None
            inverted = tuple(map(str, rest["inverted"]))
        except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
            raise OtherForm(str(error)) from None
        return Record(table.replace_schema_metadata(None), refused, shard, inverted)


def record_name(number: int) -> str:
    """Return the file of the record of block `number`, relative to the data set."""
    return f"{PARTS}/{number:05d}.arrow"


def found_records(target: Folder) -> dict[int, Record]:
    """Find the records in a data set's folder, by block: those whose shard is there, as large as it should be."""
    sizes = {f"shards/{entry.key}": entry.size for entry in target.sub("shards").walk()}
    keys = [entry.key for entry in target.sub(PARTS).walk() if Path(entry.key).stem.isdecimal()]

    def read(key: str) -> Record | None:
        try:
            record = Record.of(target.read(f"{PARTS}/{key}"))
        except (OtherForm, FileNotFoundError):
            return None
        whole = record.shard is None or sizes.get(record.shard.key) == record.shard.entry.size
        return record if whole else None

    with ThreadPoolExecutor(16) as pool:
        records = zip(keys, pool.map(read, keys), strict=True)
        return {int(Path(key).stem): record for key, record in records if record}


@dataclass(frozen=True)
class Packing:
    """How blocks are packed. classes: id and split of each class by name. dedup: photos of equal bytes in a class once.

    invert_sketches: those of light strokes on a dark ground are stored dark on light.
    """

    short_side_px: int
    classes: Mapping[str, tuple[int, str]]
    dedup: bool = False
    invert_sketches: bool = False


class Packer:
    """Packs blocks of a data set. It opens the folders of images and shards by their URIs, so that any process can do it.

    threads: how many read and check images; 0: by `cores`.
    """

    def __init__(self, source_uri: str, target_uri: str, packing: Packing, threads: int, cores: int = 0):
        self._source, self._target, self._packing = open_folder(source_uri), open_folder(target_uri), packing
        cores = cores or usable_cores()
        self._threads = threads or cores * (_REMOTE_THREADS if is_remote(source_uri) else 1)

    def pack(self, blocks: Iterable[Block], advance: Callable[[], object] = lambda: None) -> Iterator[bytes]:
        """Yield the record of each block, in order, once both it and the shard are stored. `advance` is called after each image.

        A block's shard goes up while the next block is packed.
        """
        waiting: deque[Future[bytes]] = deque()
        with self._target.workspace() as work, ThreadPoolExecutor(SHARDS_WAITING, thread_name_prefix="publish") as pool:
            for block in blocks:
                record = self._write(block, work / f"{block.number}", advance)
                waiting.append(pool.submit(self._publish, block.number, work / f"{block.number}", record))
                while waiting and (len(waiting) > SHARDS_WAITING or waiting[0].done()):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _write(self, block: Block, file: Path, advance: Callable[[], object]) -> Record:
        """Write the block's shard to `file` (none where no image is left); return its record, without the shard's address."""
        writer = ShardWriter(file, block.number, self._packing.classes)
        refused: list[dict[str, str]] = []
        inverted: list[str] = []
        form = Form(self._packing.short_side_px, self._packing.invert_sketches)
        seen: set[tuple[str, str]] = set()
        prepared = prepare_all(block.sources, self._source, form, self._threads)
        for sample_id, (source, result) in enumerate(zip(block.sources, prepared, strict=True), block.start):
            advance()
            if isinstance(result, Refused):
                refused.append(_refusal(source, result))
            elif not (self._packing.dedup and source.domain == "photo" and (source.class_name, result.sha256) in seen):
                seen.add((source.class_name, result.sha256))
                writer.add(sample_id, source, result)
                inverted += [source.path] if result.inverted else []
        return Record(writer.finish(), pa.Table.from_pylist(refused, QUARANTINE_SCHEMA), None, tuple(inverted))

    def _publish(self, number: int, file: Path, packed: Record) -> bytes:
        shard = None
        if packed.samples.num_rows:
            entry = FileEntry(size=file.stat().st_size, sha256=sha256_file(file))
            shard = Shard(self._target.publish(shard_name(number), file, entry.sha256), entry)
        record = replace(packed, shard=shard).to_bytes()
        self._target.replace(record_name(number), record)
        return record


def _refusal(source: Source, refused: Refused) -> dict[str, str]:
    return {"path": source.path, "domain": source.domain, "class_name": source.class_name, "reason": refused.reason}


class ShardWriter:
    """Writes one shard, row group by row group, and keeps its rows of the sample table."""

    def __init__(self, file: Path, number: int, classes: Mapping[str, tuple[int, str]]):
        self._file, self._number, self._classes = file, number, classes
        self._ids: list[int] = []
        self._images: list[tuple[Source, Packed]] = []
        self._samples: list[pa.RecordBatch] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, sample_id: int, source: Source, packed: Packed) -> None:
        """Append an image to the shard that is being written."""
        self._ids.append(sample_id)
        self._images.append((source, packed))
        if len(self._images) == ROW_GROUP_ROWS:
            self._flush()

    def finish(self) -> pa.Table:
        """Close the file, and return its rows of the sample table (SAMPLES_SCHEMA)."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
        table = pa.Table.from_batches(self._samples, pa.schema(SAMPLE_FIELDS))
        shard = pa.array([self._number] * len(table), pa.int32())
        row = pa.array(range(len(table)), pa.int32())
        return table.append_column("shard", shard).append_column("row", row).cast(SAMPLES_SCHEMA).combine_chunks()

    def _flush(self) -> None:
        if not self._images:
            return
        if self._writer is None:
            self._writer = _open_shard(self._file)
        samples, images = self._columns()
        self._writer.write_batch(pa.record_batch([*samples, images], self._writer.schema), row_group_size=ROW_GROUP_ROWS)
        self._samples.append(pa.record_batch(samples, pa.schema(SAMPLE_FIELDS)))
        self._ids, self._images = [], []

    def _columns(self) -> tuple[list[pa.Array], pa.Array]:
        sources, packed = [source for source, _ in self._images], [packed for _, packed in self._images]
        class_ids, splits = zip(*(self._classes[source.class_name] for source in sources), strict=True)
        paths = [source.path for source in sources]
        columns: list[Iterable[Any]] = [
            self._ids,
            [source.domain for source in sources],
            class_ids,
            [source.class_name for source in sources],
            splits,
            [image.width for image in packed],
            [image.height for image in packed],
            [image.sha256 for image in packed],
            paths,
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SAMPLE_FIELDS, strict=True)]
        data = pa.array([image.data for image in packed], pa.binary())
        return arrays, pa.StructArray.from_arrays([data, arrays[-1]], fields=list(IMAGE_FIELD.type))


def _open_shard(path: Path) -> pq.ParquetWriter:
    """Open a shard for writing. Images are compressed already, and their statistics would only swell the footer."""
    return pq.ParquetWriter(
        path,
        SHARD_SCHEMA.with_metadata({b"huggingface": _hugging_face_features()}),
        compression="none",
        use_dictionary=["domain", "class_name", "split"],
        write_statistics=[field.name for field in SAMPLE_FIELDS],
    )


def _hugging_face_features() -> bytes:
    """Return the metadata by which the `datasets` library decodes the image column."""
    features: dict[str, dict[str, str]] = {field.name: {"dtype": str(field.type), "_type": "Value"} for field in SAMPLE_FIELDS}
    features["image"] = {"_type": "Image"}
    return json.dumps({"info": {"features": features}}).encode()
