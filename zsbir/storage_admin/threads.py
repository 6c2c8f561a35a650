"""Many waits at once: what asks a store for one thing after the other, in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from zsbir.base.events import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 16
"""Requests at a time: most of each is waiting."""


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS) -> Iterator[Result]:
    """`function` of every item, in order. What has not begun when one fails, or nobody asks for more, is not done."""
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
    """Progress in MB that several threads advance by bytes. Little work is quiet."""

    def __init__(self, label: str, total_bytes: int, *, told_from_mb: int = 50):
        total = total_bytes // 10**6
        self._progress = Progress(label, total=total, unit="MB", quiet=total < told_from_mb)
        self._lock = threading.Lock()
        self._bytes = self._shown_mb = 0

    def advance(self, count: int) -> None:
        """`count` more bytes are done."""
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
