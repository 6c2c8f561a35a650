"""The classes of a data set as lines of text: how many photos and sketches each split has, and which classes are unseen.

The data set may come from a stranger: what classes.json holds is checked before it is shown.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from zsbir.base import limits
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.text import clean
from zsbir.data.domains import SPLITS

MOST_CLASSES = 30
"""Classes that are listed one by one; of more, the sums and the smallest are shown."""

SMALLEST = 5
NAMES = 40
"""Unseen classes that are named."""

_LONGEST_NAME = 40


class ClassRow(BaseModel):
    """A class of a data set: its name and split, and how many photos and sketches it has."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(max_length=limits.PATH_BYTES)
    split: Literal["train", "dev", "unseen"]
    photos: int = Field(ge=0, le=limits.TABLE_ROWS)
    sketches: int = Field(ge=0, le=limits.TABLE_ROWS)


_ROWS = TypeAdapter(list[ClassRow])


def classes_of(dataset: Artifact) -> list[ClassRow]:
    """Return the rows of classes.json, checked. Raises InputError, which names the first fault."""
    try:
        return _ROWS.validate_python(dataset.read_json("classes.json"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{dataset.address('classes.json')}: {where or 'its contents'}: {first['msg']}") from None


def class_table(rows: list[ClassRow]) -> str:
    """Return sums by split, the unseen classes by name, and each class, or of more than MOST_CLASSES the smallest."""
    lines = [f"{'split':8}{'classes':>9}{'photos':>11}{'sketches':>11}"]
    for split in (*SPLITS, "all"):
        lines.append(_sums(split, [row for row in rows if split in (row.split, "all")]))
    unseen = [row.name for row in rows if row.split == "unseen"]
    more = f" and {len(unseen) - NAMES} more (classes.json)" if len(unseen) > NAMES else ""
    lines.append(f"unseen: {', '.join(map(_short, unseen[:NAMES])) or 'none'}{more}")
    if len(rows) <= MOST_CLASSES:
        lines += _each(rows)
    else:
        smallest = sorted(rows, key=lambda row: (min(row.photos, row.sketches), row.name))[:SMALLEST]
        found = [f"{_short(row.name)} ({row.split}, {row.photos:,} photos, {row.sketches:,} sketches)" for row in smallest]
        lines.append(f"smallest: {', '.join(found)}")
    return "\n".join(map(clean, lines))


def _sums(name: str, rows: list[ClassRow]) -> str:
    photos, sketches = sum(row.photos for row in rows), sum(row.sketches for row in rows)
    return f"{name:8}{len(rows):9,}{photos:11,}{sketches:11,}"


def _each(rows: list[ClassRow]) -> list[str]:
    """Return a line for each class, by split and name."""
    width = max((len(_short(row.name)) for row in rows), default=0) + 2
    ordered = sorted(rows, key=lambda row: (SPLITS.index(row.split), row.name))
    return [f"  {_short(row.name):{width}}{row.split:8}{row.photos:9,}{row.sketches:11,}" for row in ordered]


def _short(name: Any) -> str:
    text = clean(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 3]}..."
