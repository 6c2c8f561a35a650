"""Failures of a training that would come again, as errors that say the way out; nothing tries such a training again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from zsbir.base.errors import PermanentError
from zsbir.training.config import TrainConfig

_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""What errors of torch say that have no class of their own: of its allocator on the CPU, of cuBLAS and cuDNN."""


def diverged(what: str) -> PermanentError:
    """Return the error of a training whose numbers are no longer finite. what: which ones, and at which step."""
    return PermanentError(
        f"training has diverged: {what}; earlier checkpoints are kept, and the same command would end here again:"
        " lower the learning rates, set grad_clip, or use precision=fp32"
    )


class OutOfMemoryError(PermanentError):
    """Neither the GPU nor the machine has as much memory as this training needs."""


@contextmanager
def memory_errors_explained(config: TrainConfig, workers: int) -> Iterator[None]:
    """Turn any error of too little memory inside into an OutOfMemoryError that names what to make smaller."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_memory_error(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise OutOfMemoryError(
            f"out of memory with {config.batch_images // workers} images of {config.image_px} px for each worker ({reason});"
            " lower image_px, classes_per_batch or per_class, use more workers (--num-workers), or end what else uses the memory"
        ) from error


def _is_memory_error(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)
