"""The standard streams of a process, which may be full, closed, or without a reader, and may not know every character."""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

AS_BYTES = "zsbir-as-bytes"
"""An `errors` of a text stream: what its encoding lacks is written as the bytes of the file name it came from, or as UTF-8."""


class BestEffort:
    """A text stream whose `write` and `flush` never raise: what cannot be written is lost, and the work goes on.

    stream: None where there is none, as `sys.stderr` is in a process that was started without one. Everything else is the stream's.
    """

    def __init__(self, stream: TextIO | None):
        self._wrapped: Any = stream._wrapped if isinstance(stream, BestEffort) else stream

    def write(self, text: str) -> int:
        """Write what can be written, and return the length of the text."""
        with suppress(OSError, ValueError, AttributeError):  # no room or no reader; a stream that was closed; no stream
            self._wrapped.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush where that is possible."""
        with suppress(OSError, ValueError, AttributeError):
            self._wrapped.flush()

    def isatty(self) -> bool:
        """Return whether a terminal is behind the stream."""
        with suppress(OSError, ValueError, AttributeError):
            return bool(self._wrapped.isatty())
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_wrapped"], name)

    def __eq__(self, other: object) -> bool:
        """Compare the streams behind: tqdm looks for the bars that share a stream with a message."""
        return bool(self._wrapped == getattr(other, "_wrapped", other))

    def __hash__(self) -> int:
        return hash(self._wrapped)


def open_missing() -> None:
    """Open the null device as standard input, output or error where the process was started without one of them.

    Otherwise the next file that any library opens would get its number, and be written to by whatever prints.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeDecodeError):  # the same stream may be read again, as a test runner does
        return codecs.lookup_error("surrogateescape")(error)
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    # A surrogate from U+DC80 on is a byte of a file name that is not UTF-8. Others, which are no characters, become "?".
    written = b"".join(_bytes_of(letter) for letter in text)
    return written, error.end


def _bytes_of(letter: str) -> bytes:
    with suppress(UnicodeEncodeError):
        return letter.encode("utf-8", "surrogateescape")
    return b"?"


codecs.register_error(AS_BYTES, _as_bytes)
