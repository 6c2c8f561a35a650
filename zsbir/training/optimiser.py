"""AdamW over backbone and new layers, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import chain
from typing import cast

import torch
from torch import nn

from zsbir.losses.loss import Loss
from zsbir.model.pooling import GeneralisedMean
from zsbir.training.config import OptimiserConfig

_FURTHER = "further/"
"""What sets the names of further losses apart from those of encoder and heads: a package may call its loss "preserver"."""


def build_optimiser(
    config: OptimiserConfig, encoder: nn.Module, heads: nn.Module, further: nn.ModuleDict | None = None
) -> torch.optim.AdamW:
    """Build AdamW with groups for backbone, new layers, teacher-label head and further losses, with and without weight decay."""
    peaks = {"preserver": config.lr if config.lr_preserver is None else config.lr_preserver}
    further = further or nn.ModuleDict()
    peaks |= {f"{_FURTHER}{name}": config.lr * cast(Loss, loss).rate_factor for name, loss in further.items()}
    shares = layer_shares(_pretrained(encoder), config.layer_decay)
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    further_named = ((f"{_FURTHER}{name}", parameter) for name, parameter in further.named_parameters())
    for name, parameter in chain(encoder.named_parameters(), heads.named_parameters(), further_named):
        pretrained = name in shares
        peak = config.lr_backbone * shares[name] if pretrained else peaks.get(name.split(".")[0], config.lr)
        # Biases and normalisation's scale and shift are vectors: shrinking them towards zero only hurts.
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((peak, decay, pretrained), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "lr": peak, "peak_lr": peak, "weight_decay": decay, "pretrained": pretrained}
            for (peak, decay, pretrained), members in groups.items()
        ]
    )


def _pretrained(encoder: nn.Module) -> list[str]:
    """Return the names of the parameters of an encoder that come from the weight file, from input to output."""
    new = [f"{name}." for name, module in encoder.named_modules() if isinstance(module, GeneralisedMean)]
    named = [name for name, _ in encoder.named_parameters() if name.startswith("trunk.")]
    return [name for name in named if not name.startswith(tuple(new))]


def layer_shares(names: Sequence[str], decay: float) -> dict[str, float]:
    """Return the share of the backbone's learning rate for each of its parameters, named in order from input to output.

    Parameters of one block, those whose names agree up to the block's number, have one share: `decay` in the first, 1 in the last.
    """
    block = re.compile(r"^(.*?\.\d+(?=\.)|.*(?=\.))")  # "trunk.layer1.0" of "trunk.layer1.0.conv1.weight", "trunk.conv1" of others
    blocks = {name: found[0] if (found := block.match(name)) else name for name in names}
    order = {key: place for place, key in enumerate(dict.fromkeys(blocks.values()))}
    return {name: decay ** (1 - order[key] / max(1, len(order) - 1)) for name, key in blocks.items()}


def rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then cosine to zero."""
    warmup = round(config.warmup_frac * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_rate(optimiser: torch.optim.Optimizer, share: float, *, probe: bool = False) -> None:
    """Set every group to that share of its peak learning rate. probe: pre-trained layers to zero."""
    for group in optimiser.param_groups:
        group["lr"] = 0.0 if probe and group["pretrained"] else group["peak_lr"] * share
