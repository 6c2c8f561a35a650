"""Generalised mean pooling (Radenovic et al., TPAMI 2019) in place of the mean over a feature map."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zsbir.base.errors import InputError

START = 3.0
"""The power that training starts with, as in the paper: between the mean (1) and the maximum."""


_MEANS = ("AdaptiveAvgPool2d", "SelectAdaptivePool2d")
"""The modules by which torchvision and timm take the mean over a feature map."""


class GeneralisedMean(nn.Module):
    """(mean x^p)^(1/p) of each channel, with one learned power p. Values below 1e-6 count as that."""

    def __init__(self) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor([START]))

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """Return the generalised means, computed in float32."""
        with torch.autocast(maps.device.type, enabled=False):
            power = self.power.clamp_min(1)
            pooled: Tensor = maps.float().clamp_min(1e-6).pow(power).mean(dim=(2, 3), keepdim=True).pow(1 / power)
        return pooled


def use_gem(trunk: nn.Module) -> None:
    """Replace the mean over the last feature map of a network. Raises InputError where it has none, as a vision transformer."""
    kinds = [(name, module) for name, module in trunk.named_modules() if type(module).__name__ in _MEANS]
    outer = [(name, module) for name, module in kinds if not name.endswith(".pool")]  # what timm's module is made of
    if not outer:
        raise InputError("pooling gem: this backbone has no mean over a feature map that could be replaced; use pooling mean")
    name, module = outer[-1]
    owner, _, attribute = name.rpartition(".")
    flat = isinstance(getattr(module, "flatten", None), nn.Flatten)
    setattr(trunk.get_submodule(owner), attribute, nn.Sequential(GeneralisedMean(), nn.Flatten(1)) if flat else GeneralisedMean())
