"""A moving average of an encoder's weights, which scores better than where the last steps happen to lead."""

from __future__ import annotations

import copy

import torch
from torch import nn

from zsbir.model.encoder import Encoder


class Average(nn.Module):
    """An encoder whose weights are w <- d w + (1 - d) v after each step, v being those that are trained.

    d is `decay`, and smaller in the first steps, (1 + step) / (10 + step), so that the start is forgotten. Batch statistics are
    those of the encoder that is trained.
    """

    def __init__(self, encoder: Encoder, decay: float):
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, trained: Encoder, step: int) -> None:
        """Take the weights after a step into the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for mean, value in zip(self.encoder.parameters(), trained.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        for held, newest in zip(self.encoder.buffers(), trained.buffers(), strict=True):
            held.copy_(newest)
