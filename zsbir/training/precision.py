"""The arithmetic that the network runs in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from zsbir.training.config import Precision


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return bfloat16 autocast where asked for or, with `auto`, where the hardware computes in it; else a context for float32.

    Without AVX512-BF16 a CPU emulates bfloat16 at a fraction of float32's speed.
    """
    if precision == "fp32" or (precision == "auto" and not _gains(device)):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _gains(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
