"""Right and wrong clicks, kept as evaluation data of one's own: only after consent, within bounds, and deleted on demand.

One file of JSON lines for each user, which only the service's owner can read. A line holds the drawing, the photo, the verdict, and
the model and index that found it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from services.common.errors import TooMany
from services.common.private import FILE_MODE, private_folder
from zsbir.base.errors import RunError

USER_BYTES = 32 << 20
"""Bytes that are kept of one user's clicks: tens of thousands."""

ALL_BYTES = 1 << 30
"""Bytes that are kept of all users' clicks."""

FULL_RETRY_S = 86_400


class Feedback:
    """The clicks of all users, in a folder of the service. Thread-safe within one process; lines of several never mix."""

    def __init__(self, folder: Path, *, user_bytes: int = USER_BYTES, all_bytes: int = ALL_BYTES):
        self._folder, self._user_bytes, self._all_bytes = folder, user_bytes, all_bytes
        self._lock = threading.Lock()

    def add(self, user: str, click: Mapping[str, Any]) -> None:
        """Keep a click. TooMany where this user, or all together, have as much as is kept; RunError where the disk fails."""
        line = json.dumps({"user": user, **click}, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            file = self._file(user)
            if self._size(file) + len(line) > self._user_bytes:
                raise TooMany(f"{self._user_bytes} bytes of your clicks are kept already: delete them to go on", FULL_RETRY_S)
            if sum(map(self._size, self._files())) + len(line) > self._all_bytes:
                raise TooMany("no more clicks are kept: the operator has to make room", FULL_RETRY_S)
            try:
                private_folder(self._folder)
                opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
                try:
                    os.write(opened, line)  # at once, so that lines of several processes do not mix
                finally:
                    os.close(opened)
            except OSError as error:
                raise RunError(f"the click cannot be kept: {error.strerror}") from None

    def lines(self, user: str | None) -> Iterator[bytes]:
        """Yield the clicks of one user, of all users for None, as JSON lines."""
        for file in self._files() if user is None else [self._file(user)]:
            try:
                with file.open("rb") as opened:
                    yield from opened
            except FileNotFoundError:
                continue

    def delete(self, user: str | None) -> int:
        """Delete the clicks of one user, of all users for None; return how many there were."""
        with self._lock:
            count = sum(1 for _ in self.lines(user))
            for file in self._files() if user is None else [self._file(user)]:
                file.unlink(missing_ok=True)
            return count

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl"))

    def _file(self, user: str) -> Path:
        return self._folder / f"{hashlib.sha256(user.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.jsonl"

    @staticmethod
    def _size(file: Path) -> int:
        return file.stat().st_size if file.exists() else 0
