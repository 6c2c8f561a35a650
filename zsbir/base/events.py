"""Messages and progress for the person who started a command, on standard error: standard output belongs to the URI it makes.

Programs that want the same as data subscribe to progress: `subscribe(listener)`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Self, TextIO, TypeVar

from tqdm import tqdm

from zsbir.base.streams import BestEffort
from zsbir.base.text import clean

Item = TypeVar("Item")

LOG_INTERVAL_S = 5.0
"""Seconds between two progress lines where standard error is not a terminal."""


class ProgressEvent(NamedTuple):
    """How far a piece of work is. total: None where it is not known; per_s: units a second since it began."""

    label: str
    done: int
    total: int | None
    unit: str
    per_s: float


Listener = Callable[[ProgressEvent], None]
_listeners: list[Listener] = []


PART = "ZSBIR_PART_OF"
"""Environment variable with the name of the part that a process does of what another one reports: `trial 3` of a sweep."""


def part() -> str:
    """Return the name of the part of another process's work that this one does; it prints its warnings alone, with that name."""
    return os.environ.get(PART, "")


def subscribe(listener: Listener) -> None:
    """Call `listener` at each advance of any progress in this process that is not quiet. Subscribing twice changes nothing."""
    if listener not in _listeners:
        _listeners.append(listener)


def publish(event: ProgressEvent) -> None:
    """Hand an event to every listener."""
    for listener in _listeners:
        listener(event)


def say(message: str, *, timed: bool = True) -> None:
    """Print one line on standard error; with the time before it where `ZSBIR_LOG_TIMES` is set, as in a service's log.

    Names and texts from elsewhere may stand in it: control characters are shown as escapes. timed=False: never with the time, as an
    error that others read by its first word.
    """
    if part() and not message.startswith("warning: "):
        return
    message = clean(message)
    if timed and os.environ.get("ZSBIR_LOG_TIMES"):
        message = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}"
    _print_line(message, BestEffort(sys.stderr))


def say_as_part(message: str) -> None:
    """Print one line with the name of the part before it: of the little that a part says itself, since nobody else can."""
    _print_line(clean(f"{part()}: {message}"), BestEffort(sys.stderr))


def _print_line(line: str, stream: BestEffort) -> None:
    """Print one line beside the bars of a terminal. No failure of the stream is raised: a lost line must not stop the work."""
    with tqdm.external_write_mode(file=stream):
        stream.write(f"{line}\n")
        stream.flush()


def say_lines(text: str) -> None:
    """Print a text of several lines, such as a table, as `say` prints one."""
    for line in text.split("\n"):
        say(line)


def warn(message: str) -> None:
    """Print one line about something that is wrong but does not stop the work."""
    say(f"warning: {part()}: {message}" if part() else f"warning: {message}")


class Progress:
    """Progress with rate and time left: a bar on a terminal, a line every few seconds in a log.

    >>> with Progress("embed", total=10, unit="image") as progress:
    ...     progress.advance(10)

    aside: shown here, but not handed to listeners: work that ends another one, whose progress they keep.
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
        aside: bool = False,
    ):
        self._quiet = quiet or bool(part())
        self._aside = aside
        self._stream = BestEffort(stream or sys.stderr)
        self._label, self._unit, self._total = label, unit, total
        self._units = unit if unit.isupper() else f"{unit}s"  # 3 images, 3 MB
        self._done = self._start = start
        self._began = self._last_line = time.monotonic()
        self._suffix = ""
        self._bar: tqdm | None = None  # type: ignore[type-arg]  # tqdm is generic in its stubs alone
        if not quiet and self._stream.isatty() and not os.environ.get("ZSBIR_PLAIN_LOG"):
            self._bar = tqdm(total=total, desc=label, unit=unit, initial=start, file=self._stream, leave=False, dynamic_ncols=True)

    def advance(self, count: int = 1, suffix: str = "") -> None:
        """Count `count` more units as done; `suffix` (a loss, say) is shown behind the rate."""
        self._done += count
        self._suffix = suffix or self._suffix
        if not self._quiet and not self._aside:
            publish(ProgressEvent(self._label, self._done, self._total, self._unit, self._per_s))
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

    def _print_line(self) -> None:
        rate = self._per_s
        share = f"{self._done}/{self._total}" if self._total else f"{self._done}"
        left = f", {tqdm.format_interval((self._total - self._done) / rate)} left" if self._total and rate else ""
        tail = f", {self._suffix}" if self._suffix else ""
        _print_line(f"{self._label} {share} {self._units}, {rate:.1f} {self._units}/s{left}{tail}", self._stream)

    def close(self) -> None:
        """Remove the bar, and print one line that says how much was done and how fast."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._done > self._start and not self._quiet:
            elapsed_s = time.monotonic() - self._began
            done = self._done - self._start
            line = f"{self._label}: {done} {self._units} in {elapsed_s:.1f} s ({done / max(elapsed_s, 1e-9):.1f} {self._units}/s)"
            _print_line(line, self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def track(items: Iterable[Item], label: str, *, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Yield `items` one after the other, and show progress."""
    with Progress(label, total=total, unit=unit) as progress:
        for item in items:
            yield item
            progress.advance()
