"""Signals of the operating system, answered without the risk of a deadlock."""

from __future__ import annotations

import _thread
import signal
from collections.abc import Callable, Iterable

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def on_signals(react: Callable[[int], None], numbers: Iterable[signal.Signals] = STOP_SIGNALS) -> None:
    """Call `react` with the signal's number, in a thread of its own, for each of these signals. To be called in the main thread.

    Python runs a handler in the middle of whatever the main thread does. A handler that takes a lock which that thread holds
    at the moment, as `threading.Event.set` does, would wait for ever. `threading.Thread.start` takes locks; `_thread` does not.
    """
    for number in numbers:
        signal.signal(number, lambda received, _frame: _thread.start_new_thread(react, (received,)))
