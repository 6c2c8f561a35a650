"""Parquet files of artifacts, read within bounds: a file of some kilobytes can ask for any number of gigabytes.

A column grows in two ways when it is read. Its pages are decompressed: their sizes are summed up before any is read. And values
that are stored once, in a dictionary, are repeated: texts that have one are read as dictionaries, and their full size is computed
before it is taken. Encodings that grow in other ways are refused; no stage writes them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zsbir.base import limits
from zsbir.base.errors import DataError, InputError
from zsbir.base.files import open_regular
from zsbir.base.parquet_pages import pages

_ENCODINGS = {"PLAIN": 0, "PLAIN_DICTIONARY": 2, "RLE": 3, "BIT_PACKED": 4, "RLE_DICTIONARY": 8}
"""Encodings whose growth is known, by name in a footer and number in a page header."""

_DICTIONARY = frozenset({"PLAIN_DICTIONARY", "RLE_DICTIONARY"})
_TEXT = "BYTE_ARRAY"
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, _TEXT: 4}
"""Bytes in memory of a value of each of Parquet's types; of a text, those that say where it begins."""


class Leaf(NamedTuple):
    """What a footer says about one column of one row group. name: of the top-level column it belongs to."""

    name: str
    path: str
    kind: str
    values: int
    uncompressed_bytes: int
    has_dictionary: bool
    start: int
    length: int

    @property
    def decoded_bytes(self) -> int:
        """Bytes in memory once it is read, dictionaries unexpanded."""
        return max(self.uncompressed_bytes, self.values * _WIDTHS[self.kind])

    @property
    def most_bytes(self) -> int:
        """Bytes in memory at most with dictionaries expanded: no value is longer than all that is stored."""
        return self.values * self.uncompressed_bytes if self.has_dictionary and self.kind == _TEXT else self.decoded_bytes


def read_table(path: Path, columns: Mapping[str, pa.DataType | None], where: str, *, optional: Collection[str] = ()) -> pa.Table:
    """Read columns of a Parquet file, which must have these types (None: any of numbers or texts) and no missing values.

    where: the file's address, for errors. optional: columns whose values may be missing. Raises InputError for a file that is
    damaged, has other columns, or asks for more memory than `zsbir.base.limits` allows; as much is not taken then.
    """
    with damaged(where):
        metadata = pq.read_metadata(path)
        found = leaves(metadata, list(columns), where)
        schema = metadata.schema.to_arrow_schema()
        _check_types(schema, columns, where)
        budget = budget_of(path.stat().st_size)
        _check_bytes(sum(leaf.decoded_bytes for leaf in found), budget, where)
        with open_regular(path) as file:
            check_pages(file, found, where)
        dictionaries = _texts_with_dictionaries(found, where)
        table = pq.ParquetFile(path, metadata=metadata, read_dictionary=dictionaries).read(columns=list(columns))
        for name in dictionaries:
            budget = _check_bytes(_expanded_bytes(table[name]), budget, where)
            table = table.set_column(table.column_names.index(name), name, table[name].cast(schema.field(name).type))
        table.validate(full=True)
        _check_values(table, where, optional)
    return table


def read_numbers(path: Path, where: str) -> pa.Table:
    """Read all columns of a Parquet file of numbers, some of which may be missing. Raises InputError as `read_table` does."""
    with damaged(where):
        schema = pq.read_schema(path)
        if not all(pa.types.is_primitive(field.type) or pa.types.is_null(field.type) for field in schema):
            raise InputError(f"{where} holds other columns than numbers")
        metadata = pq.read_metadata(path)
        found = leaves(metadata, schema.names, where)
        _check_bytes(sum(leaf.decoded_bytes for leaf in found), budget_of(path.stat().st_size), where)
        with open_regular(path) as file:
            check_pages(file, found, where)
        return pq.read_table(path)


def leaves(metadata: Any, columns: Sequence[str], where: str, groups: Sequence[int] | None = None) -> list[Leaf]:
    """Return what a file's footer says about columns, by row group (None: all). Raises InputError for what no stage writes."""
    if metadata.num_rows > limits.TABLE_ROWS:
        raise InputError(f"{where} has {metadata.num_rows} rows, more than the {limits.TABLE_ROWS} allowed")
    found = []
    for group in range(metadata.num_row_groups) if groups is None else groups:
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            name = column.path_in_schema.partition(".")[0]
            if name in columns:
                found.append(_leaf(name, column, where))
    return found


def _leaf(name: str, column: Any, where: str) -> Leaf:
    encodings = set(column.encodings)
    if not encodings <= _ENCODINGS.keys() or column.physical_type not in _WIDTHS:
        raise InputError(f"{where}: column {name!r} is stored in a form that is not read here ({', '.join(sorted(encodings))})")
    start = column.data_page_offset
    if column.has_dictionary_page and 0 < (column.dictionary_page_offset or 0) < start:
        start = column.dictionary_page_offset
    return Leaf(
        name,
        column.path_in_schema,
        column.physical_type,
        column.num_values,
        column.total_uncompressed_size,
        bool(encodings & _DICTIONARY),
        start,
        column.total_compressed_size,
    )


def check_pages(file: BinaryIO, found: Sequence[Leaf], where: str) -> None:
    """Raise InputError where the pages of columns ask for more than the footer says, which readers believe only in part.

    file: open for reading at any position.
    """
    allowed = frozenset(_ENCODINGS.values())
    for leaf in found:
        headers = list(pages(file, leaf.start, leaf.length))
        size, values = sum(page.uncompressed_bytes for page in headers), sum(page.values for page in headers)
        if size > leaf.uncompressed_bytes or values != leaf.values or not {page.encoding for page in headers} <= allowed:
            raise InputError(f"{where} is damaged: the pages of column {leaf.path!r} are not what its footer says")


@contextmanager
def damaged(where: str) -> Iterator[None]:
    """Turn what pyarrow raises for damaged files into one InputError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, MemoryError) as error:
        line = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(f"{where} is damaged, or not what it should be ({line}); make the artifact again") from None


def budget_of(file_bytes: int) -> int:
    """Return the bytes in memory that a file of this size may ask for."""
    return min(limits.TABLE_BYTES, limits.TABLE_FLOOR_BYTES + limits.TABLE_RATIO * file_bytes)


def _check_bytes(wanted: int, budget: int, where: str) -> int:
    """Return what is left of a budget. Raises InputError where it is exceeded."""
    if wanted > budget:
        raise InputError(f"{where} asks for {wanted} bytes of memory, more than the {budget} allowed for a file of its size")
    return budget - wanted


def _check_types(schema: pa.Schema, columns: Mapping[str, pa.DataType | None], where: str) -> None:
    for name, kind in columns.items():
        if schema.names.count(name) != 1:
            raise InputError(f"{where} has {schema.names.count(name) or 'no'} column {name!r}; make the artifact again")
        found = schema.field(name).type
        if found != kind and (kind is not None or not (pa.types.is_primitive(found) or pa.types.is_string(found))):
            raise InputError(f"{where}: column {name!r} should be {kind or 'of numbers or texts'}, found {found}")


def _texts_with_dictionaries(found: Sequence[Leaf], where: str) -> list[str]:
    """Return the names of texts that are stored in dictionaries. Raises InputError for one within another column."""
    texts = [leaf for leaf in found if leaf.kind == _TEXT and leaf.has_dictionary]
    nested = next((leaf for leaf in texts if leaf.path != leaf.name), None)
    if nested:
        raise InputError(f"{where}: the texts in column {nested.path!r} are stored in a form that is not read here")
    return list(dict.fromkeys(leaf.name for leaf in texts))


def _expanded_bytes(column: pa.ChunkedArray) -> int:
    """Return the bytes that a column read as dictionaries takes once it is expanded."""
    lengths = (pc.take(pc.cast(pc.binary_length(chunk.dictionary), pa.int64()), chunk.indices) for chunk in column.chunks)
    return sum(pc.sum(some).as_py() or 0 for some in lengths)


def _check_values(table: pa.Table, where: str, optional: Collection[str]) -> None:
    for name in table.column_names:
        column = table[name]
        if column.null_count and name not in optional:
            raise InputError(f"{where}: {column.null_count} values of column {name!r} are missing")
        if pa.types.is_string(column.type):
            longest = pc.max(pc.binary_length(column)).as_py() or 0
            if longest > limits.PATH_BYTES:
                raise InputError(f"{where}: a text in column {name!r} has {longest} bytes, more than {limits.PATH_BYTES}")
