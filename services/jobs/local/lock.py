"""The lock that lets one process at a time keep a storage root's service, and what `down` tells that process."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from services.common.private import write_private
from services.jobs.local.ownership import is_process, start_of
from services.jobs.local.paths import make_state_folder, read_state, state_folder
from zsbir.base.errors import RunError


@contextmanager
def hold_lock(root: str) -> Iterator[None]:
    """Hold the lock of this root's keeper, with this process's number in its file. RunError where another process holds it."""
    make_state_folder(root)
    with _lock_file(root).open("a+") as file:
        for pause_s in (0.1, 0.2, 0.5, None):  # `is_locked` holds the lock for a moment, too
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if pause_s is None:
                    raise RunError("this root's service is kept by another process") from None
                time.sleep(pause_s)
        file.truncate(0)
        file.write(f"{os.getpid()} {start_of(os.getpid())}")
        file.flush()
        _grace_file(root).unlink(missing_ok=True)
        yield


def is_locked(root: str) -> bool:
    """Return whether a process holds the lock. The kernel releases it when that process ends, however it ends."""
    try:
        with _lock_file(root).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except PermissionError:  # another user's: reading its state says so
        return False
    return False


def keeper_pid(root: str) -> int:
    """Return the number of the process that holds the lock; 0 while the file still names an earlier keeper, or nobody."""
    with suppress(FileNotFoundError, ValueError):
        pid, _, start = _lock_file(root).read_text().partition(" ")
        return int(pid) if is_process(int(pid), start) else 0
    return 0


def is_ready(root: str) -> bool:
    """Return whether everything is up that the present keeper has started."""
    state = read_state(root)
    return bool(state.get("ready")) and state["keeper"]["pid"] == keeper_pid(root) and is_locked(root)


def write_grace_s(root: str, grace_s: float) -> None:
    """Tell the keeper for how many seconds jobs may save a checkpoint; a later call changes it."""
    write_private(_grace_file(root), str(grace_s))


def read_grace_s(root: str, default_s: float) -> float:
    """Return the seconds that `down` has named, else `default_s`."""
    with suppress(OSError, ValueError):
        return float(_grace_file(root).read_text())
    return default_s


def _lock_file(root: str) -> Path:
    return state_folder(root) / "keeper.lock"


def _grace_file(root: str) -> Path:
    return state_folder(root) / "grace_s"
