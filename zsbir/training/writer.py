"""A thread that writes checkpoints while training goes on: one at a time, tried again while a store is unavailable."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat

from zsbir.base import events
from zsbir.base.errors import InputError, RunError

RETRY_S = (5.0, 15.0, 60.0)
"""Seconds between attempts to save while a store is unavailable; the last one repeats."""

GIVE_UP_S = 900.0
"""Seconds that a due checkpoint may stay unsaved before training ends."""

CLOSING_S = 120.0
"""The same once training has ended and only the last checkpoint is waited for."""


@dataclass(frozen=True)
class Snapshot:
    """The state after a step, complete in itself, and the function that writes it."""

    step: int
    write: Callable[[], None]


class SnapshotWriter:
    """Writes snapshots in a thread. One that still waits when the next comes is dropped, which loses nothing: the next has it all.

    patient: errors of the store may pass, so writing is tried again; those of a disk are final.
    """

    def __init__(self, *, patient: bool):
        self._patient = patient
        self._next: Snapshot | None = None
        self._working, self._closing = False, False
        self._failed_since_s: float | None = None
        self._error: Exception | None = None
        self._changed = threading.Condition()

    def put(self, snapshot: Snapshot) -> None:
        """Write a snapshot soon. Raises the error that kept an earlier one from being written for too long."""
        self._raise()
        with self._changed:
            self._next = snapshot
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, daemon=True, name="checkpoints").start()
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until everything is written. Raises the error for which that was given up."""
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: not self._working)
            self._closing = False
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while snapshot := self._take():
            self._write(snapshot)

    def _take(self) -> Snapshot | None:
        """Take the next snapshot; None where there is none, or after an error, and then the thread ends."""
        with self._changed:
            snapshot, self._next = (None, None) if self._error else (self._next, None)
            self._working = snapshot is not None
            self._changed.notify_all()
            return snapshot

    def _write(self, snapshot: Snapshot) -> None:
        """Write a snapshot, again and again if need be, until it is written, given up, or a newer one waits."""
        for pause_s in chain(RETRY_S, repeat(RETRY_S[-1])):
            try:
                snapshot.write()
            except Exception as error:  # noqa: BLE001 - every error must reach the trainer; the thread would lose it
                if self._gives_up(error):
                    self._error = error
                    return
                events.warn(f"checkpoint of step {snapshot.step} is not saved yet, training goes on: {error}")
                with self._changed:
                    if self._changed.wait_for(lambda: self._next is not None, timeout=pause_s):
                        return
            else:
                self._failed_since_s = None
                return

    def _gives_up(self, error: Exception) -> bool:
        if self._failed_since_s is None:
            self._failed_since_s = time.monotonic()
        patience_s = CLOSING_S if self._closing else GIVE_UP_S
        passes = self._patient and isinstance(error, RunError | InputError)
        return not passes or time.monotonic() - self._failed_since_s >= patience_s
