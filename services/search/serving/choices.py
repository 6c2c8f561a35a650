"""What the photos of an index can be chosen by: their classes, folders and columns of metadata, with the values that these have.

Deleted photos do not count. All of it is bounded, since an index may have a million folders.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zsbir.data.index_files import IndexFiles

MOST_CLASSES = 500
"""Classes that are listed."""

MOST_FOLDERS = 500
"""Folders that are listed: those with the most photos."""

MOST_VALUES = 100
"""Values of a column of texts that are listed: the most frequent ones."""

LONGEST = 200
"""Characters of a folder or value that is listed."""

MOST_LEVELS = 20
"""Levels of folders that are listed."""


@dataclass(frozen=True)
class Count:
    """A name and how many photos have it."""

    name: str
    photos: int


@dataclass(frozen=True)
class Column:
    """A column of metadata. kind: string, int, float or bool. photos: how many have a value.

    values: of texts, by name. complete: whether these are all. low, high: the least and the largest number; None for no number.
    """

    name: str
    kind: str
    photos: int
    values: tuple[Count, ...] = ()
    complete: bool = True
    low: int | float | None = None
    high: int | float | None = None


@dataclass(frozen=True)
class Choices:
    """What photos can be chosen by. complete: whether all folders are listed. Folders that are the classes again are left out."""

    folders: tuple[Count, ...]
    complete: bool
    columns: tuple[Column, ...]


def class_counts(files: IndexFiles) -> list[Count]:
    """Return how many photos each class has, by name, at most MOST_CLASSES; photos without a class are left out."""
    counted = _counted(_living(files, files.class_names))
    named = counted.filter(pc.not_equal(counted["name"], "")).sort_by("name").slice(0, MOST_CLASSES)
    return [Count(**each) for each in named.to_pylist()]


def choices_of(files: IndexFiles) -> Choices:
    """Return what the photos of an index can be chosen by, besides their classes."""
    folders, complete = _folders(files)
    columns = tuple(_column(name, kind, _living(files, files.columns[name])) for name, kind in files.kinds.items())
    return Choices(folders, complete, columns)


def _living(files: IndexFiles, column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column if files.alive is None else column.filter(pa.array(files.alive))


def _counted(column: pa.ChunkedArray) -> pa.Table:
    """Return each text of a column and how many photos have it, as columns name and photos; a missing text does not count."""
    counted = column.drop_null().value_counts()
    return pa.table({"name": counted.field("values"), "photos": counted.field("counts")})


def _most(counted: pa.Table, number: int) -> list[Count]:
    """Return the texts that most photos have, without those that are too long to be shown."""
    short = counted.filter(pc.less_equal(pc.utf8_length(counted["name"]), LONGEST))
    first = short.sort_by([("photos", "descending"), ("name", "ascending")]).slice(0, number)
    return [Count(**each) for each in first.to_pylist()]


def _by_name(counts: list[Count]) -> tuple[Count, ...]:
    return tuple(sorted(counts, key=lambda each: each.name))


def _folders(files: IndexFiles) -> tuple[tuple[Count, ...], bool]:
    """Return the folders with the most photos, by name, and whether there are no others. A folder counts what lies below it."""
    parents = pc.replace_substring_regex(_living(files, files.paths), r"(^|/)[^/]*$", "")
    if _are_classes(parents, _living(files, files.class_names)):
        return (), True
    left, found, number = _counted(parents), list[Count](), 0
    left = left.filter(pc.not_equal(left["name"], ""))
    for depth in range(MOST_LEVELS):
        left = left.filter(pc.greater_equal(pc.count_substring(left["name"], "/"), depth))
        cut = pc.replace_substring_regex(left["name"], rf"(?s)^((?:[^/]*/){{{depth}}}[^/]*)/.*$", r"\1")
        level = pa.table({"name": cut, "photos": left["photos"]}).group_by("name").aggregate([("photos", "sum")])
        level = level.rename_columns({"photos_sum": "photos"})
        level = level.filter(pc.less(level["photos"], files.photos))  # one that all photos lie in chooses nothing
        number += len(level)
        found += _most(level, MOST_FOLDERS)
    most = sorted(found, key=lambda each: (-each.photos, each.name))[:MOST_FOLDERS]
    deeper = bool(len(left)) and pc.max(pc.count_substring(left["name"], "/")).as_py() >= MOST_LEVELS
    return _by_name(most), len(most) == number and not deeper


def _are_classes(parents: pa.ChunkedArray, names: pa.ChunkedArray) -> bool:
    """Return whether each folder with photos holds those of one class, has its name, and is the only one of that name."""
    last = pc.replace_substring_regex(parents, r"(?s)^.*/", "")
    same = pc.all(pc.equal(last, names)).as_py()
    return bool(same) and len(pc.unique(parents)) == len(pc.unique(names))


def _column(name: str, kind: str, column: pa.ChunkedArray) -> Column:
    present = len(column) - column.null_count
    if kind == "bool":
        return Column(name, kind, present)
    if kind == "string":
        counted = _counted(column)
        most = _most(counted, MOST_VALUES)
        return Column(name, kind, present, _by_name(most), len(most) == len(counted))
    numbers = column.drop_null().to_numpy()
    numbers = numbers[np.isfinite(numbers)]
    low, high = (numbers.min().item(), numbers.max().item()) if len(numbers) else (None, None)
    return Column(name, kind, present, low=low, high=high)
