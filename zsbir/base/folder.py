"""The interface of folders on disk and in object storage, and the rules for keys in them.

`zsbir.base.disk` and `zsbir.base.s3` implement it; `zsbir.base.storage` opens the right one for an address.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol, runtime_checkable

from zsbir.base.errors import InputError

S3_SCHEME = "s3://"
WORKSPACE = ".writing-"
"""The prefix of what a writer keeps in a folder while it works there."""

NO_NAMES = frozenset({"", ".", ".."})
"""Parts of an address that name no file or folder."""


class Entry(NamedTuple):
    """One file of a folder: its key below it, bytes, and seconds since 1970 when it was last written."""

    key: str
    size: int
    modified_s: float


@runtime_checkable
class Folder(Protocol):
    """A folder of files by key ("a/b.parquet").

    Missing files raise FileNotFoundError; requests that the store refuses, InputError or RunError with the way out (disk: OSError).
    """

    uri: str

    def sub(self, key: str) -> Folder:
        """Return the folder `key` below this one."""

    def read(self, key: str, limit: int | None = None) -> bytes:
        """Return all bytes of a file. Raises InputError when it has more than `limit` bytes, of which no more are read."""

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes [start, start + length) of a file; fewer where it ends before."""

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, or None where there is none."""

    def version(self, key: str) -> str | None:
        """Return a text that changes when the file does, without reading it; None where there is none."""

    def create(self, key: str, data: bytes) -> bool:
        """Put a file where there is none, whole or not at all. Return False when there is one; of several writers one wins."""

    def replace(self, key: str, data: bytes) -> None:
        """Put a file over whatever is there, whole or not at all: for marks and leases, never for files of artifacts."""

    def publish(self, key: str, file: Path, sha256: str) -> str:
        """Store a finished local file, which may be moved, and return its key.

        That is `key`, also when the same bytes are there already; where other bytes are, a variation that no other writer uses.
        """

    def download(self, key: str, file: Path, limit: int | None = None) -> None:
        """Copy a file to this machine. The caller compares the checksum. Raises InputError when it has more than `limit` bytes."""

    def leads_out(self, key: str) -> bool:
        """Return whether a file lies outside of this folder in truth: behind a link, which object storage does not have."""

    def walk(self) -> Iterator[Entry]:
        """Yield every file below, in the order of keys."""

    def names(self) -> list[str]:
        """Return the names of the files and folders directly below, sorted."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files; those that do not exist are ignored."""

    def clear(self) -> None:
        """Remove everything below."""

    def local(self, key: str = "") -> Path | None:
        """Return the path of that file on this machine's disk, or None for object storage."""

    def check_writable(self) -> None:
        """Raise at once, before any work is done, when this folder cannot be written."""

    def workspace(self) -> AbstractContextManager[Path]:
        """Open a new local directory to write files in before they are published here; it is removed afterwards.

        Raises at once, before any work is done, when this folder cannot be written.
        """


def checked_key(key: str) -> str:
    """Return `key`. Raises InputError when it leads out of its folder, or is not the normal form of a name ("a//b", "./a")."""
    if not NO_NAMES.isdisjoint(key.split("/")) or "\\" in key or "\0" in key:
        raise InputError(f"{key!r} is not the name of a file in a folder")
    return key


class TooLarge(InputError):  # noqa: N818 - it describes the file
    """A file has more bytes than its reader allows."""

    def __init__(self, uri: str, key: str, limit: int):
        super().__init__(f"{uri}/{key} has more than the {limit} bytes allowed")


def variation(key: str) -> str:
    """Return a key beside `key`, with the same ending, that no other writer has."""
    path = PurePosixPath(key)
    return str(path.with_name(f"{path.stem}~{uuid.uuid4().hex[:12]}{path.suffix}"))
