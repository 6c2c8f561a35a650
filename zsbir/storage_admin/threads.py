"""Threads for work that mostly waits for a store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from zsbir.base.events import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 16
"""Requests at the same time: most of each is waiting."""


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS) -> Iterator[Result]:
    """Yield `function` of every item, in order. Items are given up when one fails, or the caller stops asking."""
    items = list(items)
    if len(items) < 2:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(min(threads, len(items)))
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)


class ByteProgress:
    """Progress in MB that several threads advance by bytes. Less than `shown_from_mb` is not shown."""

    def __init__(self, label: str, total_bytes: int, *, shown_from_mb: int = 50):
        total = total_bytes // 10**6
        self._progress = Progress(label, total=total, unit="MB", quiet=total < shown_from_mb)
        self._lock = threading.Lock()
        self._bytes = self._shown_mb = 0

    def advance(self, count: int) -> None:
        """Count `count` more bytes as done."""
        with self._lock:
            self._bytes += count
            more_mb = self._bytes // 10**6 - self._shown_mb
            if more_mb:
                self._shown_mb += more_mb
                self._progress.advance(more_mb)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()
