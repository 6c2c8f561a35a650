"""What the loop measures of itself: images a second, the share of the time spent waiting for data, a loss to show."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from zsbir.data.loader import Batch

LOSS_EVERY_S = 1.0
"""Seconds between two losses that are shown."""


class Clock:
    """Measures images a second, and the share of the time in which steps waited for data, since it was last read."""

    def __init__(self, batch_images: int):
        self._batch_images = batch_images
        self.forget()

    def forget(self) -> None:
        """Start measuring anew, without the time since the last step."""
        self._began, self._waited_s, self._steps = time.monotonic(), 0.0, 0

    def wait_for(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield `batches`, counting the time until each comes as waiting."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            self._waited_s += time.monotonic() - asked
            self._steps += 1
            yield batch

    def read(self) -> dict[str, float]:
        """Return the figures and start measuring anew."""
        elapsed_s = max(time.monotonic() - self._began, 1e-9)
        figures = {"images_per_s": self._steps * self._batch_images / elapsed_s, "data_wait_frac": self._waited_s / elapsed_s}
        self.forget()
        return figures


class ShownLoss:
    """The loss beside the progress: a new one at most once a second, and the device is never waited for.

    On a GPU the loss of a step is copied while later steps run, and shown once the copy has arrived.
    """

    def __init__(self, every_s: float = LOSS_EVERY_S) -> None:
        self._every_s, self._next_s = every_s, float("-inf")
        self._coming: tuple[Tensor, torch.cuda.Event | None] | None = None
        self._text = ""

    def text(self, loss: Tensor) -> str:
        """Return the latest loss that has arrived, as "loss 1.234"; empty where none has. loss: that of the step just done."""
        if self._coming is None and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self._every_s
            self._coming = _started_copy(loss)
        if self._coming and (self._coming[1] is None or self._coming[1].query()):
            self._text, self._coming = f"loss {float(self._coming[0]):.3f}", None
        return self._text


def _started_copy(loss: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Return a copy of a loss on the CPU, and the event after which it is there; None where it is there already."""
    if loss.device.type != "cuda":
        return loss.detach().clone(), None
    copy = torch.empty((), dtype=loss.dtype, pin_memory=True)
    copy.copy_(loss.detach(), non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return copy, arrived
