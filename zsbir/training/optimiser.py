"""AdamW over backbone and new layers, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from zsbir.losses.loss import Loss
from zsbir.training.config import OptimiserConfig


def build_optimiser(
    config: OptimiserConfig, encoder: nn.Module, heads: nn.Module, further: nn.ModuleDict | None = None
) -> torch.optim.AdamW:
    """Build AdamW with groups for backbone, new layers, teacher-label head and further losses, with and without weight decay."""
    peaks = {"trunk": config.lr_backbone, "preserver": config.lr if config.lr_preserver is None else config.lr_preserver}
    further = further or nn.ModuleDict()
    peaks |= {name: config.lr * cast(Loss, loss).rate_factor for name, loss in further.items()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in _named(encoder, heads, further):
        peak = peaks.get(name.split(".")[0], config.lr)
        # Biases and normalisation's scale and shift are vectors: shrinking them towards zero only hurts.
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((peak, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": members, "lr": peak, "peak_lr": peak, "weight_decay": decay} for (peak, decay), members in groups.items()]
    )


def _named(*modules: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    for module in modules:
        yield from module.named_parameters()


def rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then cosine to zero."""
    warmup = round(config.warmup_frac * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_rate(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Set every group to that share of its peak learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * share
