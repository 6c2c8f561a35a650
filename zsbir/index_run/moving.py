"""Photos of an index copied into a new segment: vectors, thumbnails and what is known of them, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from zsbir.base.errors import InputError
from zsbir.data.index_files import IndexFiles
from zsbir.data.originals import Source
from zsbir.data.segment_files import SegmentFiles
from zsbir.index_run.metadata import Metadata
from zsbir.index_run.writing import GROUP_ROWS, SegmentWriter


@dataclass(frozen=True)
class Moving:
    """How photos are written in their new segment.

    sources: its galleries. known: by row of the index before, the row of `metadata` that a photo gets in place of what was known of
    it, -1 for none. advance: called with the number of photos that were copied.
    """

    sources: Sequence[Source]
    metadata: Metadata
    known: Int64[np.ndarray, "n"]
    advance: Callable[[int], None]


def move_photos(writer: SegmentWriter, base: IndexFiles, copied: Bool[np.ndarray, "n"], moving: Moving) -> None:
    """Copy the rows of an index that `copied` marks, in order.

    Raises InputError where a vector is not finite, or a thumbnail is none: an index may come from anybody.
    """
    for number, segment in enumerate(base.segments):
        start, stop = int(base.starts[number]), int(base.starts[number + 1])
        if not copied[start:stop].any():
            continue
        places = np.array([place_of(moving.sources, source) for source in segment.sources], np.int64)
        for first in range(start, stop, GROUP_ROWS):
            rows = first + np.flatnonzero(copied[first : min(first + GROUP_ROWS, stop)])
            if len(rows):
                vectors = segment.vectors[rows - start]
                if not np.isfinite(vectors).all():
                    raise InputError(f"{base.index.uri} holds vectors that are not numbers; make the index again")
                writer.add(vectors, _renewed(_items(segment, rows - start, places), moving.metadata, moving.known[rows]))
                moving.advance(len(rows))


def place_of(sources: Sequence[Source], wanted: Source) -> int:
    """Return the place of a gallery among `sources`, by kind and address: its digest changes with its photos."""
    return next(number for number, source in enumerate(sources) if (source.kind, source.uri) == (wanted.kind, wanted.uri))


def _items(segment: SegmentFiles, rows: Int64[np.ndarray, "m"], places: Int64[np.ndarray, "s"]) -> pa.Table:
    """Return what is known of some rows of a segment, which lie close together."""
    first, wanted = int(rows[0]), pa.array(rows - rows[0])
    length = int(rows[-1]) - first + 1
    sizes, times = segment.stamps()
    texts = {"path": segment.paths, "class_name": segment.class_names, **segment.columns}
    return pa.table(
        {
            **{name: column.slice(first, length).take(wanted) for name, column in texts.items()},
            "thumbnail": pa.array([segment.thumbnail(row) for row in rows.tolist()], pa.binary()),
            "size": pa.array(sizes[rows]),
            "time_ns": pa.array(times[rows]),
            "source": pa.array(places[segment.source_numbers()[rows]]),
        }
    )


def _renewed(items: pa.Table, metadata: Metadata, known: Int64[np.ndarray, "m"]) -> pa.Table:
    """Return rows of items with other metadata where `known` names a row of them."""
    if (known < 0).all():
        return items
    for name, values in metadata.columns(known).items():
        if name in items.column_names:
            chosen = pc.if_else(pa.array(known >= 0), values, items[name].combine_chunks())
            items = items.set_column(items.column_names.index(name), name, chosen)
        else:
            items = items.append_column(name, values)
    return items
