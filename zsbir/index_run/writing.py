"""The files of a segment, written piece by piece: memory does not grow with the photos."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from zsbir.base.draft import Draft
from zsbir.data.items import KINDS
from zsbir.data.passed_over import PassedOver
from zsbir.data.schema import PASSED_OVER_SCHEMA
from zsbir.data.segments import ITEMS, VECTORS

GROUP_ROWS = 64
"""Photos of a row group of items.parquet: about 300 kB of thumbnails, which are read together for one of them."""

ITEM_FIELDS = (("item_id", pa.int64()), ("path", pa.string()), ("class_name", pa.string()), ("thumbnail", pa.binary()))
STAMP_FIELDS = (("size", pa.int64()), ("time_ns", pa.int64()))
SOURCE_FIELD = ("source", pa.int64())


def items_schema(kinds: dict[str, str], *, stamps: bool, sources: bool) -> pa.Schema:
    """Return the schema of items.parquet. kinds: of columns of metadata. stamps: from a folder. sources: from several galleries."""
    own = [*ITEM_FIELDS, *(STAMP_FIELDS if stamps else ()), *([SOURCE_FIELD] if sources else [])]
    return pa.schema([*own, *((name, KINDS[kind]) for name, kind in kinds.items())])


class SegmentWriter:
    """Writes vectors.npy and items.parquet of a segment. They are whole once it is left without an error."""

    def __init__(self, work: Draft, dimensions: int, schema: pa.Schema):
        self.photos = 0
        self._dimensions, self._schema = dimensions, schema
        self._vectors = work.file(VECTORS).open("wb")
        self._items = pq.ParquetWriter(work.file(ITEMS), schema)
        self._waiting: list[pa.Table] = []
        self._write_header()

    def add(self, vectors: Float32[np.ndarray, "m d"], items: pa.Table) -> None:
        """Append photos. items: all columns but item_id; columns of the schema that it lacks are empty, or zero where needed."""
        self._vectors.write(np.ascontiguousarray(vectors, "<f4").tobytes())
        numbers = pa.array(range(self.photos, self.photos + len(vectors)), pa.int64())
        columns = [numbers if name == "item_id" else _column(items, name, kind) for name, kind in _fields(self._schema)]
        self._waiting.append(pa.Table.from_arrays(columns, schema=self._schema))
        self.photos += len(vectors)
        self._write_groups(GROUP_ROWS)

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._write_groups(1)
                self._write_header()
        finally:
            self._vectors.close()
            self._items.close()

    def _write_groups(self, least: int) -> None:
        """Write row groups as long as `least` rows wait."""
        while (rows := sum(map(len, self._waiting))) >= least and rows:
            table = pa.concat_tables(self._waiting)
            self._items.write_table(table.slice(0, GROUP_ROWS), row_group_size=GROUP_ROWS)
            self._waiting = [table.slice(GROUP_ROWS)]

    def _write_header(self) -> None:
        """Write the header of an array of as many rows as there are by now; numpy leaves room for any number of them."""
        self._vectors.seek(0)
        shape = (self.photos, self._dimensions)
        np.lib.format.write_array_header_1_0(self._vectors, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _fields(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    return [(field.name, field.type) for field in schema]


def _column(items: pa.Table, name: str, kind: pa.DataType) -> Any:
    if name in items.column_names:
        return items[name].cast(kind)
    required = {field for field, _ in (*ITEM_FIELDS, *STAMP_FIELDS, SOURCE_FIELD)}
    return pa.array(np.zeros(len(items), np.int64)) if name in required else pa.nulls(len(items), kind)


def write_passed_over(work: Draft, *parts: PassedOver) -> None:
    """Write the list of what the index lacks, if it lacks anything."""
    rows = [row for part in parts for row in part.rows()]
    if rows:
        pq.write_table(pa.Table.from_pylist(rows, PASSED_OVER_SCHEMA), work.file("passed_over.parquet"))
