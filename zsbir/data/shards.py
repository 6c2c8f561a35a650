"""Image bytes by (shard, row): Parquet is the exchange format, a memory-mapped Arrow file in the cache is the working copy.

Parquet cannot give one row without decoding its row group, so all processes of a machine share one Arrow file a shard, made once
(fetched where it lies in object storage, checked against the manifest) and mapped into memory. Shards that the cache's bound leaves
no room for are read by the row group instead, each image checked by itself: slower, but the bound holds.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int

from zsbir.base import limits
from zsbir.base.artifact import Artifact, FileEntry
from zsbir.base.cache import cache_bytes, cached, is_cached
from zsbir.base.draft import SHOWN_FROM_MB
from zsbir.base.errors import InputError, RunError
from zsbir.base.events import Progress, warn
from zsbir.base.files import open_regular
from zsbir.base.parquet import budget_of, check_pages, damaged, leaves
from zsbir.base.ranged import RangedFile
from zsbir.base.storage import is_remote
from zsbir.data.samples import Samples
from zsbir.data.schema import ROW_GROUP_ROWS, shard_name

FETCHES = 4
"""Shards that are fetched at the same time."""

_BYTES = "image.bytes"
"""The column of encoded images."""

_GROUPS_KEPT = 64
_CACHE_SHARE = 0.8
"""Share of the cache's bound that one data set may take."""


class Images:
    """The images of a data set: `images.read(position)` gives the stored bytes. Thread-safe."""

    def __init__(self, dataset: Artifact, samples: Samples):
        self._dataset, self._samples = dataset, samples
        self._columns: dict[int, pa.Array] = {}
        self._locks: dict[int, threading.Lock] = {int(shard): threading.Lock() for shard in np.unique(samples.shard)}
        self._resident, left_out = _that_fit(dataset, sorted(self._locks))
        self._groups = _RowGroups(dataset)
        if left_out:
            warn(
                f"{left_out} of {len(self._locks)} shards of {dataset.uri} find no room in the cache and are read piece by piece, "
                f"which is slow: raise ZSBIR_CACHE_GB (now {cache_bytes() / 1e9:.0f})"
            )

    def read(self, position: int) -> bytes:
        """Return the encoded image at a position of the sample table. Raises InputError when its shard is missing or damaged."""
        shard, row = int(self._samples.shard[position]), int(self._samples.row[position])
        if shard in self._resident:
            return self._image(shard, row)
        try:
            return self._checked(position, shard, row)
        except InputError:
            self._groups.forget(shard)  # it may have been damaged on its way: once more
            return self._checked(position, shard, row)

    def _image(self, shard: int, row: int) -> bytes:
        """Return an image of a shard that has a working copy."""
        column = self._column(shard)
        data = column[row].as_py() if row < len(column) else None
        if not isinstance(data, bytes):
            raise InputError(f"{self._dataset.address(shard_name(shard))} has no image {row}; make the data set again")
        return data

    def _checked(self, position: int, shard: int, row: int) -> bytes:
        data = self._groups.read(shard, row)
        if hashlib.sha256(data).hexdigest() != self._samples.sha256[position]:
            raise InputError(f"{self._dataset.address(shard_name(shard))}: image {row} is damaged; make the data set again")
        return data

    def prefetch(self, positions: Int[np.ndarray, "n"]) -> None:
        """Fetch the shards of these images into the cache in the background, in the order in which they are needed.

        `read` waits for the shard of its image alone, and raises what went wrong with that one.
        """
        shards = self._samples.shard[positions]
        _, first = np.unique(shards, return_index=True)
        wanted = [int(shards[position]) for position in np.sort(first)]
        missing = [shard for shard in wanted if shard in self._resident and shard not in self._columns]
        if missing:
            threading.Thread(target=self._fetch, args=(missing,), daemon=True, name="fetch").start()

    def _fetch(self, shards: list[int]) -> None:
        files = self._dataset.manifest.files
        entries = {shard: files[shard_name(shard)] for shard in shards if shard_name(shard) in files}
        sizes = {shard: entry.size for shard, entry in entries.items() if not is_cached(_copy_name(entry))}
        quiet = not is_remote(self._dataset.uri) or sum(sizes.values()) < SHOWN_FROM_MB * 10**6
        queue = iter(shards)
        with Progress("fetch", total=sum(sizes.values()) // 10**6, unit="MB", quiet=quiet) as progress:

            def work() -> None:
                for shard in queue:  # taking the next of an iterator is one step, also among threads
                    with suppress(InputError, RunError, OSError):
                        self._column(shard)
                        progress.advance(sizes.get(shard, 0) // 10**6)

            threads = [threading.Thread(target=work, daemon=True, name="fetch") for _ in range(FETCHES)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _column(self, shard: int) -> pa.Array:
        if shard not in self._columns:
            with self._locks[shard]:
                if shard not in self._columns:
                    self._columns[shard] = _map_column(self._dataset, shard)
        return self._columns[shard]


def _that_fit(dataset: Artifact, shards: Sequence[int]) -> tuple[set[int], int]:
    """Return the shards whose working copies the cache has room for, and how many others there are."""
    room, fit = _CACHE_SHARE * cache_bytes(), set()
    for shard in shards:
        room -= dataset.manifest.files[shard_name(shard)].size if shard_name(shard) in dataset.manifest.files else 0
        if room >= 0:
            fit.add(shard)
    return fit, len(shards) - len(fit)


def _map_column(dataset: Artifact, shard: int) -> pa.Array:
    name = shard_name(shard)
    dataset.key(name)
    # The cache may evict the file between finding and opening it: ask again.
    for _ in range(3):
        path = cached(_copy_name(dataset.manifest.files[name]), lambda file: _write_working_copy(dataset, name, file))
        try:
            with pa.memory_map(str(path)) as source:
                return pa.ipc.open_file(source).get_batch(0).column(0)
        except FileNotFoundError:
            continue
    raise InputError(f"{path} vanished again and again: is something else cleaning the cache?")


def _copy_name(entry: FileEntry) -> str:
    return f"{entry.sha256}.arrow"


def _write_working_copy(dataset: Artifact, name: str, file: Path) -> None:
    if is_remote(dataset.uri):
        shard = file.with_name(file.name + ".parquet")
        try:
            dataset.download(name, shard)
            column = _read_images(shard, dataset.address(name))
        finally:
            shard.unlink(missing_ok=True)
    else:
        column = _read_images(dataset.verified(name), dataset.address(name))
    batch = pa.record_batch([column], names=["bytes"])
    with file.open("wb") as target, pa.ipc.new_file(target, batch.schema) as writer:
        writer.write_batch(batch)


def _read_images(path: Path, where: str) -> pa.Array:
    with damaged(where), open_regular(path) as source:
        metadata = pq.read_metadata(path)
        limit = min(limits.SHARD_BYTES, budget_of(path.stat().st_size))
        _check_images(source, metadata, None, limit, where)
        table = pq.ParquetFile(path, metadata=metadata).read(columns=[_BYTES])
        table.validate(full=True)
        return pc.struct_field(table.combine_chunks()["image"], "bytes").combine_chunks()


def _check_images(source: Any, metadata: Any, groups: Sequence[int] | None, limit: int, where: str) -> None:
    """Raise InputError where the images of these row groups (None: all) may take more bytes of memory than `limit`."""
    found = [leaf for leaf in leaves(metadata, ["image"], where, groups) if leaf.path == _BYTES]
    size = sum(leaf.most_bytes for leaf in found)
    if size > limit:
        raise InputError(f"{where} may ask for {size} bytes of images at once, more than the {limit} allowed")
    check_pages(source, found, where)


class _RowGroups:
    """Rows of shards that have no working copy, by ranged reads; the last few row groups are kept."""

    def __init__(self, dataset: Artifact):
        self._dataset = dataset
        self._files: dict[int, pq.ParquetFile] = {}
        self._kept: OrderedDict[tuple[int, int], pa.Array] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, shard: int, row: int) -> bytes:
        group, row_in_group = divmod(row, ROW_GROUP_ROWS)
        try:
            with self._lock:
                column = self._group(shard, group)
            data = column[row_in_group].as_py()
            if not isinstance(data, bytes):
                raise TypeError(f"image {row} is missing")  # noqa: TRY301 - reported below
        except FileNotFoundError:
            raise InputError(f"{self._dataset.uri} (dataset) has no file {shard_name(shard)!r}: it is gone") from None
        except (pa.ArrowException, OSError, LookupError, ValueError, TypeError) as error:
            line = " ".join(str(error).split())
            raise InputError(f"{self._dataset.address(shard_name(shard))} is damaged ({line}); make the data set again") from None
        return data

    def forget(self, shard: int) -> None:
        """Drop what is kept of a shard, so that it is read anew."""
        with self._lock:
            self._files.pop(shard, None)
            for key in [key for key in self._kept if key[0] == shard]:
                del self._kept[key]

    def _group(self, shard: int, group: int) -> pa.Array:
        key = (shard, group)
        if key not in self._kept:
            file, where = self._file(shard), self._dataset.address(shard_name(shard))
            with _opened(self._dataset, shard_name(shard)) as source:
                _check_images(source, file.metadata, [group], limits.ROW_GROUP_BYTES, where)
            self._kept[key] = pc.struct_field(file.read_row_group(group, [_BYTES])["image"], "bytes").combine_chunks()
        self._kept.move_to_end(key)
        while len(self._kept) > _GROUPS_KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _file(self, shard: int) -> pq.ParquetFile:
        if shard not in self._files:
            self._files[shard] = pq.ParquetFile(pa.PythonFile(_opened(self._dataset, shard_name(shard)), mode="r"))
        return self._files[shard]


def _opened(dataset: Artifact, name: str) -> Any:
    """Open a file of the data set for ranged reads."""
    path = dataset.folder.local(dataset.key(name))
    if path is not None:
        return open_regular(path)
    return RangedFile(dataset.folder, dataset.key(name), dataset.manifest.files[name].size)
