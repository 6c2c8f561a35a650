"""The headers of the pages of a Parquet file, in Thrift's compact protocol (github.com/apache/parquet-format, parquet.thrift).

A reader takes as much memory for a page as its header says, whatever the file's footer says about the column: so the bounds of
`zsbir.base.parquet` hold only if both agree. pyarrow shows the footer alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

_HEADER_BYTES = 2**16
"""Largest header: a few numbers, and statistics of the page. pyarrow leaves out statistics of more than 4 kB."""

_DATA, _INDEX, _DICTIONARY, _DATA_V2 = range(4)
_FALSE, _BYTE, _INT16, _INT64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 2, 3, 4, 6, 7, 8, 9, 10, 12
_DEEPEST = 4
_VARINT_BYTES = 10
_CUT_OFF = "a page header is cut off"


class Page(NamedTuple):
    """What a page's header says. values: 0 for a dictionary, whose entries are not rows. encoding: its number in parquet.thrift."""

    uncompressed_bytes: int
    values: int
    encoding: int


def pages(file: BinaryIO, start: int, length: int) -> Iterator[Page]:
    """Yield the pages of a column chunk that lies at bytes [start, start + length). Raises ValueError for damaged headers."""
    at, end = start, start + length
    while at < end:
        file.seek(at)
        header, size = _read_struct(file.read(min(_HEADER_BYTES, end - at)), 0, 0)
        page, compressed_bytes = _page_of(header)
        yield page
        at += size + compressed_bytes
    if at > end:
        raise ValueError("a page is longer than its column")


def _page_of(header: dict[int, Any]) -> tuple[Page, int]:
    kind, uncompressed, compressed = header.get(1), header.get(2), header.get(3)
    details = {_DATA: 5, _INDEX: 6, _DICTIONARY: 7, _DATA_V2: 8}.get(kind if isinstance(kind, int) else -1, -1)
    body = header.get(details)
    if not isinstance(body, dict) or not isinstance(uncompressed, int) or not isinstance(compressed, int):
        raise ValueError("a page header lacks its sizes")  # noqa: TRY004 - the file's fault, not the caller's
    values = 0 if kind in (_INDEX, _DICTIONARY) else body.get(1)
    encoding = body.get(4 if kind == _DATA_V2 else 2)
    if not isinstance(values, int) or not isinstance(encoding, int) or min(uncompressed, compressed, values) < 0:
        raise ValueError("a page header holds an impossible number")
    return Page(uncompressed, values, encoding), compressed


def _read_struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct by number, and the position behind it."""
    if depth > _DEEPEST:
        raise ValueError("a page header is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while True:
        lead, at = _byte(data, at)
        if lead == 0:
            return fields, at
        if lead >> 4:
            number += lead >> 4
        else:
            number, at = _integer(data, at)
        fields[number], at = _read_value(data, at, lead & 15, depth)


def _read_value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    """Return a value of a struct, None for kinds that no reader here asks for, and the position behind it."""
    if kind <= _FALSE:
        return kind != _FALSE, at  # a flag of a struct is its kind
    if kind == _STRUCT:
        return _read_struct(data, at, depth + 1)
    if _INT16 <= kind <= _INT64:
        return _integer(data, at)
    return None, _end_of(data, at, kind, depth)


def _end_of(data: bytes, at: int, kind: int, depth: int) -> int:
    """Return the position behind a byte, a float, a text or a list."""
    if kind in (_BYTE, _DOUBLE):
        return at + (1 if kind == _BYTE else 8)
    if kind == _BINARY:
        length, at = _varint(data, at)
        return at + length
    if kind in (_LIST, _SET):
        return _end_of_list(data, at, depth)
    raise ValueError(f"a page header holds a value of kind {kind}")


def _end_of_list(data: bytes, at: int, depth: int) -> int:
    lead, at = _byte(data, at)
    count, kind = lead >> 4, lead & 15
    if count == 15:
        count, at = _varint(data, at)
    for _ in range(min(count, len(data))):  # each takes a byte or more: what is longer runs into the end of the data
        at = at + 1 if kind <= _FALSE else _read_value(data, at, kind, depth)[1]
    return at


def _byte(data: bytes, at: int) -> tuple[int, int]:
    if at >= len(data):
        raise ValueError(_CUT_OFF)
    return data[at], at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        byte, at = _byte(data, at)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a page header holds an endless number")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """Return a number with its sign, which is stored in the lowest bit (zigzag)."""
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
