"""Work in numbered pieces on several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count as counting

from zsbir.base.cores import usable_cores


class Threads:
    """Threads that wait for work. Several callers may use them at once."""

    def __init__(self, count: int | None = None):
        """count: how many, the caller's own included; by default one for each usable core."""
        self.count = count or usable_cores()
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="retrieval")

    def run(self, work: Callable[[int], None], numbers: range, *, alone: bool = False) -> None:
        """Call `work` for each number, in any order, and return when all is done. alone: on the caller's thread, in order.

        numpy gives the interpreter free while it computes, so that threads help. Raises what `work` raises.
        """
        if alone or self.count == 1 or len(numbers) < 2:
            for number in numbers:
                work(number)
            return
        turn = counting()

        def take_turns() -> None:
            while (place := next(turn)) < len(numbers):
                work(numbers[place])

        futures = [self._pool.submit(take_turns) for _ in range(min(self.count, len(numbers)) - 1)]
        take_turns()
        for future in futures:
            future.result()
