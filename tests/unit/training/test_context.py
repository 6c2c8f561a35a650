"""Real signals to this process."""

from __future__ import annotations

import signal
import threading
from types import SimpleNamespace

import pytest

from zsbir.training import context
from zsbir.training.context import LocalContext


@pytest.fixture
def clock(monkeypatch):
    """The time that signals are told apart by, in seconds; to be set."""
    now = [100.0]
    monkeypatch.setattr(context, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_and_afterwards_signals_mean_what_they_did(number):
    before = signal.getsignal(number)
    local = LocalContext()
    with local.signals():
        assert not local.stop_requested()
        signal.raise_signal(number)
        assert local.stop_requested()
    assert signal.getsignal(number) is before


def test_signals_within_two_seconds_are_one_request_and_a_later_one_ends_at_once(clock):
    local = LocalContext()
    with local.signals():
        signal.raise_signal(signal.SIGINT)
        clock[0] += 0.2
        signal.raise_signal(signal.SIGINT)  # a wrapper passed it on
        clock[0] += 1.7
        signal.raise_signal(signal.SIGTERM)
        assert local.stop_requested()
        clock[0] += 0.1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_another_thread_than_the_main_one_changes_nothing():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with LocalContext().signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
