"""Files that are downloaded into one folder: their sizes asked before the first of them, room on the disk, checksums afterwards.

Where a publisher names a checksum, it must hold. Where none is named, that of the first download is kept in `checksums.json`, and
later downloads must agree with it as far as both reach.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zsbir.base import events
from zsbir.base.errors import DiskFull, InputError, RunError
from zsbir.base.files import write_atomic
from zsbir.base.limits import MIB
from zsbir.base.strict_json import parse_json
from zsbir.base.urls import redacted
from zsbir.downloads.transfer import Job, Patience, Remote, check_size, look, part_of, transfer
from zsbir.downloads.web import Web
from zsbir.storage_admin.tables import bytes_text, count_text

CHECKSUMS = "checksums.json"
SPARE_BYTES = 64 * MIB
"""Bytes that a download leaves free on the disk."""


class Checksum(NamedTuple):
    """What a file's checksum begins with, in hex digits. kind: of hashlib; length: bytes that it covers, None: all."""

    kind: str
    start: str
    length: int | None = None


class Wanted(NamedTuple):
    """A file to be downloaded. group: what it is, for people; first_bytes: how many are wanted of it, None: all."""

    group: str
    url: str
    name: str
    most_bytes: int
    first_bytes: int | None = None
    checksum: Checksum | None = None


class Sized(NamedTuple):
    """A file to be downloaded, as its server has it. amount: bytes that are wanted."""

    wanted: Wanted
    remote: Remote
    amount: int


def missing(files: Sequence[Wanted], folder: Path) -> list[Wanted]:
    """Return the files that are not in the folder yet, whoever has put them there, or of which more is wanted than is there."""
    kept = _kept(folder)
    return [file for file in files if not (folder / file.name).is_file() or _is_short(file, folder, kept.get(file.name))]


def _is_short(file: Wanted, folder: Path, entry: Any) -> bool:
    """Return whether an earlier download took fewer bytes of a file than are wanted now, and its server has more."""
    size = (folder / file.name).stat().st_size
    of = entry.get("of") if isinstance(entry, dict) else None
    return isinstance(of, int) and size < min(of, file.first_bytes or of)


def ask_sizes(web: Web, files: Sequence[Wanted], patience: Patience) -> list[Sized]:
    """Ask the servers how large the files are. Raises InputError for one that is larger than it may be."""
    found = []
    for file in files:
        remote = look(web, file.url, patience)
        check_size(file.url, remote, file.most_bytes)
        found.append(Sized(file, remote, min(remote.size, file.first_bytes or remote.size)))
    return found


def say_sizes(files: Sequence[Sized], folder: Path) -> None:
    """Print what will be downloaded, with the total, and what of it is here already."""
    for group in dict.fromkeys(file.wanted.group for file in files):
        counts = [file.amount for file in files if file.wanted.group == group]
        of = f" ({count_text(len(counts), 'file')})" if len(counts) > 1 else ""
        events.say(f"to download: {group}{of}, {bytes_text(sum(counts))}")
    here = sum(_arrived(file.wanted, folder) for file in files)
    begun = f", of which {bytes_text(here)} are here already" if here else ""
    events.say(f"together {bytes_text(sum(file.amount for file in files))}{begun}")


def check_room(files: Sequence[Sized], folder: Path, more_bytes: int) -> None:
    """Raise DiskFull where the disk has no room for the files, for `more_bytes` that will be made of them, and for SPARE_BYTES."""
    needed = sum(file.amount - _arrived(file.wanted, folder) for file in files) + more_bytes + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFull(
            f"{folder} needs {bytes_text(needed)} more, and its disk has {bytes_text(free)} free: make room, or pass --to"
        )


def _arrived(file: Wanted, folder: Path) -> int:
    part = part_of(folder / file.name)
    return part.stat().st_size if part.is_file() else 0


def download_all(web: Web, files: Sequence[Sized], folder: Path, patience: Patience) -> None:
    """Bring the files to the folder and check them. What arrives damaged is fetched once more. Raises as `transfer` does."""
    done = sum(min(file.amount, _arrived(file.wanted, folder)) for file in files)
    with _Meter(sum(file.amount for file in files), done) as meter:
        for file in files:
            path = folder / file.wanted.name
            for last in (False, True):
                remote = file.remote if not last else look(web, file.wanted.url, patience)
                job = Job(file.wanted.url, path, remote, file.amount, checked=bool(file.wanted.checksum))
                transfer(web, job, patience, meter.advance)
                fault = _fault(file.wanted, folder)
                if not fault:
                    break
                path.unlink()
                if last:
                    raise RunError(f"{redacted(file.wanted.url)}: {fault}, twice: the file there is another one now, or damaged")
                meter.advance(-file.amount)
                events.say(f"{file.wanted.name} arrived damaged ({fault}): fetched again")
            _keep(file.wanted, folder, remote.size)


def check_all(files: Sequence[Wanted], folder: Path) -> None:
    """Raise InputError for a file in the folder that has not the checksum it should have."""
    for file in files:
        if fault := _fault(file, folder):
            raise InputError(
                f"{folder / file.name}: {fault}; remove it to fetch it again, or remove {folder / CHECKSUMS} to trust it"
            )
        _keep(file, folder)


class _Meter:
    """Progress in MB, advanced by bytes."""

    def __init__(self, total: int, done: int):
        self._bytes, self._shown = done, done // 10**6
        self._progress = events.Progress("download", total=max(1, total // 10**6), unit="MB", start=self._shown)

    def advance(self, count: int) -> None:
        self._bytes += count
        more = self._bytes // 10**6 - self._shown
        if more:
            self._shown += more
            self._progress.advance(more)

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()


def _expected(file: Wanted, folder: Path) -> Checksum | None:
    if file.checksum:
        return file.checksum
    entry = _kept(folder).get(file.name)
    if not isinstance(entry, dict) or not isinstance(entry.get("bytes"), int) or entry.get("url") != file.url:
        return None
    start = str(entry.get("sha256"))
    return Checksum("sha256", start, entry["bytes"]) if re.fullmatch("[0-9a-f]{64}", start) else None


def _fault(file: Wanted, folder: Path) -> str:
    """Return what is wrong with a file that has arrived; "" where it has the checksum it should have, or none is known."""
    path, expected = folder / file.name, _expected(file, folder)
    if expected is None or path.stat().st_size < (expected.length or 0):
        return ""
    found = _digest(path, expected)
    return "" if found.startswith(expected.start) else f"its {expected.kind} is {found}, expected {expected.start}"


def _digest(path: Path, checksum: Checksum) -> str:
    digest, left = hashlib.new(checksum.kind, usedforsecurity=False), checksum.length
    with path.open("rb") as file:
        while piece := file.read(MIB if left is None else min(MIB, left)):
            digest.update(piece)
            left = None if left is None else left - len(piece)
    return digest.hexdigest()


def _keep(file: Wanted, folder: Path, of: int | None = None) -> None:
    """Keep the checksum of a file whose publisher names none, unless one of as many bytes is kept. of: bytes on its server."""
    length = (folder / file.name).stat().st_size
    expected = _expected(file, folder)
    if file.checksum or (expected and (expected.length or 0) >= length):
        return
    sha256 = _digest(folder / file.name, Checksum("sha256", "", length))
    entry = {"url": file.url, "bytes": length, "sha256": sha256, "of": of}
    write_atomic(folder / CHECKSUMS, json.dumps({**_kept(folder), file.name: entry}, indent=1, sort_keys=True).encode())


def _kept(folder: Path) -> dict[str, Any]:
    try:
        value = parse_json((folder / CHECKSUMS).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
