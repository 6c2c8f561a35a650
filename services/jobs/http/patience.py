"""Waiting for storage no longer than a client would: a disk that hangs must not take the API's threads one after the other.

A read of a file on a network disk that is away can last for ever, and nothing ends it. So it is done in a thread that may be left
behind, of which there are not more than `MAX_READS`; whoever waits for it is told after `READ_S` seconds.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from zsbir.base.errors import RunError

Answer = TypeVar("Answer")

READ_S = 20.0
"""Seconds that a request waits for storage."""

MAX_READS = 24
"""Requests that may wait for storage at a time: fewer than the API has threads, so that some are left for what needs none."""

TURN_S = 2.0
"""Seconds that a request waits for its turn, where as many as may are at it: enough for a burst on storage that works."""

HEALTH_S = 5.0
"""Seconds that the health check waits for the store."""


class _Call(threading.Thread):
    """A call in a thread of its own, which does not keep the process from ending. done: called at its end, however late."""

    def __init__(self, action: Callable[[], Any], done: Callable[[], None]):
        super().__init__(daemon=True, name="storage")
        self._action, self._done = action, done
        self.result: Any = None
        self.error: BaseException | None = None
        self.over = threading.Event()

    def run(self) -> None:
        try:
            self.result = self._action()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            self.error = error
        self.over.set()
        self._done()


class Patience:
    """Bounds on the calls of one kind: how long each is waited for, and how many there may be. what: who is waited for."""

    def __init__(self, wait_s: float = READ_S, most: int = MAX_READS, *, what: str = "the storage"):
        self._wait_s, self._what, self._free = wait_s, what, threading.BoundedSemaphore(most)

    def call(self, action: Callable[[], Answer]) -> Answer:
        """Return what the action returns, or raise what it raises. RunError if that takes too long, or too many wait already."""
        if not self._free.acquire(timeout=min(TURN_S, self._wait_s)):
            raise RunError(f"{self._what} does not answer: too many requests wait for it already")
        call = _Call(action, self._free.release)
        call.start()
        if not call.over.wait(self._wait_s):
            raise RunError(f"{self._what} does not answer within {self._wait_s:g} s")
        if call.error is not None:
            raise call.error
        result: Answer = call.result
        return result


class HealthProbe:
    """The health check: one at a time, in a thread of its own, asked by any number of clients."""

    def __init__(self, check: Callable[[], None], wait_s: float = HEALTH_S):
        self._check, self._wait_s = check, wait_s
        self._running: _Call | None = None

    async def check(self) -> None:
        """Return if the check succeeds. RunError where it fails, or is not done in time."""
        if self._running is None or self._running.over.is_set():
            self._running = _Call(self._check, lambda: None)
            self._running.start()
        call, loop = self._running, asyncio.get_running_loop()
        until = loop.time() + self._wait_s
        while not call.over.is_set():
            if loop.time() > until:
                raise RunError(f"the job store does not answer within {self._wait_s:g} s")
            await asyncio.sleep(0.01)
        if call.error is not None:
            raise call.error
