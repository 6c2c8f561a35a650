"""The files of an index, which anybody may have made: vectors, paths and thumbnails, opened within bounds.

encoder.safetensors  vectors.npy (float32, a row a photo)  items.parquet (item_id, path, class_name, thumbnail)
"""

from __future__ import annotations

import io
import threading
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32
from PIL import Image

from zsbir.base import limits
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.files import open_regular
from zsbir.base.parquet import check_pages, damaged, leaves, read_table
from zsbir.data.images import BadImage, decode

VECTORS, ITEMS = "vectors.npy", "items.parquet"
_JPEG_START = b"\xff\xd8\xff"
_NPY_VERSION = (1, 0)
_NPY_HEADER_BYTES = 1000


class IndexFiles:
    """The opened files of an index. Its photos are numbered by row; thread-safe.

    dimensions: of the encoder's embeddings. Raises InputError for files that are damaged, belong to other files, or ask for more
    than `zsbir.base.limits` allows.
    """

    def __init__(self, index: Artifact, dimensions: int):
        self._where = index.address(ITEMS)
        self.vectors = open_vectors(index.verified(VECTORS), dimensions, index.address(VECTORS))
        self._items = index.verified(ITEMS)
        table = read_table(self._items, {"path": pa.string(), "class_name": pa.string()}, self._where)
        self.paths, self.class_names = table["path"], table["class_name"]
        if len(self.vectors) != len(self.paths):
            raise InputError(f"{index.uri} holds {len(self.vectors)} vectors for {len(self.paths)} photos; make the index again")
        self._file: Any = None
        self._kept: tuple[int, pa.ChunkedArray | None] = (-1, None)
        self._starts = np.zeros(1, np.int64)
        self._lock = threading.Lock()

    def thumbnail(self, row: int) -> bytes:
        """Return the thumbnail of a photo, a JPEG file. Raises InputError where it is damaged, something else, or too large."""
        if not 0 <= row < len(self.paths):
            raise InputError(f"{self._where} has no photo {row}")
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
