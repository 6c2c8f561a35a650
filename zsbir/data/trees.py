"""The files of a data set as a scan asks for them: on disk folder by folder, in object storage all from one listing.

Both list the same files alike. A name that one of the two could not hold (a backslash, an empty part, `..`) is left out, with
a warning. On disk no link is followed out of the root.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from zsbir.base.errors import InputError
from zsbir.base.events import say, warn
from zsbir.base.storage import open_folder

if TYPE_CHECKING:
    from zsbir.base.storage import Folder

Stamp = tuple[int, int]
"""Bytes of a file, and nanoseconds since 1970 when it was last written: what changes when the file does. (0, 0): it is gone."""

_GONE = (0, 0)
_SAY_EVERY = 100_000
_NO_NAMES = frozenset({"", ".", ".."})


@runtime_checkable
class Tree(Protocol):
    """The files below a folder, without opening any. Paths are keys below it ("photo/cat/a.jpg"; "" for the folder itself)."""

    @property
    def folder(self) -> Folder:
        """The folder that the files are read from. It can be sent to other processes; the tree cannot."""

    def has_folder(self, path: str) -> bool:
        """Return whether there is such a folder."""

    def folders(self, path: str, start: str = "") -> list[str]:
        """Return the visible folders directly in a folder, sorted: those whose name starts with `start`."""

    def files(self, path: str, suffixes: Collection[str]) -> list[str]:
        """Return the visible files directly in a folder, sorted, that end in one of `suffixes` (".jpg", in any case)."""

    def below(self, suffixes: Collection[str]) -> list[str]:
        """Return every such file at any depth, hidden or not, folder by folder; links that lead out are left out."""

    def check(self, path: str) -> None:
        """Raise InputError when `path` is, or lies below, a link that leads out of the tree."""

    def stamp(self, path: str) -> Stamp:
        """Return size and time of a file."""


def open_tree(uri: str | Path) -> Tree:
    """Open the tree at a path or an `s3://` URI. Nothing is listed before it is asked for.

    Raises InputError for malformed URIs and buckets that do not exist.
    """
    folder = open_folder(uri)
    root = folder.local()
    return ListedTree(folder) if root is None else DiskTree(folder, root)


def key_of(path: str, where: str) -> str:
    """Turn `path`, as a user wrote it in `where`, into a key below the root. Raises InputError when it leads elsewhere."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
        raise InputError(f"{where}: {path!r} is not a path below the data set's folder")
    return pure.as_posix() if pure.parts else ""


def under(path: str, name: str) -> str:
    """Return the key of `name` in the folder `path`."""
    return f"{path}/{name}" if path else name


class DiskTree:
    """A `Tree` on disk. Every call reads the disk."""

    def __init__(self, folder: Folder, root: Path):
        self.folder, self._root = folder, root
        self._checked: set[Path] = set()

    def has_folder(self, path: str) -> bool:
        """Return whether there is such a folder, or a link to one."""
        return (self._root / path).is_dir()

    def folders(self, path: str, start: str = "") -> list[str]:
        """List folders as `Tree` says. Raises InputError when one is a link that leads out."""
        self.check(path)
        found = [entry for entry in self._visible(path) if entry.name.startswith(start) and entry.is_dir()]
        for entry in found:
            self._check_entry(entry)
        return sorted(under(path, entry.name) for entry in found)

    def files(self, path: str, suffixes: Collection[str]) -> list[str]:
        """List files as `Tree` says. Raises InputError when one is a link that leads out."""
        self.check(path)
        found = [entry for entry in self._visible(path) if suffix_of(entry.name) in suffixes]
        for entry in found:
            self._check_entry(entry)
        return sorted(under(path, entry.name) for entry in found if entry.is_file())

    def below(self, suffixes: Collection[str]) -> list[str]:
        """List files at any depth as `Tree` says; links to folders are not followed, as elsewhere in Python."""
        found = []
        for directory, _, names in os.walk(self._root):
            path = Path(directory).relative_to(self._root).as_posix()
            for name in names:
                key = under("" if path == "." else path, name)
                if suffix_of(name) in suffixes and self._is_own_file(key):
                    found.append(key)
        return sorted(found, key=_parts)

    def check(self, path: str) -> None:
        """Check a path as `Tree` says; each folder is resolved once."""
        file = self._root / path
        if file.parent not in self._checked and path:
            self._check_link(file.parent)
            self._checked.add(file.parent)
        if file.is_symlink():
            self._check_link(file)

    def stamp(self, path: str) -> Stamp:
        """Return size and time as they are on disk now."""
        try:
            found = os.stat(f"{self._root}/{path}")  # noqa: PTH116 - 3 x faster, a million times
        except OSError:
            return _GONE
        return found.st_size, found.st_mtime_ns

    def _visible(self, path: str) -> Iterator[os.DirEntry[str]]:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._root / path) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and ("\\" not in entry.name or _is_plain(entry.name, self._root / path)):
                    yield entry

    def _check_entry(self, entry: os.DirEntry[str]) -> None:
        if entry.is_symlink():
            self._check_link(Path(entry.path))

    def _check_link(self, path: Path) -> None:
        if not self._leads_inside(path):
            raise InputError(
                f"{str(path)!r} is a link that leads out of {self.folder.uri!r}; copy what it points to into the folder"
            )

    def _is_own_file(self, key: str) -> bool:
        path = self._root / key
        return _is_plain(key, self._root) and path.is_file() and (not path.is_symlink() or self._leads_inside(path))

    def _leads_inside(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self._root)
        except (OSError, RuntimeError):  # links in a circle
            return False


class ListedTree:
    """A `Tree` in object storage, listed once, at the first call; a million files take about 100 MB."""

    def __init__(self, folder: Folder):
        self.folder = folder

    def has_folder(self, path: str) -> bool:
        """Return whether any file is below that path."""
        return path in self._folders

    def folders(self, path: str, start: str = "") -> list[str]:
        """List folders as `Tree` says, from the listing."""
        names = self._folders[path].folders if path in self._folders else []
        return sorted(under(path, name) for name in names if name.startswith(start) and not name.startswith("."))

    def files(self, path: str, suffixes: Collection[str]) -> list[str]:
        """List files as `Tree` says, from the listing, which is sorted already."""
        names = self._folders[path].names if path in self._folders else []
        return [under(path, name) for name in names if suffix_of(name) in suffixes and not name.startswith(".")]

    def below(self, suffixes: Collection[str]) -> list[str]:
        """List files at any depth as `Tree` says, from the listing."""
        found = (under(path, name) for path, listed in self._folders.items() for name in listed.names)
        return sorted((path for path in found if suffix_of(path) in suffixes), key=_parts)

    def check(self, path: str) -> None:
        """Do nothing: object storage has no links."""

    def stamp(self, path: str) -> Stamp:
        """Return size and time from the listing; no request is made."""
        parent, _, name = path.rpartition("/")
        return self._folders[parent].stamp(name) if parent in self._folders else _GONE

    @cached_property
    def _folders(self) -> dict[str, _Listed]:
        """The names directly in each folder. A folder exists when a file is below it."""
        folders: dict[str, _Listed] = {}
        odd: list[str] = []
        for number, entry in enumerate(self.folder.walk(), 1):
            if number % _SAY_EVERY == 0:
                say(f"listed {number} files below {self.folder.uri}")
            if not entry.size and entry.key[-1:] in ("", "/"):
                continue  # what stands for an empty folder in some programs
            if "\\" in entry.key or not _NO_NAMES.isdisjoint(entry.key.split("/")):
                odd.append(entry.key)
                continue
            parent, _, name = entry.key.rpartition("/")
            # No store tells less than a millisecond, and seconds as a float are good for that.
            _folder(folders, parent).add(name, entry.size, round(entry.modified_s * 1000) * 1_000_000)
        if odd:
            warn(f"left out {len(odd)} objects below {self.folder.uri} whose keys are not paths of files, such as {odd[0]!r}")
        return folders


class _Listed:
    """One folder: the names in it, of files in order with size and time side by side. A dictionary would take twice the memory."""

    __slots__ = ("folders", "names", "sizes", "times")

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.names: list[str] = []
        self.sizes, self.times = array("q"), array("q")

    def add(self, name: str, size: int, time_ns: int) -> None:
        """Append a file; a listing comes in the order of keys."""
        self.names.append(name)
        self.sizes.append(size)
        self.times.append(time_ns)

    def stamp(self, name: str) -> Stamp:
        """Return size and time of one of the files."""
        number = bisect_left(self.names, name)
        if number == len(self.names) or self.names[number] != name:
            return _GONE
        return self.sizes[number], self.times[number]


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name (".jpg"), in lower case."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - 5 x faster


def _is_plain(name: str, where: Path | str) -> bool:
    """Return whether a name on disk is valid on other systems, where a backslash separates folders; warn where it is not."""
    if "\\" in name:
        warn(f"left out {name!r} below {str(where)!r}: rename it without the backslash")
    return "\\" not in name


def _parts(path: str) -> list[str]:
    return path.split("/")


def _folder(folders: dict[str, _Listed], path: str) -> _Listed:
    """Return the folder of that path; a new one is added together with its parents."""
    if path not in folders:
        folders[path] = _Listed()
        parent, _, name = path.rpartition("/")
        if path:
            _folder(folders, parent).folders.append(name)
    return folders[path]
