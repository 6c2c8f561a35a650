"""Files and folders that only their owner can read: tokens, passwords, and what lies beside them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from zsbir.base.errors import InputError

FOLDER_MODE, FILE_MODE = 0o700, 0o600


def private_folder(path: Path) -> Path:
    """Make a folder that only this user can enter, or close one that others could enter; return it.

    InputError where that cannot be had: it belongs to another user, or its disk keeps no permissions.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=FOLDER_MODE, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.getuid():
        raise InputError(f"{path} belongs to another user, who could read tokens in it; choose a --root of your own")
    if stat.S_IMODE(found.st_mode) != FOLDER_MODE:
        path.chmod(FOLDER_MODE)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise InputError(f"{path} cannot be closed to other users: its disk keeps no permissions; link it to one that does")
    return path


def close_files(folder: Path) -> None:
    """Take the rights of other users from the files in a folder and below it, as an earlier version may have made them."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(FILE_MODE)


def write_private(path: Path, text: str) -> None:
    """Write a whole file or nothing; only its owner can read it, from its first byte on."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def open_log(path: Path) -> IO[bytes]:
    """Open a log that only its owner can read, to append to it; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE), "ab")
