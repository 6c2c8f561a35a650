"""One dispatcher at a time: how a process takes the store's lease, keeps it, or waits for it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from services.jobs.queue.dispatching import NOBODY
from services.jobs.queue.records import Lease
from services.jobs.queue.store import Store
from services.jobs.queue.transactions import StaleLease
from zsbir.base import events
from zsbir.base.errors import InputError, RunError

HEARTBEAT_S = 2.0
"""Seconds between two heartbeats of a holder."""


class Leadership:
    """One process's share in the lease.

    patience_s: seconds without a heartbeat of another holder before its lease is taken. clock: a monotonic clock, in seconds.
    """

    def __init__(self, store: Store, patience_s: float, *, clock: Callable[[], float] = time.monotonic):
        self._store, self._patience_s, self._clock = store, patience_s, clock
        self.holder = f"{socket.gethostname()} {os.getpid()}"
        self.lease: Lease | None = None
        self._seen: Lease | None = None
        self._since_s = self._heartbeat_s = float("-inf")
        self._waiting_for = ""

    @property
    def held(self) -> Lease:
        """The lease. Only for callers that hold it."""
        assert self.lease is not None
        return self.lease

    def hold(self) -> Lease | None:
        """Take the lease, or keep it with a heartbeat, and return it; None while another process holds it.

        StaleLease when another process has taken it.
        """
        if self.lease is None and not self._try_to_take():
            return None
        if self._clock() - self._heartbeat_s >= HEARTBEAT_S:
            self._store.heartbeat(self.held)
            self._heartbeat_s = self._clock()
        return self.lease

    def lose(self) -> None:
        """Forget the lease: another process has taken it."""
        self.lease = self._seen = None

    def release(self) -> None:
        """Give the lease up, so that the next process need not wait."""
        if self.lease is not None:
            with suppress(StaleLease, RunError, InputError):
                self._store.release(self.lease)
            self.lease = None

    def _try_to_take(self) -> bool:
        """Take a lease that is free, or whose holder gave it up, is dead or is silent for too long. Return whether it is ours."""
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
    """Return whether the holder was a process of this machine that does not run any more."""
    host, _, pid = holder.rpartition(" ")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    if int(pid) == os.getpid():
        return True  # this process lost it, or an earlier process had the same number
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
