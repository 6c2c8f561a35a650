"""A night in which the network, a disk and processes fail while a queue works: what fails really fails, and comes back later.

The storage root, with the job store, lies on a small disk in memory. The name of the host that has ImageNet's weights does not
resolve until the file is there; a store of pictures refuses connections for the same time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PIECE = 1 << 20


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[Path]:
    """Mount a disk in memory on a folder. PermissionError where this user may not."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        raise PermissionError("this user may not mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


class FullDisk(threading.Thread):
    """Keeps a disk full, also where others free room on it, until it is told to let go."""

    def __init__(self, folder: Path):
        super().__init__(daemon=True)
        self._file, self._over = folder / "filler", threading.Event()

    def run(self) -> None:
        with self._file.open("ab", buffering=0) as file:
            while not self._over.wait(0.02):
                self._fill(file.fileno())

    def let_go(self) -> None:
        """Remove what fills the disk."""
        self._over.set()
        self.join()
        self._file.unlink()

    def _fill(self, descriptor: int) -> None:
        for size in (PIECE, 1 << 12):
            with suppress(OSError):
                while os.write(descriptor, b"\0" * size) == size:
                    pass


def kill_one(mark: str, timeout_s: float = 120.0) -> int:
    """SIGKILL the process of an attempt whose command names this file, once it has made the file; return the process's id."""
    found: list[psutil.Process] = []

    def seen() -> bool:
        for process in psutil.process_iter(["cmdline"]) if Path(mark).exists() else ():
            words = process.info["cmdline"] or []
            if mark in words and process.pid != os.getpid():
                found.append(process)
        return bool(found)

    wait_until(seen, timeout_s)
    found[0].send_signal(signal.SIGKILL)
    return found[0].pid


def wait_until(true: Callable[[], object], timeout_s: float, pause_s: float = 0.1, about: Callable[[], object] = str) -> None:
    """Wait. about: what to say where it takes too long."""
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, about()
        time.sleep(pause_s)
