from __future__ import annotations

import pytest
import torch

from zsbir.base.errors import PermanentError, RunError
from zsbir.training.config import TrainConfig
from zsbir.training.failures import OutOfMemoryError, memory_errors_explained

CONFIG = TrainConfig(classes_per_batch=8, per_class=4, image_px=96)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_too_little_memory_is_one_line_that_says_what_to_make_smaller_and_is_not_tried_again(error):
    with pytest.raises(OutOfMemoryError) as caught, memory_errors_explained(CONFIG, workers=2):
        raise error
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("out of memory with 32 images of 96 px for each worker (")
    assert "lower image_px, classes_per_batch or per_class" in text
    assert isinstance(caught.value, PermanentError)


def test_the_real_allocator_of_the_cpu_is_understood():
    with pytest.raises(OutOfMemoryError), memory_errors_explained(CONFIG, workers=1):
        torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), RunError("no memory of it"), ValueError("x")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error), match=str(error)), memory_errors_explained(CONFIG, workers=1):
        raise error
