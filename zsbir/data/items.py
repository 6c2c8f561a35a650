"""What an index knows of its photos beside their pictures: columns of metadata, and filters over class, folder and columns.

Filters come from requests and command lines: `Filter.from_json` and `Filter.from_flags` check them, within bounds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from zsbir.base import limits
from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError
from zsbir.base.text import clean

KINDS = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
"""Types of metadata, by the names that manifests use."""

OWN_COLUMNS = ("item_id", "path", "class_name", "thumbnail", "size", "time_ns", "source")
"""Columns of items.parquet that index writes itself; no column of metadata has such a name."""

_NAME = re.compile(r"[^\W\d][\w -]{0,63}")
_WHERE = re.compile(r"\s*(?P<name>[^<>=]+?)\s*(?P<sign><=|>=|<|>|=)\s*(?P<value>.*?)\s*", re.DOTALL)
_FIELDS = ("classes", "folder", "columns")

Value = str | int | float | bool


class Range(NamedTuple):
    """A range of numbers that both ends belong to. An infinite end stands for none."""

    low: int | float
    high: int | float


@dataclass(frozen=True)
class Filter:
    """A choice among the photos of an index; a photo must meet all of it. An empty part chooses all photos.

    classes: any of these. folder: the photos below it, of their paths ("holidays/summer"). columns: for a column of metadata one
    value, any of several, or a range. A photo that lacks a value meets no condition on it.
    """

    classes: tuple[str, ...] = ()
    folder: str = ""
    columns: Mapping[str, Value | tuple[Value, ...] | Range] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether the filter has any condition; without one it leaves no photo out."""
        return bool(self.classes or self.folder or self.columns)

    @classmethod
    def from_json(cls, value: Any) -> Filter:
        """Return a decoded JSON object as a filter: {"classes": ["bear"], "folder": "a/b", "columns": {"price": {"max": 10}}}.

        A column has a value, a list of values, or an object with "min", "max" or both. Raises InputError for anything else.
        """
        if not isinstance(value, Mapping):
            raise InputError(f"a filter is an object with {', '.join(_FIELDS)}, not {type(value).__name__}")
        stranger = next((str(name) for name in value if name not in _FIELDS), None)
        if stranger is not None:
            raise InputError(f"filter: {unknown_name('field', clean(stranger[:100]), _FIELDS)}")
        columns = value.get("columns", {})
        if not isinstance(columns, Mapping) or len(columns) > limits.METADATA_COLUMNS:
            raise InputError(f"filter: columns must be an object of at most {limits.METADATA_COLUMNS} columns")
        return cls(
            tuple(_text(name, "classes") for name in _listed(value.get("classes", []), "classes")),
            _text(value.get("folder", ""), "folder").strip("/"),
            {_text(name, "columns"): _condition(name, wanted) for name, wanted in columns.items()},
        )

    @classmethod
    def from_flags(cls, classes: Sequence[str] = (), folder: str = "", where: Sequence[str] = ()) -> Filter:
        """Return a filter of command-line flags. where: conditions such as "price<10", "colour=red" or "colour=red,green".

        Several conditions on one column are all met. Raises InputError for what is no condition.
        """
        columns: dict[str, Any] = {}
        for text in where:
            found = _WHERE.fullmatch(text)
            if found is None or not found["value"]:
                raise InputError(f"--where {clean(text[:200])!r} is no condition: write NAME=VALUE, NAME<NUMBER or NAME>=NUMBER")
            name, wanted = found["name"], _wanted(found["sign"], found["value"], text)
            known = columns.get(name)
            if known is not None and not (isinstance(known, Range) and isinstance(wanted, Range)):
                raise InputError(f"--where {clean(text[:200])!r}: {clean(name)} has a condition already")
            columns[name] = Range(max(known.low, wanted.low), min(known.high, wanted.high)) if known is not None else wanted
        checked = cls.from_json({"classes": list(classes), "folder": folder})
        return cls(checked.classes, checked.folder, columns)

    def mask(
        self, paths: pa.ChunkedArray, class_names: pa.ChunkedArray, columns: Mapping[str, pa.ChunkedArray]
    ) -> Bool[np.ndarray, "n"]:
        """Return which of n photos meet the filter. Raises InputError for a column that is not there or of another type."""
        found = np.ones(len(paths), bool)
        if self.classes:
            found &= _as_bools(pc.is_in(class_names, pa.array(self.classes, pa.string())))
        if self.folder:
            found &= _as_bools(pc.starts_with(paths, f"{self.folder}/"))
        for name, wanted in self.columns.items():
            if not columns:
                raise InputError(
                    f"filter: there is no column {clean(name[:100])!r}, for nothing is known of these photos: see index --metadata"
                )
            if name not in columns:
                raise InputError(f"filter: {unknown_name('column', clean(name[:100]), columns)}")
            found &= _as_bools(_meets(columns[name], wanted, name))
        return found


def checked_column_name(name: str, where: str) -> str:
    """Return the name of a column of metadata. Raises InputError for one that index uses itself or that is no plain name."""
    if name in OWN_COLUMNS or not _NAME.fullmatch(name):
        raise InputError(
            f"{where}: {clean(name[:100])!r} cannot be a column of metadata: a name begins with a letter, has letters, digits, '_',"
            f" '-' and spaces, at most 64, and is none of {', '.join(OWN_COLUMNS)}"
        )
    return name


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value.encode("utf-8", "surrogatepass")) > limits.PATH_BYTES or not _is_utf8(value):
        raise InputError(f"filter: {what} must hold texts of at most {limits.PATH_BYTES} bytes")
    return value


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _listed(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or len(value) > limits.FILTER_VALUES:
        raise InputError(f"filter: {what} must be a list of at most {limits.FILTER_VALUES} values")
    return value


def _condition(name: str, wanted: Any) -> Value | tuple[Value, ...] | Range:
    if isinstance(wanted, list | tuple):
        return tuple(_value(part, name) for part in _listed(wanted, name))
    if not isinstance(wanted, Mapping):
        return _value(wanted, name)
    if not wanted or not set(wanted) <= {"min", "max"}:
        raise InputError(f"filter: the range of {clean(name)!r} must have min, max or both, and nothing else")
    ends = {end: _value(number, name) for end, number in wanted.items()}
    if any(isinstance(number, str | bool) for number in ends.values()):
        raise InputError(f"filter: the range of {clean(name)!r} must be one of numbers")
    return Range(ends.get("min", -math.inf), ends.get("max", math.inf))  # type: ignore[arg-type]


def _value(value: Any, name: str) -> Value:
    if isinstance(value, str):
        return _text(value, name)
    if isinstance(value, bool | int | float) and (isinstance(value, bool) or abs(value) < 2**63):  # false for NaN, too
        return value
    raise InputError(f"filter: {clean(str(name)[:100])!r} must be compared with texts, numbers, true or false")


def _wanted(sign: str, text: str, where: str) -> Any:
    if sign == "=":
        values = tuple(_read(part.strip()) for part in text.split(","))
        return values[0] if len(values) == 1 else values
    number = _read(text)
    if isinstance(number, str | bool):
        raise InputError(f"--where {clean(where[:200])!r}: {clean(text[:100])!r} is not a number")
    if sign in ("<", "<="):
        return Range(-math.inf, number if sign == "<=" else math.nextafter(number, -math.inf))
    return Range(number if sign == ">=" else math.nextafter(number, math.inf), math.inf)


def _read(text: str) -> Value:
    """Return what a value on the command line is: true or false, a number, else a text; in double quotes always a text."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return _text(text[1:-1], "--where")
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return _value(kind(text), "--where")
        except (ValueError, InputError):
            continue
    return _text(text, "--where")


def _meets(column: pa.ChunkedArray, wanted: Value | tuple[Value, ...] | Range, name: str) -> pa.ChunkedArray:
    kind = column.type
    if isinstance(wanted, Range):
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise InputError(f"filter: {clean(name)!r} holds {_kind_name(kind)}s, which have no range")
        low, high = (_end(kind, wanted.low, up=True), _end(kind, wanted.high, up=False))
        return pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
    values = [_as_kind(value, kind, name) for value in (wanted if isinstance(wanted, tuple) else (wanted,))]
    return pc.is_in(column, pa.array([value for value in values if value is not None], kind))


def _end(kind: pa.DataType, number: int | float, *, up: bool) -> pa.Scalar:
    """Return one end of a range in the type of its column; for whole numbers the next one within the range."""
    if pa.types.is_integer(kind):
        whole = (2**63 - 1) * (1 if number > 0 else -1) if math.isinf(number) else math.ceil(number) if up else math.floor(number)
        return pa.scalar(max(-(2**63), min(2**63 - 1, whole)), kind)
    return pa.scalar(float(number), kind)


def _as_kind(value: Value, kind: pa.DataType, name: str) -> Value | None:
    """Return a value in the type of its column; None where no value of that type equals it. Raises InputError for another type."""
    typed: Value | None = value
    if pa.types.is_string(kind):
        fits = isinstance(value, str)
    elif pa.types.is_boolean(kind):
        fits = isinstance(value, bool)
    else:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        typed = _as_number(value, whole=pa.types.is_integer(kind)) if fits else None
    if not fits:
        raise InputError(f"filter: {clean(name)!r} holds {_kind_name(kind)}s, and is compared with {clean(repr(value)[:100])}")
    return typed


def _as_number(value: Any, *, whole: bool) -> Value | None:
    """Return a number as one of a column of whole numbers, or of others; None where it is not whole."""
    if not whole:
        return float(value)
    return int(value) if value == int(value) else None


def _kind_name(kind: pa.DataType) -> str:
    return next((name for name, known in KINDS.items() if known == kind), str(kind))


def _as_bools(values: pa.ChunkedArray) -> Bool[np.ndarray, "n"]:
    """Return truth values as an array; a missing one is false."""
    bools: np.ndarray = pc.fill_null(values, False).to_numpy()
    return bools


def empty_columns(kinds: Mapping[str, str], rows: int) -> dict[str, pa.ChunkedArray]:
    """Return columns of metadata for photos that have none."""
    return {name: pa.chunked_array([pa.nulls(rows, KINDS[kind])]) for name, kind in kinds.items()}


def checked_kinds(value: Any, where: str) -> dict[str, str]:
    """Return what a manifest says about columns of metadata: the name of the type of each. Raises InputError for anything else."""
    if not isinstance(value, Mapping) or len(value) > limits.METADATA_COLUMNS:
        raise InputError(f"{where}: its columns of metadata must be a mapping of at most {limits.METADATA_COLUMNS} names")
    for name, kind in value.items():
        checked_column_name(str(name), where)
        if not isinstance(kind, str) or kind not in KINDS:
            raise InputError(
                f"{where}: column {clean(str(name))!r} must be one of {', '.join(KINDS)}, got {clean(str(kind)[:100])!r}"
            )
    return dict(value)


def common_kinds(parts: Iterable[Mapping[str, str]], where: str) -> dict[str, str]:
    """Return the columns of several segments together. Raises InputError where two have one name and other types."""
    found: dict[str, str] = {}
    for part in parts:
        for name, kind in part.items():
            if found.setdefault(name, kind) != kind:
                raise InputError(f"{where}: column {clean(name)!r} is {found[name]} in one segment and {kind} in another")
    if len(found) > limits.METADATA_COLUMNS:
        raise InputError(f"{where}: {len(found)} columns of metadata, more than {limits.METADATA_COLUMNS}")
    return found
