"""The files of an index, which anybody may have made: vectors, paths, metadata and thumbnails, opened within bounds.

An index has one segment or several (`zsbir.data.segments`), each of them an artifact with

    vectors.npy (float32, a row a photo)  items.parquet (item_id, path, class_name, thumbnail, and what follows)

items.parquet of photos from a folder has `size` and `time_ns`, the file's bytes and time of change; of photos from several
galleries `source`, which of them; and a column for each kind of metadata.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int64
from PIL import Image

from zsbir.base import limits
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.parquet import damaged, read_table
from zsbir.data.images import BadImage, decode
from zsbir.data.items import Filter, common_kinds, empty_columns
from zsbir.data.originals import Source
from zsbir.data.segment_files import SegmentFiles, open_vectors
from zsbir.data.segments import ENCODER, EXAMPLES, holder_of, index_file, segments_of

__all__ = ["ENCODER", "Example", "IndexFiles", "index_file", "open_vectors"]

_PNG_START = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Example:
    """A sketch to try an index with: a PNG file, and the class of what it shows."""

    class_name: str
    image: bytes


class IndexFiles:
    """The opened files of an index. Its photos are numbered by row over all segments, deleted ones included; thread-safe.

    dimensions: of the encoder's embeddings. Raises InputError for files that are damaged, belong to other files, or ask for more
    than `zsbir.base.limits` allows.
    """

    def __init__(self, index: Artifact, dimensions: int):
        self.index = index
        found = segments_of(index)
        self.segments = [SegmentFiles(part, dimensions) for part in found.parts]
        self.starts = np.cumsum([0, *(len(segment) for segment in self.segments)])
        """Row of the first photo of each segment, and behind them the number of rows."""
        self.alive: Bool[np.ndarray, "n"] | None = found.alive(int(self.starts[-1]))
        self.parts: list[Float32[np.ndarray, "_ d"]] = [segment.vectors for segment in self.segments]
        self.paths = _joined([segment.paths for segment in self.segments])
        self.class_names = _joined([segment.class_names for segment in self.segments])
        self.kinds = common_kinds([segment.kinds for segment in self.segments], index.uri)
        """Type of each column of metadata: string, int, float or bool."""
        self.columns = {name: self._column(name) for name in self.kinds}
        self._examples: list[Example] | None = None

    def __len__(self) -> int:
        """Return the number of rows, deleted photos included."""
        return len(self.paths)

    @property
    def photos(self) -> int:
        """How many photos the index has, deleted ones left out."""
        return len(self) if self.alive is None else int(self.alive.sum())

    def rows(self) -> Int64[np.ndarray, "m"]:
        """Return the rows of all photos that are not deleted, ascending."""
        return np.arange(len(self)) if self.alive is None else np.flatnonzero(self.alive)

    def living(self) -> tuple[Float32[np.ndarray, "m d"], Int64[np.ndarray, "m"]]:
        """Return the vectors of all photos that are not deleted, and their rows. Copied where there are several segments."""
        rows = self.rows()
        if len(self.parts) == 1 and len(rows) == len(self):
            return self.parts[0], rows
        return np.concatenate(self.parts)[rows], rows

    def stamps(self) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
        """Return bytes and time of change (ns) of each photo's file when it was read; zeros where that is not known."""
        sizes, times = zip(*(segment.stamps() for segment in self.segments), strict=True)
        return np.concatenate(sizes), np.concatenate(times)

    def mask(self, chosen: Filter) -> Bool[np.ndarray, "n"] | None:
        """Return which rows are photos that meet a filter and are not deleted; None for a filter that chooses nothing.

        Raises InputError for a column that the index lacks, or that has another type.
        """
        if not chosen:
            return None
        mask = chosen.mask(self.paths, self.class_names, self.columns)
        return mask if self.alive is None else mask & self.alive

    def thumbnail(self, row: int) -> bytes:
        """Return the thumbnail of a photo, a JPEG file. Raises InputError where it is damaged, something else, or too large."""
        segment, own = self._own_row(row)
        return segment.thumbnail(own)

    def thumbnail_image(self, row: int) -> Image.Image:
        """Return the thumbnail of a photo, decoded. Raises InputError as `thumbnail` does."""
        segment, own = self._own_row(row)
        return segment.thumbnail_image(own)

    def original(self, row: int) -> bytes:
        """Return the encoded bytes of a photo, read from its gallery as that is now.

        Raises InputError where it cannot be read: it is gone, too large, or leads out of its folder.
        """
        segment, own = self._own_row(row)
        return segment.original(own)

    def gallery_of(self, row: int) -> Source:
        """Return the gallery that a photo comes from."""
        segment, own = self._own_row(row)
        return segment.source_of(own)

    def source_of(self, row: int) -> str:
        """Return the address of the folder that a photo lies in, below which its path leads to it; "" for one of a data set."""
        return self.gallery_of(row).folder

    @property
    def source(self) -> str:
        """The address of the gallery's folder, of the first where there are several; "" for a data set."""
        return self.segments[0].sources[0].folder

    @property
    def examples(self) -> list[Example]:
        """Sketches to try the index with; none for a folder of photos. Raises InputError where they are damaged."""
        if self._examples is None:
            holder = holder_of(self.index, EXAMPLES)
            there = EXAMPLES in holder.manifest.files
            self._examples = read_examples(holder.verified(EXAMPLES), holder.address(EXAMPLES)) if there else []
        return self._examples

    def _column(self, name: str) -> pa.ChunkedArray:
        kind = {name: self.kinds[name]}
        return _joined([part.columns.get(name) or empty_columns(kind, len(part))[name] for part in self.segments])

    def _own_row(self, row: int) -> tuple[SegmentFiles, int]:
        """Return the segment that a row lies in, and its row there. Raises InputError where there is no such photo."""
        if not 0 <= row < len(self) or (self.alive is not None and not self.alive[row]):
            raise InputError(f"{self.index.uri} has no photo {row}")
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.segments[number], row - int(self.starts[number])


def _joined(columns: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)


def read_examples(path: Path, where: str) -> list[Example]:
    """Read the sketches of an index. where: what errors call the file. Raises InputError for anything but a few small PNG files."""
    table = read_table(path, {"class_name": pa.string(), "image": pa.binary()}, where)
    if len(table) > limits.EXAMPLES:
        raise InputError(f"{where} holds {len(table)} sketches, more than the {limits.EXAMPLES} allowed")
    examples = [Example(row["class_name"], row["image"]) for row in table.to_pylist()]
    for number, example in enumerate(examples):
        _check_png(example.image, f"{where}: sketch {number}")
    return examples


def _check_png(data: bytes, where: str) -> None:
    """Raise InputError unless the bytes are a PNG file as small as a thumbnail."""
    if not data.startswith(_PNG_START) or len(data) > limits.THUMBNAIL_BYTES:
        raise InputError(f"{where} is no PNG file of at most {limits.THUMBNAIL_BYTES} bytes")
    with damaged(where):
        try:
            decode(data, max_pixels=limits.THUMBNAIL_PIXELS)
        except BadImage as error:
            raise InputError(f"{where} cannot be shown: {error}") from None
        Image.open(io.BytesIO(data), formats=("PNG",)).close()
