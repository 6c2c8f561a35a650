"""Signals of the operating system, answered without the risk of a deadlock."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a program to end. SIGHUP comes when its terminal is closed or its connection is lost."""


def on_signals(react: Callable[[int], None], numbers: Iterable[signal.Signals] = STOP_SIGNALS) -> None:
    """Call `react` with the signal's number, in a thread of its own, for each of these signals. To be called in the main thread.

    A SIGHUP that is ignored, as under nohup, stays ignored.

    Python runs a handler in the middle of whatever the main thread does. A handler that takes a lock which that thread holds
    at the moment, as `threading.Event.set` does, would wait for ever. `threading.Thread.start` takes locks; `_thread` does not.
    """
    for number in heeded(numbers):
        signal.signal(number, lambda received, _frame: _thread.start_new_thread(react, (received,)))


def heeded(numbers: Iterable[signal.Signals] = STOP_SIGNALS) -> list[signal.Signals]:
    """Return the signals without a SIGHUP that is ignored, as under nohup."""
    return [number for number in numbers if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


def interrupt_on_signals() -> None:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does, where nothing else answers them.

    So `finally` blocks run: a lease is given back, a Ray that was started is ended. Only the main thread can do this; in others
    nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def handlers_kept(*numbers: signal.Signals) -> Iterator[None]:
    """Put back this process's handlers of the signals afterwards, whatever a library has installed inside."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
