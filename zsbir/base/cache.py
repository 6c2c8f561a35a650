"""The cache of a machine: files by content, shared by all its processes, bounded in size, evicted least recently used first.

`ZSBIR_CACHE` is its folder (default `~/.cache/zsbir`), `ZSBIR_CACHE_GB` its bound (default 100, and never more than nine tenths of
what it holds and the disk has free). Everything in it can be made again; removing it is safe while nothing runs.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from zsbir.base.errors import DiskFull, InputError, RunError
from zsbir.base.files import is_full, make_shared, write_failure

DEFAULT_GB = 100.0
IN_USE_S = 60.0
"""A file that was asked for within this time is not evicted: its reader may be about to open it."""

_TOUCH_S = 10.0
_NAME = re.compile(r"[0-9a-f]{2,64}(?:\.[A-Za-z0-9]{1,16})?")


def cache_dir() -> Path:
    """Return the folder of the cache: `ZSBIR_CACHE`, else `~/.cache/zsbir`."""
    return Path(os.environ.get("ZSBIR_CACHE") or Path.home() / ".cache" / "zsbir")


def cache_bytes() -> int:
    """Return the bound of the cache in bytes. Raises InputError when `ZSBIR_CACHE_GB` is not a positive number."""
    text = os.environ.get("ZSBIR_CACHE_GB") or str(DEFAULT_GB)
    try:
        asked = float(text) * 1e9
    except ValueError:
        asked = 0
    if not asked > 0:
        raise InputError(f"ZSBIR_CACHE_GB must be a positive number of gigabytes, got {text!r}")
    folder = _objects()
    return int(min(asked, 0.9 * (shutil.disk_usage(folder).free + sum(size for _, _, size in _contents(folder)))))


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """Return the cached file of that name; where it is missing, `make(path)` makes it, once however many processes ask.

    name: must identify the content (`cache_name`), since the file is never made anew. Raises RunError when the disk is full.
    """
    path = _path(name)
    if _touch(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(_locks() / name[:2]):
        if not _touch(path):
            _make(path, make)
            _evict(keep=path)
    return path


def is_cached(name: str) -> bool:
    """Return whether the file of that name is in the cache at this moment."""
    return _path(name).exists()


def cache_name(sha256: str, name: str) -> str:
    """Return the name in the cache of a file called `name` (or an address that ends so): its checksum, with the same ending.

    Readers go by endings. One that is not plain is left out: the name may come from a stranger's manifest.
    """
    ending = re.search(r"\.[A-Za-z0-9]{1,16}\Z", name)
    return f"{sha256}{ending[0] if ending else ''}"


def _path(name: str) -> Path:
    """Return the path of a file in the cache. Raises InputError for a name that could lead out of it."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name[:100]!r} is not the name of a file in the cache: it should be a checksum")
    return _objects() / name[:2] / name


def drafts_dir() -> Path:
    """Return the folder in which this process writes files for object storage; those of killed processes are removed."""
    drafts = cache_dir() / "drafts"
    mine = drafts / f"{os.getpid()}-{_process_id()}"
    with _drafts_lock:
        if not mine.exists():
            drafts.mkdir(parents=True, exist_ok=True)
            _lock_for_life(mine)
            mine.mkdir()
            for other in drafts.iterdir():
                if other.is_dir() and other != mine:
                    _remove_if_abandoned(other)
    return mine


def _make(path: Path, make: Callable[[Path], None]) -> None:
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=".")
    os.close(handle)
    try:
        make(Path(part))
        make_shared(Path(part))
        Path(part).replace(path)
    except OSError as error:
        reason = write_failure(error, cache_dir())
        if not reason:
            raise
        kind = DiskFull if is_full(error) else RunError
        raise kind(f"cannot write the cache {cache_dir()}: {reason}; set ZSBIR_CACHE to a larger disk") from error
    finally:
        Path(part).unlink(missing_ok=True)


def _touch(path: Path) -> bool:
    """Return whether the file exists, and mark it as recently used."""
    try:
        if time.time() - path.stat().st_mtime > _TOUCH_S:
            os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _evict(keep: Path) -> None:
    """Remove the files that were not used for longest until the rest fits. Processes keep those that they have open."""
    limit, contents = cache_bytes(), sorted(_contents(_objects()))
    total = sum(size for _, _, size in contents)
    for used_s, path, size in contents:
        if total <= limit or time.time() - used_s < IN_USE_S:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            total -= size


def _contents(folder: Path) -> list[tuple[float, Path, int]]:
    """Return (last used, file, bytes) of everything below a folder."""
    found = []
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory, name)
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            found.append((stat.st_mtime, path, stat.st_blocks * 512))
    return found


def _objects() -> Path:
    folder = cache_dir() / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _locks() -> Path:
    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


_held: dict[Path, FileLock] = {}
_drafts_lock = threading.Lock()


def _process_id() -> str:
    """Return what tells this process from an earlier one with the same number."""
    return f"{_PROCESS_STARTED_NS:x}"


_PROCESS_STARTED_NS = time.time_ns()


def _lock_for_life(folder: Path) -> None:
    """Take a lock of the operating system, which ends with this process."""
    if folder in _held:  # the cache was removed meanwhile
        _held.pop(folder).release(force=True)
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    lock.acquire()
    _held[folder] = lock


def _remove_if_abandoned(folder: Path) -> None:
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        with lock.acquire(blocking=False):
            shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        return
    Path(lock.lock_file).unlink(missing_ok=True)
