"""Files on this machine's disk: atomic writes and checksums."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

_MASK = os.umask(0)
os.umask(_MASK)  # the mask can only be read by setting it

Made = TypeVar("Made")

_FOLDER_TRIES = 100


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: readers see the old bytes or the new ones, even after a power cut."""
    with _part_of(path) as part:
        try:
            part.write(data)
            part.flush()
            os.fsync(part.fileno())
            Path(part.name).chmod(
                0o666 & ~_MASK
            )  # temporary files are readable by their owner alone; this one is kept, for the team
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def _part_of(path: Path) -> IO[bytes]:
    """Make a temporary file beside `path`."""
    return in_folder(path.parent, lambda: tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False))


def in_folder(folder: Path, make: Callable[[], Made]) -> Made:
    """Call `make` in a folder that exists, and return its result. Other processes may remove it as empty: it is made again."""
    for tries_left in reversed(range(_FOLDER_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return make()
        except (FileNotFoundError, FileExistsError):
            if not tries_left:
                raise
    raise AssertionError("unreachable")
