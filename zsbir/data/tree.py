"""What a scan asks of a tree of files, whether it lies on disk or in object storage, and what it passes over there.

`zsbir.data.trees` has the two kinds of trees. Both list the same files alike, and note what they pass over with the reason: names
that no image has or that a table cannot hold, links, folders that cannot be read.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from zsbir.base.errors import InputError
from zsbir.data.names import IMAGE_SUFFIXES, suffix_of, why_not_a_name, why_not_an_image
from zsbir.data.passed_over import PassedOver

if TYPE_CHECKING:
    from zsbir.base.storage import Folder

Stamp = tuple[int, int]
"""Bytes of a file, and nanoseconds since 1970 when it was last written: what changes when the file does. (0, 0): it is gone."""

GONE = (0, 0)
LEADS_OUT = "a link that leads out of the folder"
_UNREADABLE = "a folder that cannot be read"
_DRIVE = re.compile(r"[A-Za-z]:/")


class Listed(NamedTuple):
    """One name in a folder. problem: why it cannot be read; "" where it can."""

    name: str
    is_folder: bool
    is_link: bool = False
    problem: str = ""


class Tree(ABC):
    """The files below a folder, without opening any. Paths are keys below it ("photo/cat/a.jpg"; "" for the folder itself).

    What is listed is visible, and has a name that any table and any system can hold. The rest is noted in `passed`, if given.
    """

    def __init__(self, folder: Folder):
        self.folder = folder
        """The folder that the files are read from. It can be sent to other processes; the tree cannot."""

    @abstractmethod
    def has_folder(self, path: str) -> bool:
        """Return whether there is such a folder."""

    @abstractmethod
    def check(self, path: str) -> None:
        """Raise InputError when `path` is, or lies below, a link that leads out of the tree."""

    @abstractmethod
    def stamp(self, path: str) -> Stamp:
        """Return size and time of a file."""

    @abstractmethod
    def note_odd_keys(self, passed: PassedOver) -> None:
        """Note what the store holds under keys that are not paths: no folder has it."""

    @abstractmethod
    def _listed(self, path: str) -> Iterator[Listed]:
        """Yield what lies directly in a folder. Raises OSError where the folder is not there or cannot be read."""

    def folders(self, path: str, start: str = "", passed: PassedOver | None = None, besides: Collection[str] = ()) -> list[str]:
        """Return the folders directly in a folder, sorted: those whose name begins with `start`.

        besides: suffixes of files that somebody else asks for, and which are not passed over therefore.
        Raises InputError when a folder is a link that leads out, or this one cannot be read.
        """
        found = []
        for entry in self._read(path):
            key, reason = under(path, entry.name), why_not_a_name(entry.name)
            if entry.is_folder and not reason and entry.name.startswith(start):
                found.append(self._inside(key, entry))
            elif passed is not None and (reason or suffix_of(entry.name) not in besides):
                _note(passed, key, entry, reason or entry.problem or why_not_an_image(entry.name) or "not in the folder of a class")
        return sorted(found)

    def files(self, path: str, suffixes: Collection[str], passed: PassedOver | None = None) -> list[str]:
        """Return the files directly in a folder, sorted, that end in one of `suffixes` (".jpg", in any case).

        Images in folders further down are noted as passed over. Raises InputError as `folders` does.
        """
        found = []
        for entry in self._read(path):
            key, reason = under(path, entry.name), why_not_a_name(entry.name)
            if suffix_of(entry.name) in suffixes and not (entry.is_folder or reason) and entry.problem in ("", LEADS_OUT):
                found.append(self._inside(key, entry))
            elif passed is not None and entry.is_folder and not (reason or entry.problem):
                self._note_below(key, passed)
            elif passed is not None:
                _note(passed, key, entry, reason or entry.problem or why_not_an_image(entry.name))
        return sorted(found)

    def below(self, suffixes: Collection[str], passed: PassedOver) -> list[str]:
        """Return every such file at any depth, folder by folder. Links to folders are not followed, as elsewhere in Python."""
        return sorted(self._walk("", suffixes, passed), key=_parts)

    def _walk(self, start: str, suffixes: Collection[str], passed: PassedOver) -> Iterator[str]:
        waiting = [start]
        while waiting:
            path = waiting.pop()
            for entry in self._read(path, passed if path else None):
                key, reason = under(path, entry.name), why_not_a_name(entry.name) or entry.problem
                if entry.is_folder and not (reason or entry.is_link):
                    waiting.append(key)
                elif entry.is_folder:
                    _note(passed, key, entry, reason or "a link to a folder, which is not followed")
                elif reason or suffix_of(entry.name) not in suffixes:
                    _note(passed, key, entry, reason or why_not_an_image(entry.name))
                else:
                    yield key

    def _note_below(self, path: str, passed: PassedOver) -> None:
        others = PassedOver()
        images = list(self._walk(path, IMAGE_SUFFIXES, others))
        for image in images:
            passed.add(image, "in a folder within that of its class: move it up")
        unread = [row for row in others.rows() if row["reason"].startswith(_UNREADABLE)]
        for row in unread:
            passed.add(**row)
        if not images and not unread:
            passed.add(f"{path}/", "a folder without images")

    def _read(self, path: str, passed: PassedOver | None = None) -> list[Listed]:
        """List a folder. One that cannot be read is noted in `passed`; without it, InputError."""
        try:
            return list(self._listed(path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            if passed is None:
                raise unreadable(self.folder, path, error) from None
            passed.add(f"{path}/", f"{_UNREADABLE}: {error.strerror}")
            return []

    def _inside(self, key: str, entry: Listed) -> str:
        """Return `key`. Raises InputError when its entry is a link that leads out."""
        if entry.problem:
            raise link_error(self.folder, key)
        return key


def key_of(path: str, where: str) -> str:
    r"""Turn `path`, as a user wrote it in `where`, into a key below the root; on Windows they write `photo\cat\1.jpg`.

    Raises InputError when it leads elsewhere.
    """
    plain = path.replace("\\", "/")
    pure = PurePosixPath(plain)
    if pure.is_absolute() or _DRIVE.match(plain) or ".." in pure.parts or "\0" in path:
        raise InputError(f"{where}: {path!r} is not a path below the data set's folder")
    return pure.as_posix() if pure.parts else ""


def under(path: str, name: str) -> str:
    """Return the key of `name` in the folder `path`."""
    return f"{path}/{name}" if path else name


def _note(passed: PassedOver, key: str, entry: Listed, reason: str) -> None:
    passed.add(f"{key}/" if entry.is_folder else key, reason)


def unreadable(folder: Folder, path: str, error: OSError) -> InputError:
    """Return the error for a folder of the tree that cannot be listed."""
    where = under(folder.uri, path) if path else folder.uri
    return InputError(f"cannot list the folder {where!r}: {error.strerror}; make it readable, or move it elsewhere")


def link_error(folder: Folder, path: str) -> InputError:
    """Return the error for a path that leads out of the tree."""
    return InputError(
        f"{f'{folder.uri}/{path}'!r} is a link that leads out of {folder.uri!r}; copy what it points to into the folder"
    )


def _parts(path: str) -> list[str]:
    return path.split("/")
