"""One process at a time does a piece of work: on disk by a lock of the operating system's, in object storage by a lease.

A lease is an object that its holder writes anew every few seconds. Who finds one watches it: one that no longer changes is a dead
process's, and the next number in line may be taken; of several who try, the store lets one win. No clock is compared. It saves work
from being done twice; that nothing is damaged does not hang on it, but on how artifacts are committed.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from filelock import FileLock, Timeout

from zsbir.base.errors import Busy, InputError, RunError
from zsbir.base.events import say
from zsbir.base.storage import Folder, open_folder

BEAT_S = 5.0
PATIENCE_BEATS = 6
"""Beats without a change after which a holder is taken for dead."""

_NAME = ".lease-"


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """No second process works on `uri` meanwhile. Busy when one does, RunError when the place cannot be written."""
    folder = open_folder(uri)
    path = folder.local()
    try:
        if path is None:
            with _leased(folder):
                yield
        else:
            path.mkdir(parents=True, exist_ok=True)
            with FileLock(path / ".lock", blocking=False):
                yield
    except Timeout:
        raise Busy(f"another process is working on {folder.uri}; wait for it, or end it") from None
    except OSError as error:
        raise RunError(f"cannot write {folder.uri}: {error.strerror}") from error


@contextmanager
def _leased(folder: Folder) -> Iterator[None]:
    number = _wait_for_turn(folder)
    lease = _Lease(folder, f"{_NAME}{number:06d}")
    if not lease.take():
        raise Busy(f"another process has begun to work on {folder.uri} at this moment; wait for it, or end it")
    folder.delete(name for name in _leases(folder) if name < lease.name)
    beating = threading.Thread(target=lease.beat, daemon=True, name="lease")
    beating.start()
    try:
        yield
    finally:
        lease.stop()
        beating.join()  # before it is given up: a last beat would bring it back
        lease.give_up()


class _Lease:
    def __init__(self, folder: Folder, name: str):
        self._place, self.name = folder, name
        self._holder = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
        self._beats = 0
        self._stop = threading.Event()

    def take(self) -> bool:
        return self._place.create(self.name, self._text())

    def beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            self._beats += 1
            # A store that is away for a while: whoever watches then finds this one dead, and the commit decides between them.
            with suppress(InputError, RunError):
                self._place.replace(self.name, self._text())

    def stop(self) -> None:
        self._stop.set()

    def give_up(self) -> None:
        with suppress(InputError, RunError):
            self._place.delete([self.name])

    def _text(self) -> bytes:
        return json.dumps({**self._holder, "beats": self._beats}).encode()


def _leases(folder: Folder) -> list[str]:
    return [name for name in folder.names() if name.startswith(_NAME)]


def _wait_for_turn(folder: Folder) -> int:
    """The number of the next lease. Busy when the last one is alive."""
    found = _leases(folder)
    if not found:
        return 1
    last = found[-1]
    first_seen = _read(folder, last)
    holder = _holder(first_seen)
    who = f"{holder.get('host')}, process {holder.get('pid')}"
    if not (holder.get("host") == socket.gethostname() and _is_dead(int(holder.get("pid", 0)))):
        say(f"{folder.uri} was last worked on by {who}; seeing whether it is still alive")
        until = time.monotonic() + PATIENCE_BEATS * BEAT_S
        while time.monotonic() < until and (seen := _read(folder, last)):
            if seen != first_seen:
                raise Busy(f"another process is working on {folder.uri} ({who}); wait for it, or end it")
            time.sleep(BEAT_S / 2)
    return int(last.removeprefix(_NAME)) + 1


def _holder(text: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _read(folder: Folder, name: str) -> bytes:
    with suppress(FileNotFoundError):
        return folder.read(name)
    return b""


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
