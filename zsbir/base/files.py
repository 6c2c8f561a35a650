"""Files on this machine's disk: whole or not at all, and by checksum."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

_MASK = os.umask(0)
os.umask(_MASK)  # it can only be asked for by setting it

Made = TypeVar("Made")

_FOLDER_TRIES = 100


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: a reader sees the old bytes or the new ones, also after a power cut."""
    with _part_of(path) as part:
        try:
            part.write(data)
            part.flush()
            os.fsync(part.fileno())
            Path(part.name).chmod(0o666 & ~_MASK)  # a temporary file is its maker's alone; what is kept is the team's
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def _part_of(path: Path) -> IO[bytes]:
    """A new file beside `path`."""
    return in_folder(path.parent, lambda: tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False))


def in_folder(folder: Path, make: Callable[[], Made]) -> Made:
    """What `make` makes in a folder. Another process may remove it at this moment, because it is empty: then it is made again."""
    for tries_left in reversed(range(_FOLDER_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return make()
        except (FileNotFoundError, FileExistsError):
            if not tries_left:
                raise
    raise AssertionError("unreachable")
