"""What a stage tells the person who started it, on standard error: standard output belongs to the URI it makes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Self, TextIO, TypeVar

from tqdm import tqdm

from zsbir.base import watch

Item = TypeVar("Item")

LOG_INTERVAL_S = 5.0
"""Seconds between two progress lines where standard error is no terminal."""


def say(message: str) -> None:
    """One line of the story; with its time in the log of a service (`ZSBIR_LOG_TIMES`)."""
    if os.environ.get("ZSBIR_LOG_TIMES"):
        message = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}"
    with suppress(OSError), tqdm.external_write_mode(file=sys.stderr):  # a full disk, or nobody who reads: no reason to stop work
        print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """One line about something that is not as it should be, but does not stop the work."""
    say(f"warning: {message}")


class Progress:
    """Progress with rate and time left: a bar on a terminal, a line every few seconds in a log.

    >>> with Progress("embed", total=10, unit="image") as progress:
    ...     progress.advance(10)
    """

    def __init__(
        self,
        label: str,
        *,
        total: int | None,
        unit: str = "it",
        start: int = 0,
        stream: TextIO | None = None,
        quiet: bool = False,
    ):
        self._quiet = quiet
        self._stream = stream or sys.stderr
        self._label, self._unit, self._total = label, unit, total
        self._units = unit if unit.isupper() else f"{unit}s"  # 3 images, 3 MB
        self._done = self._start = start
        self._began = self._last_line = time.monotonic()
        self._suffix = ""
        self._bar: tqdm | None = None  # type: ignore[type-arg]  # tqdm is generic in its stubs alone
        if not quiet and self._stream.isatty() and not os.environ.get("ZSBIR_PLAIN_LOG"):
            self._bar = tqdm(total=total, desc=label, unit=unit, initial=start, file=self._stream, leave=False, dynamic_ncols=True)

    def advance(self, count: int = 1, suffix: str = "") -> None:
        """Count `count` more as done; `suffix` (a loss, say) stands behind the rate."""
        self._done += count
        self._suffix = suffix or self._suffix
        if not self._quiet:
            self._tell()
        if self._bar is not None:
            self._bar.set_postfix_str(self._suffix, refresh=False)
            self._bar.update(count)
        elif not self._quiet and time.monotonic() - self._last_line >= LOG_INTERVAL_S:
            self._last_line = time.monotonic()
            self._print_line()

    @property
    def _per_s(self) -> float:
        elapsed_s = time.monotonic() - self._began
        return (self._done - self._start) / elapsed_s if elapsed_s > 0 else 0.0

    def _tell(self) -> None:
        watch.progress(self._label, done=self._done, total=self._total, unit=self._unit, per_s=self._per_s)

    def _print_line(self) -> None:
        rate = self._per_s
        share = f"{self._done}/{self._total}" if self._total else f"{self._done}"
        left = f", {tqdm.format_interval((self._total - self._done) / rate)} left" if self._total and rate else ""
        tail = f", {self._suffix}" if self._suffix else ""
        print(f"{self._label} {share} {self._units}, {rate:.1f}/s{left}{tail}", file=self._stream, flush=True)

    def close(self) -> None:
        """Take the bar away, leaving one line that says how much was done and how fast."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._done > self._start and not self._quiet:
            elapsed_s = time.monotonic() - self._began
            done = self._done - self._start
            line = f"{self._label}: {done} {self._units} in {elapsed_s:.1f} s ({done / max(elapsed_s, 1e-9):.1f}/s)"
            print(line, file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def track(items: Iterable[Item], label: str, *, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """`items`, one after the other, with progress."""
    with Progress(label, total=total, unit=unit) as progress:
        for item in items:
            yield item
            progress.advance()
