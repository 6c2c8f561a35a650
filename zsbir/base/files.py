"""Files on this machine's disk: atomic writes, checksums, reading regular files only, and telling whether a write failed."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import stat
import tempfile
import time
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import IO, TypeVar

_MASK = os.umask(0)
os.umask(_MASK)  # the mask can only be read by setting it

Made = TypeVar("Made")

_FOLDER_SECONDS = 5.0
"""How long a folder that others keep removing is made again. A count of tries would not do: two processes can fall into step."""
_FOLDER_PAUSE_S = 1e-3
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ROOM_TEXT = re.compile(rf"\d+ requested and \d+ written|(?:os error|errno) (?:{'|'.join(map(str, _NO_ROOM))})\b", re.IGNORECASE)
"""How NumPy, and libraries written in Rust or C++, report a full disk where they pass on no error number."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a disk that has no room, and of a quota that is used up."""
_FULL_TEXT = re.compile(rf"\d+ requested and \d+ written|(?:os error|errno) (?:{'|'.join(map(str, FULL))})\b", re.IGNORECASE)


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file for reading bytes. Raises OSError for anything but a regular file: a named pipe or a device may never answer."""
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - twice as fast as Path.open; the caller closes it
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a path without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def sha256_file(path: Path) -> str:
    """Return the sha256 of a regular file's bytes, 64 hex digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_shared(path: Path) -> None:
    """Give a file the permissions of one made anew, by the user's umask: temporary files are readable by their owner alone."""
    path.chmod(0o666 & ~_MASK)


def write_failure(error: BaseException, *folders: str | Path) -> str:
    """Return the reason where an error says that a write below one of these folders failed; "" where it is about something else.

    Errors that name a file count by where that file lies. Of the others those count that say that a disk is full.
    """
    if isinstance(error, OSError):
        names = [
            Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)
        ]
        if names:
            return (
                (error.strerror or str(error)) if any(name.is_relative_to(folder) for name in names for folder in folders) else ""
            )
        if error.errno in _NO_ROOM:
            return error.strerror or str(error)
    return f"{error} (is the disk full?)" if _NO_ROOM_TEXT.search(str(error)) else ""


def is_full(error: BaseException) -> bool:
    """Return whether an error of a write says that a disk is full or a quota used up.

    Libraries that pass on no error number are understood by their words, so ask only about errors of writing. A file that has grown
    larger than a limit allows is not one of these: waiting makes no room for it.
    """
    number = error.errno if isinstance(error, OSError) else None
    return number in FULL if number is not None else bool(_FULL_TEXT.search(str(error)))


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: readers see the old bytes or the new ones, even after a power cut."""
    with _part_of(path) as part:
        try:
            part.write(data)
            part.flush()
            os.fsync(part.fileno())
            make_shared(Path(part.name))
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def _part_of(path: Path) -> IO[bytes]:
    """Make a temporary file beside `path`."""
    return in_folder(path.parent, lambda: tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False))


def in_folder(folder: Path, make: Callable[[], Made]) -> Made:
    """Call `make` in a folder that exists, and return its result. Other processes may remove it as empty: it is made again."""
    end = time.monotonic() + _FOLDER_SECONDS
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return make()
        except (FileNotFoundError, FileExistsError):
            if time.monotonic() > end or (folder.exists() and not folder.is_dir()):
                raise
        time.sleep(random.uniform(0, _FOLDER_PAUSE_S))  # noqa: S311 - out of step with whatever removes the folder
