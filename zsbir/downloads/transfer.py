"""One file, or its first bytes, from a server to this disk: resumed after a kill, tried again after a lost connection.

What has arrived lies in `<name>.part`, and `<name>.part.json` says of which file. A later process goes on where that ends, by a
range request that holds only if the file is still the same (RFC 9110, If-Range with a strong ETag). Without an ETag it goes on
where a published checksum will tell whether the pieces fit.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx

from zsbir.base import events
from zsbir.base.errors import DiskFull, InputError, RunError, Unreachable
from zsbir.base.files import is_full, write_atomic
from zsbir.base.strict_json import parse_json
from zsbir.base.urls import redacted
from zsbir.downloads.web import Lost, Web
from zsbir.storage_admin.tables import bytes_text

PROGRESS_BYTES = 2**18
"""Bytes that must arrive between two losses, or the losses count as a series."""

LONGEST_PAUSE_S = 30.0
_RESTARTS = 2
"""How often a file may change on its server during one download."""

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_EMPTY_RANGE = re.compile(r"bytes \*/(\d{1,18})")


@dataclass(frozen=True)
class Patience:
    """How often a lost connection is tried again: `tries` in a row without progress, after pauses that double from `pause_s`."""

    tries: int = 6
    pause_s: float = 1.0

    def wait(self, failures: int, error: Lost, where: str) -> None:
        """Wait before the next try. Raises Unreachable after the last one."""
        if failures >= self.tries:
            raise Unreachable(f"{error}; given up after {failures} tries")
        pause_s = max(error.pause_s, min(LONGEST_PAUSE_S, self.pause_s * 2 ** (failures - 1)))
        events.say(f"{error}, {where}: again in {pause_s:g} s")
        time.sleep(pause_s)


@dataclass(frozen=True)
class Remote:
    """A file on a server. size: its bytes. tag: its strong ETag, "" where it has none."""

    size: int
    tag: str


class _Changed(Exception):  # noqa: N818 - it says what became of the file
    """The server has another file now, or contradicts what it said."""


def look(web: Web, url: str, patience: Patience) -> Remote:
    """Ask how large a file is, by a request for its first byte: some stores answer nothing else. Raises as `Web.get` does."""
    failures = 0
    while True:
        try:
            with web.get(url, {"Range": "bytes=0-0"}) as answer:
                size = _whole_size(answer)
                if size is None:
                    raise RunError(f"{redacted(url)}: the server does not say how large the file is; fetch it by hand")
                return Remote(size, _strong_tag(answer))
        except Lost as error:
            failures += 1
            patience.wait(failures, error, "asked for a size")


class Job(NamedTuple):
    """The first `amount` bytes of a file, to be brought to `file`. remote: the file as it was a moment ago (`look`).

    checked: whether a published checksum will be compared, so that pieces without an ETag may be joined.
    """

    url: str
    file: Path
    remote: Remote
    amount: int
    checked: bool


def transfer(web: Web, job: Job, patience: Patience, advance: Callable[[int], None]) -> None:
    """Bring a file, or its first bytes, to this disk, and report each piece to `advance`: negative where pieces are dropped.

    Raises Unreachable after the last try, RunError where the server contradicts itself, DiskFull.
    """
    try:
        for left in reversed(range(_RESTARTS)):
            part = _Part(job, advance)
            try:
                _fill(web, part, patience)
            except _Changed as change:
                part.drop()
                if not left:
                    raise RunError(f"{redacted(job.url)}: {change}; try again later, or fetch it by hand") from None
                events.say(f"{job.file.name}: {change}; started again")
                job = job._replace(remote=_as_large(look(web, job.url, patience), job))
            else:
                part.finish()
                return
    except OSError as error:
        kind = DiskFull if is_full(error) else RunError
        raise kind(f"cannot write {job.file.parent}: {error.strerror}; the same command goes on where this one stopped") from error


def _as_large(remote: Remote, job: Job) -> Remote:
    """Return what the server has now. Raises RunError where that has fewer bytes than are wanted."""
    if remote.size < job.amount:
        raise RunError(f"{redacted(job.url)}: the file has {remote.size:,} bytes now, {job.amount:,} were expected")
    return remote


class _Part:
    """The bytes of one download that have arrived."""

    def __init__(self, job: Job, advance: Callable[[int], None]):
        self.url, self.remote, self.amount = job.url, job.remote, job.amount
        self._file, self._advance = job.file, advance
        self._path, self._note = part_of(job.file), job.file.with_name(f"{job.file.name}.part.json")
        self.have = self._size()
        note = {"url": job.url, "size": job.remote.size, "tag": job.remote.tag}
        if not (job.remote.tag or job.checked) or _noted(self._note) != note:
            self.drop()
            write_atomic(self._note, json.dumps(note).encode())

    def _size(self) -> int:
        return min(self.amount, self._path.stat().st_size) if self._path.is_file() else 0

    def write(self, answer: httpx.Response, start: int) -> None:
        """Append what an answer holds from byte `start` of the file on. Raises _Changed where that is more than it should be."""
        with self._path.open("r+b" if self._path.exists() else "w+b") as out:
            out.truncate(start)
            out.seek(start)
            self._count(start)
            for piece in answer.iter_raw():  # as it comes: what is gathered to larger pieces is lost with the connection
                if answer.status_code == httpx.codes.PARTIAL_CONTENT and len(piece) > self.amount - self.have:
                    raise _Changed("the server sends more bytes than it said")
                out.write(piece[: self.amount - self.have])
                out.flush()
                self._count(min(self.amount, self.have + len(piece)))
                if self.have == self.amount:
                    return

    def _count(self, have: int) -> None:
        self._advance(have - self.have)
        self.have = have

    def finish(self) -> None:
        """Give the whole file its name."""
        with self._path.open("r+b") as out:
            out.truncate(self.amount)
        self._path.replace(self._file)
        self._note.unlink(missing_ok=True)

    def drop(self) -> None:
        """Remove what has arrived."""
        self._count(0)
        self._path.unlink(missing_ok=True)


def part_of(file: Path) -> Path:
    """Return where the bytes of an unfinished download lie."""
    return file.with_name(f"{file.name}.part")


def _noted(note: Path) -> object:
    try:
        return parse_json(note.read_bytes())
    except (OSError, ValueError):
        return None


def _fill(web: Web, part: _Part, patience: Patience) -> None:
    """Ask for what is missing until nothing is."""
    failures, had = 0, part.have
    while part.have < part.amount:
        try:
            _ask(web, part)
        except Lost as error:
            if part.have - had >= PROGRESS_BYTES:
                failures, had = 0, part.have
            failures += 1
            patience.wait(failures, error, f"at {bytes_text(part.have)} of {bytes_text(part.amount)}")


def _ask(web: Web, part: _Part) -> None:
    """Send one request for the missing bytes, and write what comes. Raises Lost where the answer ends too early."""
    headers = {"Range": f"bytes={part.have}-{part.amount - 1}"}
    if part.have and part.remote.tag:
        headers["If-Range"] = part.remote.tag
    with web.get(part.url, headers) as answer:
        size = _whole_size(answer)
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE or size not in (None, part.remote.size):
            raise _Changed(f"the file on the server has {'other' if size is None else f'{size:,}'} bytes, not {part.remote.size:,}")
        if part.remote.tag and _strong_tag(answer) not in ("", part.remote.tag):
            raise _Changed("the file on the server has changed")
        part.write(answer, _start(answer, part))
    if part.have < part.amount:
        raise Lost("the answer ended too early")


def _start(answer: httpx.Response, part: _Part) -> int:
    """Return the byte of the file at which an answer begins. Raises _Changed for a range that was not asked for."""
    if answer.status_code == httpx.codes.OK:
        return 0
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != part.have:
        raise _Changed("the server sends another range than the one it was asked for")
    return part.have


def _whole_size(answer: httpx.Response) -> int | None:
    """Return how many bytes the whole file has, by an answer to a request for a part; None where it does not say."""
    content_range = answer.headers.get("Content-Range", "")
    if answer.status_code == httpx.codes.OK:
        length = answer.headers.get("Content-Length", "")
        return int(length) if re.fullmatch(r"\d{1,18}", length) else None
    found = _RANGE.fullmatch(content_range) or _EMPTY_RANGE.fullmatch(content_range)
    return int(found[found.re.groups]) if found else None


def _strong_tag(answer: httpx.Response) -> str:
    """Return the ETag by which two pieces are known to be of one file; a weak one (`W/`) promises less."""
    tag = answer.headers.get("ETag", "")
    return tag if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', tag) else ""


def check_size(url: str, remote: Remote, most_bytes: int) -> None:
    """Raise InputError for a file that is empty, or larger than it may be."""
    if not 0 < remote.size <= most_bytes:
        raise InputError(
            f"{redacted(url)} has {bytes_text(remote.size)}, at most {bytes_text(most_bytes)} were expected: is it the right file?"
        )
