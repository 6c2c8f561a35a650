"""Where bytes live: one interface, with local disk (`zsbir.base.disk`) and object storage (`zsbir.base.s3`) behind it.

A `Folder` is a directory, or a prefix of a bucket. Its files are write-once: `publish` never puts other bytes where some are, and
`create` has one winner. On these two, artifacts are built (see `zsbir.base.artifact`); nothing else is asked of a store.

Environment: `ZSBIR_ROOT` (storage root, a path or `s3://bucket/prefix`; default `artifacts` in the working directory); for S3 the
usual `AWS_*` variables (see docs/storage.md).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol, runtime_checkable

from zsbir.base.errors import InputError

S3_SCHEME = "s3://"
WORKSPACE = ".writing-"
"""The prefix of what a writer keeps in a folder while it works there."""

_NO_NAMES = frozenset({"", ".", ".."})


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

    def read(self, key: str) -> bytes:
        """Return all bytes of a file."""

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

    def download(self, key: str, file: Path) -> None:
        """Copy a file to this machine. The caller compares the checksum."""

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


def open_folder(uri: str | Path) -> Folder:
    """Return the folder at a path, a `file://` or an `s3://` URI. Raises InputError for other schemes and malformed URIs."""
    text = str(uri)
    if text.startswith(S3_SCHEME):
        from zsbir.base.s3 import S3Folder  # boto3 is slow to import, and most commands do without it

        return S3Folder(text)
    from zsbir.base.disk import DiskFolder

    return DiskFolder(local_path(text))


def join(uri: str | Path, *parts: str) -> str:
    """Return the address of something below a folder."""
    text = str(uri)
    if text.startswith(S3_SCHEME):
        return "/".join([text.rstrip("/"), *parts])
    return str(local_path(text).joinpath(*parts))


def folder_name(uri: str) -> str:
    """Return the last part of an address."""
    return uri.rstrip("/").rpartition("/")[2]


def split_file(uri: str | Path) -> tuple[Folder, str]:
    """Return the folder and the key of the single file at `uri`."""
    text = str(uri)
    if text.startswith(S3_SCHEME):
        bucket, _, key = text.removeprefix(S3_SCHEME).partition("/")
        parent, _, name = key.rstrip("/").rpartition("/")
        if not name:
            raise InputError(f"{text!r} is not a file in object storage: it should read s3://bucket/key")
        return open_folder(f"{S3_SCHEME}{bucket}/{parent}"), name
    path = local_path(text)
    return open_folder(path.parent), path.name


def is_remote(uri: str | Path) -> bool:
    """Return whether `uri` lies in object storage."""
    return str(uri).startswith(S3_SCHEME)


def default_root() -> str:
    """Return the storage root to use where none is named: `ZSBIR_ROOT`, else `artifacts`."""
    return os.environ.get("ZSBIR_ROOT") or "artifacts"


def local_path(uri: str) -> Path:
    """Return the local path that `uri` (a path or a `file://` URI) means. Raises InputError for other schemes."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    if "://" in uri:
        raise InputError(f"{uri!r} has a scheme that is not known here: give a path, file:// or s3://bucket/prefix")
    return Path(uri)


def checked_key(key: str) -> str:
    """Return `key`. Raises InputError when it leads out of its folder, or is not the normal form of a name ("a//b", "./a")."""
    if not _NO_NAMES.isdisjoint(key.split("/")) or "\\" in key or "\0" in key:
        raise InputError(f"{key!r} is not the name of a file in a folder")
    return key


def variation(key: str) -> str:
    """Return a key beside `key`, with the same ending, that no other writer has."""
    path = PurePosixPath(key)
    return str(path.with_name(f"{path.stem}~{uuid.uuid4().hex[:12]}{path.suffix}"))
