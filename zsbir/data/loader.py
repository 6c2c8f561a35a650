"""From a batch plan to tensors: threads decode and augment ahead of the training step.

Threads, not processes: Pillow releases the interpreter lock while it decodes and warps, and a thread starts at once. The
randomness of every image comes from (seed, step, position in the global batch), so the bytes are the same for any number of
threads or workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int, Int64, UInt8
from torch import Tensor

from zsbir.base.cores import usable_cores
from zsbir.base.seeds import stream
from zsbir.data.augmentation import Augmentation, augment_image
from zsbir.data.batches import BatchPlan
from zsbir.data.domains import DOMAINS
from zsbir.data.images import eval_image
from zsbir.data.samples import Samples
from zsbir.data.shards import Images

Item = TypeVar("Item")
Pixels = UInt8[np.ndarray, "3 h w"]

STEPS_AHEAD = 3
"""Batches that are prepared while one is trained on."""


def default_threads() -> int:
    """Return how many threads of a process decode: one for each core that it may use, at most 16."""
    return min(16, usable_cores())


@dataclass(frozen=True)
class Batch:
    """One worker's part of a step: images as bytes, class ids of the data set, domain ids."""

    images: UInt8[Tensor, "b 3 h w"]
    class_id: Int64[Tensor, "b"]
    domain: Int64[Tensor, "b"]


@dataclass(frozen=True)
class TrainLoader:
    """Augmented batches of a plan for worker `rank` of `world_size`, which takes a contiguous part of every global batch."""

    samples: Samples
    images: Images
    plan: BatchPlan
    augmentation: Augmentation
    image_px: int
    seed: int
    rank: int = 0
    world_size: int = 1
    threads: int = 0

    def batches(self, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of steps first_step, first_step + 1 and so on."""
        flat, mine = self._flat(), self.slots()
        steps = range(first_step, len(flat))
        self.images.prefetch(flat[first_step:, mine.start : mine.stop].ravel())
        groups = ([(step, slot) for slot in mine] for step in steps)
        for step, stack in zip(steps, prefetch(self._pixels, groups, self.threads), strict=True):
            where = flat[step, mine.start : mine.stop]
            yield Batch(stack, _tensor(self.samples.class_id[where]), _tensor(self.samples.domain[where]))

    def first_images(self, step: int, count: int) -> UInt8[Tensor, "b 3 h w"]:
        """Return the first `count` images, or fewer, of this worker's part of a step."""
        return next(prefetch(self._pixels, iter([[(step, slot) for slot in self.slots()[:count]]]), self.threads))

    def _flat(self) -> Int[np.ndarray, "steps b"]:
        return self.plan.reshape(len(self.plan), -1)

    def slots(self) -> range:
        """Return the positions in every global batch that are this worker's."""
        share = self._flat().shape[1] // self.world_size
        return range(self.rank * share, (self.rank + 1) * share)

    def _pixels(self, item: tuple[int, int]) -> Pixels:
        """Return one image of a step, augmented. item: the step, and the position in its global batch."""
        step, slot = item
        position = int(self._flat()[step, slot])
        rng = stream("augmentation", self.seed, step, slot)
        domain = DOMAINS[self.samples.domain[position]]
        return augment_image(self.images.read(position), self.image_px, domain, rng, self.augmentation)


def eval_batches(
    images: Images, positions: Int[np.ndarray, "n"], image_px: int, batch_images: int, threads: int = 0
) -> Iterator[UInt8[Tensor, "b 3 h w"]]:
    """Yield the images at `positions` under the evaluation transform, `batch_images` at a time."""
    images.prefetch(positions)
    groups = (positions[start : start + batch_images].tolist() for start in range(0, len(positions), batch_images))
    return prefetch(lambda position: eval_image(images.read(position), image_px), groups, threads)


def prefetch(
    pixels: Callable[[Item], Pixels], groups: Iterator[list[Item]], threads: int = 0
) -> Iterator[UInt8[Tensor, "b 3 h w"]]:
    """Yield a stacked tensor for each group in order, made by threads that work STEPS_AHEAD groups ahead."""
    waiting: deque[list[Future[Pixels]]] = deque()
    with ThreadPoolExecutor(threads or default_threads(), thread_name_prefix="decode") as pool:
        try:
            for group in groups:
                waiting.append([pool.submit(pixels, item) for item in group])
                if len(waiting) > STEPS_AHEAD:
                    yield _stack(waiting.popleft())
            while waiting:
                yield _stack(waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _stack(futures: list[Future[Pixels]]) -> UInt8[Tensor, "b 3 h w"]:
    return torch.from_numpy(np.stack([future.result() for future in futures]))


def _tensor(values: Int[np.ndarray, "b"]) -> Int64[Tensor, "b"]:
    return torch.from_numpy(values.astype(np.int64))
