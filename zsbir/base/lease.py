"""One process at a time works on a folder: on disk by a file lock, in object storage by a lease.

A lease is an object that its holder rewrites every few seconds. A process that finds one watches it: a lease that no longer changes
belongs to a dead process, and the lease with the next number may be taken; of several that try, the store lets one win. No clocks
are compared. Leases only save work from being done twice: what keeps artifacts whole is how they are committed.
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
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zsbir.base.errors import Busy, InputError, RunError
from zsbir.base.events import say
from zsbir.base.storage import Folder, open_folder
from zsbir.base.strict_json import parse_json

HEARTBEAT_S = 5.0
"""Seconds between two rewrites of a lease by its holder."""

PATIENCE_HEARTBEATS = 6
"""Heartbeats without a change after which a holder is taken for dead."""

_NAME = ".lease-"
_PIDS = 2**31
_TAKE_TRIES = 3
_given_up: set[str] = set()
"""The ids of leases that this process no longer holds: a request of its own that arrives late may bring one back."""


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Keep other processes from working on `uri`. Raises Busy when one does already, RunError when it cannot be written."""
    folder = open_folder(uri)
    path = folder.local()
    with _leased(folder) if path is None else _locked(path):
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a folder on disk. Errors of what is done meanwhile pass unchanged: they are not the lock's."""
    lock = FileLock(path / ".lock", blocking=False)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise Busy(f"another process is working on {path}; wait for it, or end it") from None
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _leased(folder: Folder) -> Iterator[None]:
    lease = _taken_lease(folder)
    folder.delete(name for name in _leases(folder) if name < lease.name)
    heartbeats = threading.Thread(target=lease.keep_alive, daemon=True, name="lease")
    heartbeats.start()
    try:
        yield
    finally:
        lease.stop()
        heartbeats.join()  # before it is given up: a late heartbeat would bring it back
        lease.give_up()


def _taken_lease(folder: Folder) -> _Lease:
    for _ in range(_TAKE_TRIES):
        lease = _Lease(folder, f"{_NAME}{_wait_for_turn(folder):06d}")
        if lease.take():
            return lease
        if not _is_abandoned(_holder(_read(folder, lease.name))):
            break
    raise Busy(f"another process has begun to work on {folder.uri} at this moment; wait for it, or end it")


class _Lease:
    def __init__(self, folder: Folder, name: str):
        self._folder, self.name = folder, name
        self._holder: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
        self._heartbeats = 0
        self._stop = threading.Event()

    def take(self) -> bool:
        return self._folder.create(self.name, self._text())

    def keep_alive(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            self._heartbeats += 1
            # While the store is away, another process may take this one for dead; then the commit decides between the two.
            with suppress(InputError, RunError):
                self._folder.replace(self.name, self._text())

    def stop(self) -> None:
        self._stop.set()

    def give_up(self) -> None:
        _given_up.add(self._holder["id"])
        with suppress(InputError, RunError):
            self._folder.delete([self.name])

    def _text(self) -> bytes:
        return json.dumps({**self._holder, "beats": self._heartbeats}).encode()


def _leases(folder: Folder) -> list[str]:
    return [name for name in folder.names() if name.startswith(_NAME)]


def _wait_for_turn(folder: Folder) -> int:
    """Return the number of the next lease. Raises Busy when the holder of the last one is alive."""
    found = _leases(folder)
    if not found:
        return 1
    last = found[-1]
    first_seen = _read(folder, last)
    holder = _holder(first_seen)
    who = f"{holder.get('host')}, process {holder.get('pid')}"
    if not _is_abandoned(holder):
        say(f"{folder.uri} was last worked on by {who}; checking whether it is still alive")
        until = time.monotonic() + PATIENCE_HEARTBEATS * HEARTBEAT_S
        while time.monotonic() < until and (seen := _read(folder, last)):
            if seen != first_seen:
                raise Busy(f"another process is working on {folder.uri} ({who}); wait for it, or end it")
            time.sleep(HEARTBEAT_S / 2)
    return int(last.removeprefix(_NAME)) + 1


def _holder(text: bytes) -> dict[str, Any]:
    try:
        holder = parse_json(text)
    except ValueError:
        return {}
    known = isinstance(holder, dict) and isinstance(holder.get("pid"), int) and isinstance(holder.get("id"), str)
    return holder if known and 0 < holder["pid"] < _PIDS else {}


def _read(folder: Folder, name: str) -> bytes:
    with suppress(FileNotFoundError):
        return folder.read(name)
    return b""


def _is_abandoned(holder: dict[str, Any]) -> bool:
    """Return whether nobody holds a lease: its process on this machine is gone, or this process gave it up before."""
    return holder.get("id") in _given_up or (holder.get("host") == socket.gethostname() and _is_dead(int(holder.get("pid", 0))))


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
