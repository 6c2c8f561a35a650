"""Layers that draw random numbers in a training step: by the seed and the step, so that a resumed training draws the same again."""

from __future__ import annotations

import torch
from torch import nn

from zsbir.base.seeds import short_seed, stream
from zsbir.model.stochastic_depth import drop_branches, leave_out


def seed_encoder(encoder: nn.Module, seed: int, step: int, rank: int, *, images: int, mine: range, device: torch.device) -> None:
    """Prepare what an encoder draws in a step, on the worker of a rank. images: of the global batch; mine: this worker's of them.

    Stochastic depth is drawn for each place in the global batch, the same for any number of workers. All else, such as dropout of
    single features, is drawn by torch, from a seed of this worker's own.
    """
    torch.manual_seed(short_seed("layers that draw", seed, step, rank))
    if branches := len(drop_branches(encoder)):
        chances = stream("stochastic depth", seed, step).random((branches, images))[:, mine.start : mine.stop]
        leave_out(encoder, torch.from_numpy(chances).to(device))


def seed_losses(seed: int, step: int) -> None:
    """Prepare what losses draw in a step: the same on every worker, since each computes the whole loss."""
    torch.manual_seed(short_seed("losses that draw", seed, step))


def has_dropout(network: nn.Module) -> bool:
    """Return whether a network drops single features in training, which each worker draws for itself."""
    return any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in network.modules())
