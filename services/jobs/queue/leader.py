"""One dispatcher at a time: the store's lease, as one process holds it or waits for it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from services.jobs.queue.records import Lease
from services.jobs.queue.store import NOBODY, StaleLease, Store
from zsbir.base import events
from zsbir.base.errors import InputError, RunError

HEARTBEAT_S = 2.0


class Leadership:
    """patience_s: seconds of another one's silence before its lease is taken. clock: seconds that only go forward."""

    def __init__(self, store: Store, patience_s: float, *, clock: Callable[[], float] = time.monotonic):
        self._store, self._patience_s, self._clock = store, patience_s, clock
        self.holder = f"{socket.gethostname()} {os.getpid()}"
        self.lease: Lease | None = None
        self._seen: Lease | None = None
        self._since_s = self._beaten_s = float("-inf")
        self._waiting_for = ""

    @property
    def held(self) -> Lease:
        """The lease, for who knows that it is held."""
        assert self.lease is not None
        return self.lease

    def hold(self) -> Lease | None:
        """The lease, taken or shown to be alive; None while another one lives. StaleLease when it was taken away."""
        if self.lease is None and not self._take():
            return None
        if self._clock() - self._beaten_s >= HEARTBEAT_S:
            self._store.heartbeat(self.held)
            self._beaten_s = self._clock()
        return self.lease

    def lose(self) -> None:
        """Another one has it."""
        self.lease = self._seen = None

    def leave(self) -> None:
        """Give it up, so that the next one need not wait."""
        if self.lease is not None:
            with suppress(StaleLease, RunError, InputError):
                self._store.release(self.lease)
            self.lease = None

    def _take(self) -> bool:
        """Nobody's, given up, of a dead process of this machine, or of one that is silent for too long: then it is ours."""
        seen = self._store.seen_lease()
        if seen != self._seen:
            self._seen, self._since_s = seen, self._clock()
        silent = self._clock() - self._since_s >= self._patience_s
        if seen is None or seen.holder == NOBODY or silent or _is_dead(seen.holder):
            self.lease = self._store.take_lease(self.holder, seen)
            if self.lease:
                events.say(f"dispatching as {self.holder}, epoch {self.lease.epoch}")
        elif self._waiting_for != seen.holder:
            self._waiting_for = seen.holder
            events.say(f"{seen.holder} dispatches; waiting until it is silent for {self._patience_s:g} s")
        return self.lease is not None


def _is_dead(holder: str) -> bool:
    """Whether it was a process of this machine, that is no more."""
    host, _, pid = holder.rpartition(" ")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    if int(pid) == os.getpid():
        return True  # this very process lost it, or one before had its number
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
