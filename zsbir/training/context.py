"""The surroundings of a training as the loop sees them: rank, device, reports to the outside, requests to stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar, Protocol

import torch
import torch.distributed as dist
from torch import nn

from zsbir.base.signals import STOP_SIGNALS, heeded
from zsbir.training.gather import world_size

SAME_REQUEST_S = 2.0
"""Seconds in which further signals count as the first one: a stopped job may signal a command and its wrapper, which passes it
on."""


class Context(Protocol):
    """What the loop is given. Implementations: LocalContext, and RayContext in `zsbir.edge.ray_train`."""

    rank: int
    world_size: int
    device: torch.device

    def wrap(self, module: nn.Module, *, unused: bool = False) -> nn.Module:
        """Return the module, its gradients averaged over workers where there are several.

        unused: a step may leave some of its parameters unused.
        """

    def report(self, metrics: dict[str, float]) -> None:
        """Report metrics to the outside; called by every worker equally often."""

    def stop_requested(self) -> bool:
        """Return whether to save a checkpoint and leave."""


def default_device() -> torch.device:
    """Return the first GPU, else the CPU; in a process group, the GPU with this process's number on its machine."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else 0)


def data_parallel(module: nn.Module, device: torch.device, *, unused: bool = False) -> nn.Module:
    """Wrap in DistributedDataParallel where there are several workers. Buffers are equal on all of them already.

    A module in which nothing is trained is returned as it is: there is nothing to average, and torch refuses it. unused: look at
    every step for parameters that it does not use, and leave them without a gradient, as one worker would.
    """
    if world_size() == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    ids = [device.index or 0] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(module, device_ids=ids, forward_sync_buffers=False, find_unused_parameters=unused)


class StopSignals:
    """Requests to stop by SIGINT, by SIGTERM, or by SIGHUP, which comes when the terminal is lost."""

    _last_s: ClassVar[float | None] = None
    """When this process was last asked to stop, whoever heard it."""

    @classmethod
    def asked_since(cls, then_s: float) -> bool:
        """Return whether a request was heard since `then_s` (`time.monotonic`), also one that came too late to stop anything."""
        return cls._last_s is not None and cls._last_s >= then_s

    def __init__(self) -> None:
        # Not a threading.Event: a handler that interrupts another one setting it would wait for its lock for ever.
        self._asked_s: float | None = None

    def asked(self) -> bool:
        """Return whether a signal came inside `heard`."""
        return self._asked_s is not None

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Take the first signal inside as a request to stop; one SAME_REQUEST_S later or more raises KeyboardInterrupt.

        A SIGHUP never counts as the later one: a shell and the kernel each send one, and nobody at a terminal is in a hurry. Where
        it is ignored, as under nohup, it is no request.

        Only the main thread receives signals: in another one nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in heeded(STOP_SIGNALS)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, _frame: object) -> None:
        StopSignals._last_s = time.monotonic()
        if self._asked_s is None:
            self._asked_s = time.monotonic()
        elif number != signal.SIGHUP and time.monotonic() - self._asked_s >= SAME_REQUEST_S:
            raise KeyboardInterrupt


class LocalContext:
    """A single process, or one of a torch.distributed group that was set up before, as by a script under torchrun."""

    def __init__(self, device: torch.device | None = None):
        self.rank = dist.get_rank() if world_size() > 1 else 0
        self.world_size = world_size()
        self.device = device or default_device()
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # collectives of Python objects use the current device
        self._stop = StopSignals()

    def wrap(self, module: nn.Module, *, unused: bool = False) -> nn.Module:
        """Wrap a module as Context says."""
        return data_parallel(module, self.device, unused=unused)

    def report(self, metrics: dict[str, float]) -> None:
        """Do nothing: nothing outside listens."""

    def stop_requested(self) -> bool:
        """Return whether a signal to stop came inside `signals`."""
        return self._stop.asked()

    def signals(self) -> AbstractContextManager[None]:
        """Take the first SIGINT, SIGTERM or SIGHUP inside as a request for a final checkpoint; a later one ends at once."""
        return self._stop.heard()
