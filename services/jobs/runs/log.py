"""The log of an attempt: everything that its commands print, in pieces of its folder in storage."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress

from services.jobs.runs.attempt_dir import LOG_LIMIT, LOG_PIECE, AttemptDir

LOG_CUT = f"\n[the log is cut here: it has reached {LOG_LIMIT >> 20} MiB]\n".encode()

TAIL = 4000
"""Bytes at the end of all output in which the reason of a failure is looked for."""


class Log:
    """Everything that the commands print: copied to this process's own output, and to storage in pieces."""

    def __init__(self, attempt_dir: AttemptDir):
        self._attempt_dir = attempt_dir
        self._piece, self._text, self._size = 0, bytearray(), 0
        self._end = bytearray()
        self._changed, self._lock = False, threading.Lock()

    def add(self, data: bytes) -> None:
        """Append output. Ray's own copy may fail, on a full disk: the command must not be stopped by that."""
        with self._lock:
            self._end = (self._end + data)[-TAIL:]
            if self._size > LOG_LIMIT:
                return
            with suppress(OSError, ValueError, AttributeError):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            room = LOG_LIMIT - self._size
            self._size += len(data)
            self._text += data if len(data) <= room else data[:room] + LOG_CUT
            self._changed = True

    def add_line(self, line: str) -> None:
        """Append a line of this process's own."""
        self.add(f"{line}\n".encode())

    def tail(self) -> str:
        """Return the last TAIL bytes of what was printed as text, also of what no longer fits into the log."""
        with self._lock:
            return bytes(self._end).decode("utf-8", "replace")

    def write(self) -> None:
        """Write what is new to storage."""
        with self._lock:
            if not self._changed:
                return
            while len(self._text) > LOG_PIECE:
                self._attempt_dir.write_log(self._piece, bytes(self._text[:LOG_PIECE]))
                del self._text[:LOG_PIECE]
                self._piece += 1
            self._attempt_dir.write_log(self._piece, bytes(self._text))
            self._changed = False
