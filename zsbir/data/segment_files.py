"""The files of one segment of an index, which anybody may have made, opened within bounds."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64
from PIL import Image

from zsbir.base import limits
from zsbir.base.errors import InputError
from zsbir.base.files import open_regular
from zsbir.base.parquet import check_pages, damaged, leaves, read_table
from zsbir.data.images import BadImage, decode
from zsbir.data.items import KINDS, checked_kinds
from zsbir.data.originals import Originals, Source
from zsbir.data.segments import ITEMS, VECTORS, Segment

_JPEG_START = b"\xff\xd8\xff"
_NPY_VERSION = (1, 0)
_NPY_HEADER_BYTES = 1000


class SegmentFiles:
    """The opened files of one segment. Its photos are numbered by row, deleted ones included; thread-safe.

    dimensions: of the encoder's embeddings. Raises InputError for files that are damaged, belong to other files, or ask for more
    than `zsbir.base.limits` allows.
    """

    def __init__(self, segment: Segment, dimensions: int):
        artifact = self.artifact = segment.artifact
        self._where = artifact.address(ITEMS)
        self.vectors = open_vectors(artifact.verified(VECTORS), dimensions, artifact.address(VECTORS))
        self._items = artifact.verified(ITEMS)
        self.kinds = checked_kinds(artifact.manifest.facts.get("columns", {}), artifact.uri)
        """Type of each column of metadata: string, int, float or bool."""
        types = {name: KINDS[kind] for name, kind in self.kinds.items()}
        table = read_table(self._items, {"path": pa.string(), "class_name": pa.string(), **types}, self._where, optional=self.kinds)
        self.paths, self.class_names = table["path"], table["class_name"]
        self.columns = {name: table[name] for name in self.kinds}
        if len(self.vectors) != len(self.paths):
            raise InputError(f"{artifact.uri} holds {len(self.vectors)} vectors for {len(self.paths)} photos; make the index again")
        if segment.photos not in (None, len(self.paths)):
            raise InputError(f"{artifact.uri} holds {len(self.paths)} photos, not {segment.photos}; make the index again")
        self._originals = Originals(artifact)
        self._sources: Int64[np.ndarray, "n"] | None = None
        self._stamps: tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]] | None = None
        self._file: Any = None
        self._kept: tuple[int, pa.ChunkedArray | None] = (-1, None)
        self._starts = np.zeros(1, np.int64)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of photos, deleted ones included."""
        return len(self.paths)

    @property
    def sources(self) -> list[Source]:
        """The galleries of its photos."""
        return self._originals.sources

    def source_numbers(self) -> Int64[np.ndarray, "n"]:
        """Return the gallery of each photo, by its place in `sources`."""
        if self._sources is None:
            self._sources = self._numbers("source")
            if not (self._sources < len(self.sources)).all() or (self._sources < 0).any():
                raise InputError(f"{self._where} names galleries that are not there: make the index again")
        return self._sources

    def stamps(self) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
        """Return bytes and time of change (ns) of each photo's file when it was read; zeros where that is not known."""
        if self._stamps is None:
            self._stamps = self._numbers("size"), self._numbers("time_ns")
        return self._stamps

    def source_of(self, row: int) -> Source:
        """Return the gallery of a photo."""
        return self.sources[int(self.source_numbers()[row])]

    def original(self, row: int) -> bytes:
        """Return the encoded bytes of a photo, read from its gallery. Raises InputError where it cannot be read."""
        return self._originals.read(int(self.source_numbers()[row]), self.paths[row].as_py())

    def thumbnail(self, row: int) -> bytes:
        """Return the thumbnail of a photo, a JPEG file. Raises InputError where it is damaged, something else, or too large."""
        with damaged(self._where), self._lock:
            self._open()
            group = int(np.searchsorted(self._starts, row, side="right")) - 1
            data = self._column(group)[row - int(self._starts[group])].as_py()
        if not isinstance(data, bytes) or not data.startswith(_JPEG_START) or len(data) > limits.THUMBNAIL_BYTES:
            raise InputError(
                f"{self._where}: the thumbnail of photo {row} is no JPEG file of at most {limits.THUMBNAIL_BYTES} bytes"
            )
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                pixels = image.width * image.height
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{self._where}: the thumbnail of photo {row} is damaged: {error}") from None
        if pixels > limits.THUMBNAIL_PIXELS:
            raise InputError(
                f"{self._where}: the thumbnail of photo {row} has {pixels} pixels, more than {limits.THUMBNAIL_PIXELS}"
            )
        return data

    def thumbnail_image(self, row: int) -> Image.Image:
        """Return the thumbnail of a photo, decoded. Raises InputError as `thumbnail` does."""
        try:
            return decode(self.thumbnail(row), max_pixels=limits.THUMBNAIL_PIXELS)
        except BadImage as error:
            raise InputError(f"{self._where}: the thumbnail of photo {row} cannot be shown: {error}") from None

    def _numbers(self, name: str) -> Int64[np.ndarray, "n"]:
        """Return a column of whole numbers; zeros where the segment has none, as one of an earlier version."""
        with damaged(self._where):
            present = name in pq.read_schema(self._items).names
        if not present:
            return np.zeros(len(self), np.int64)
        numbers: np.ndarray = read_table(self._items, {name: pa.int64()}, self._where)[name].to_numpy()
        return numbers

    def _open(self) -> None:
        if self._file is None:
            self._file = pq.ParquetFile(self._items, read_dictionary=["thumbnail"])
            rows = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
            self._starts = np.cumsum([0, *rows])

    def _column(self, group: int) -> pa.ChunkedArray:
        """Return the thumbnails of a row group; the last one is kept, since results lie anywhere and a page asks for each."""
        if self._kept[0] != group:
            found = leaves(self._file.metadata, ["thumbnail"], self._where, [group])
            wanted = sum(leaf.decoded_bytes for leaf in found)
            if wanted > limits.ROW_GROUP_BYTES:
                raise InputError(f"{self._where}: row group {group} holds {wanted} bytes, more than {limits.ROW_GROUP_BYTES}")
            with open_regular(self._items) as file:
                check_pages(file, found, self._where)
            self._kept = (group, self._file.read_row_group(group, columns=["thumbnail"])["thumbnail"])
        column = self._kept[1]
        assert column is not None
        return column


def open_vectors(path: Path, dimensions: int, where: str) -> Float32[np.ndarray, "n d"]:
    """Map a file of vectors into memory: float32, a row for each photo.

    Raises InputError for anything but such a file, of the size that its header says, with `dimensions` columns.
    """
    with open_regular(path) as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, by_columns, kind = np.lib.format.read_array_header_1_0(file, max_header_size=_NPY_HEADER_BYTES)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, TokenError) as error:
            raise InputError(f"{where} is not an array: {' '.join(str(error).split())[:200]}") from None
        start = file.tell()
    fits = len(shape) == 2 and shape[1] == dimensions and 1 <= shape[0] <= limits.INDEX_PHOTOS
    if version != _NPY_VERSION or not fits or by_columns or kind != np.dtype("<f4"):
        raise InputError(
            f"{where} holds {kind} of shape {shape}, not float32 with {dimensions} dimensions for each photo; make the index again"
        )
    if path.stat().st_size != start + 4 * shape[0] * shape[1]:
        raise InputError(f"{where} is not as long as its shape {shape} says")
    vectors: np.ndarray = np.memmap(path, np.float32, "r", start, shape)
    return vectors
