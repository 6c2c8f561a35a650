"""A signal is answered whatever the main thread is doing."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from zsbir.base.signals import on_signals


@pytest.fixture(autouse=True)
def handler():
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_reaction_may_take_a_lock_that_the_main_thread_holds():
    lock, done = threading.Lock(), threading.Event()

    def react(number: int) -> None:
        with lock:
            assert number == signal.SIGUSR1
            done.set()

    on_signals(react, [signal.SIGUSR1])
    with lock:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not done.is_set()
    assert done.wait(10)


def test_signals_in_quick_succession_are_all_answered():
    answered = threading.Semaphore(0)
    on_signals(lambda _: answered.release(), [signal.SIGUSR1])
    for _ in range(20):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert answered.acquire(timeout=10)
