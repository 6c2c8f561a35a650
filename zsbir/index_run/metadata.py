"""Metadata of photos from a file of the user's: CSV or Parquet, a row a photo, with a column `path` and one for each thing known.

Types are texts, whole numbers, numbers, and true or false; in CSV they are told from the values. An empty cell is a missing value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from jaxtyping import Int64

from zsbir.base import limits
from zsbir.base.errors import InputError
from zsbir.base.fetch import fetch
from zsbir.base.files import sha256_file
from zsbir.base.parquet import read_table
from zsbir.base.text import clean
from zsbir.data.items import KINDS, checked_column_name

PATH = "path"


@dataclass(frozen=True)
class Metadata:
    """Metadata by path. sha256: of the file. kinds: the type of each column, by its name among KINDS."""

    table: pa.Table
    sha256: str = ""

    @property
    def kinds(self) -> dict[str, str]:
        """The type of each column: string, int, float or bool."""
        names = {kind: name for name, kind in KINDS.items()}
        return {field.name: names[field.type] for field in self.table.schema if field.name != PATH}

    def rows_of(self, paths: Sequence[str]) -> Int64[np.ndarray, "n"]:
        """Return the row of each of these paths, -1 for one that has none."""
        found = pc.index_in(pa.array(paths, pa.string()), self.table[PATH])
        rows: np.ndarray = pc.fill_null(found.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
        return rows

    def columns(self, rows: Int64[np.ndarray, "n"]) -> dict[str, pa.Array]:
        """Return the values of rows; a row of -1 has none."""
        wanted = pa.array(rows, mask=rows < 0)
        return {name: self.table[name].take(wanted).combine_chunks() for name in self.kinds}


NONE = Metadata(pa.table({PATH: pa.array([], pa.string())}))
"""No metadata."""


def read_metadata(uri: str) -> Metadata:
    """Read a file of metadata, a path or `s3://bucket/key`; "" is no file.

    Raises InputError for a file that is missing, damaged or too large, that names a path twice or not at all, and for columns of
    other types or with names that index uses itself.
    """
    if not uri:
        return NONE
    path = fetch(uri)
    size = path.stat().st_size
    if size > limits.METADATA_BYTES:
        raise InputError(f"{uri} has {size} bytes, more than the {limits.METADATA_BYTES} allowed of metadata")
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    table = _from_parquet(path, uri) if is_parquet else _from_csv(path, uri)
    _check_paths(table[PATH], uri)
    return Metadata(table, sha256_file(path))


def _checked_names(names: Sequence[str], where: str) -> list[str]:
    if PATH not in names:
        raise InputError(f"{where} has no column 'path', by which photos are found; it has {clean(', '.join(names)[:200])}")
    if len(names) - 1 > limits.METADATA_COLUMNS or len(set(names)) < len(names):
        raise InputError(f"{where}: columns of metadata must have different names, and be at most {limits.METADATA_COLUMNS}")
    return [checked_column_name(name, where) for name in names if name != PATH]


def _from_parquet(path: Path, where: str) -> pa.Table:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot read the metadata {where}: {_line(error)}") from None
    names = _checked_names(schema.names, where)
    texts = {name: schema.field(name).type for name in [PATH, *names]}
    table = read_table(path, texts, where, optional=names)
    columns = {PATH: _cast(table[PATH], pa.string(), PATH, where)}
    return pa.table({**columns, **{name: _typed(table[name], name, where) for name in names}})


def _from_csv(path: Path, where: str) -> pa.Table:
    with path.open("rb") as file:
        header = file.readline(limits.PATH_BYTES).decode("utf-8-sig", "replace")
    try:
        names = pyarrow.csv.read_csv(pa.BufferReader(header.encode())).column_names
        checked = _checked_names(names, where)
        options = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            null_values=[""],
            quoted_strings_can_be_null=False,
        )
        parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
        table = pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=options)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"cannot read the metadata {where}: {_line(error)}") from None
    return pa.table({PATH: table[PATH], **{name: _bounded(_told(table[name]), name, where) for name in checked}})


def _told(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts in the narrowest type that all of them can be read in: true or false, whole numbers, numbers; else as texts."""
    if column.null_count == len(column):
        return column
    lower = pc.utf8_lower(column)
    if pc.all(pc.is_in(pc.drop_null(lower), pa.array(["true", "false"]))).as_py():
        return pc.equal(lower, "true")
    for kind in (pa.int64(), pa.float64()):
        try:
            numbers = column.cast(kind)
        except pa.ArrowException:
            continue
        if pc.all(pc.is_finite(numbers), min_count=0).as_py():
            return numbers
    return column


def _typed(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """Return a column of a Parquet file in one of the types of metadata; a number that is NaN counts as missing."""
    kind = column.type
    if pa.types.is_integer(kind):
        wanted = pa.int64()
    elif pa.types.is_floating(kind):
        wanted = pa.float64()
    elif pa.types.is_boolean(kind):
        wanted = pa.bool_()
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        wanted = pa.string()
    else:
        raise InputError(f"{where}: column {clean(name)!r} is {kind}; metadata are texts, numbers, and true or false")
    typed = _cast(column, wanted, name, where)
    if wanted == pa.float64():
        if pc.any(pc.is_inf(typed), min_count=0).as_py():
            raise InputError(f"{where}: column {clean(name)!r} holds infinite numbers")
        typed = pc.if_else(pc.is_nan(typed), pa.scalar(None, wanted), typed)
    return _bounded(typed, name, where)


def _cast(column: pa.ChunkedArray, kind: pa.DataType, name: str, where: str) -> pa.ChunkedArray:
    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        raise InputError(f"{where}: column {clean(name)!r} cannot be read as {kind}: {_line(error)}") from None


def _bounded(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    longest = (pc.max(pc.binary_length(column)).as_py() or 0) if pa.types.is_string(column.type) else 0
    if longest > limits.METADATA_TEXT_BYTES:
        raise InputError(
            f"{where}: a text of column {clean(name)!r} has {longest} bytes, more than the {limits.METADATA_TEXT_BYTES} allowed"
        )
    return column


def _check_paths(paths: pa.ChunkedArray, where: str) -> None:
    if paths.null_count:
        raise InputError(f"{where}: {paths.null_count} of {len(paths)} rows have no path")
    if pc.count_distinct(paths).as_py() < len(paths):
        counts = pc.value_counts(paths)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        raise InputError(f"{where} names the path {clean(twice[:300])!r} more than once")
    if len(paths) > limits.INDEX_PHOTOS:
        raise InputError(f"{where} has {len(paths)} rows, more than the {limits.INDEX_PHOTOS} photos that an index may have")


def _line(error: Exception) -> str:
    return clean(" ".join(str(error).split())[:300])
