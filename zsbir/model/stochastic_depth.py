"""Stochastic depth (Huang et al., ECCV 2016): in training, each residual branch is left out for some of the images.

For which ones is told from outside, image by image (`leave_out`), where libraries draw for whichever images a worker happens to
have. So a training that is resumed, and one on any number of workers, leaves out the same.

Legend of shapes: b batch, n residual branches that may be left out.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from zsbir.base.errors import InputError

_THEIRS = {"DropPath": "drop_prob", "StochasticDepth": "p"}
"""The modules of timm and of torchvision, each with the attribute that holds its rate."""


class DropBranch(nn.Module):
    """In training, zero for images whose branch is left out, and for others the branch over the share of those that keep it."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.kept: Bool[Tensor, "b"] | None = None

    def forward(self, branch: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Return the branch of each image, or zero; the branch as it is in evaluation. InputError where rows are no images."""
        if not self.training or not self.rate:
            return branch
        if self.kept is None or len(self.kept) != len(branch):
            raise InputError("drop_path: this backbone's branches are not one for each image; use drop_path 0")
        scale = self.kept.to(branch.dtype) / (1 - self.rate)
        return branch * scale.view(-1, *[1] * (branch.ndim - 1))


def use_drop_branches(trunk: nn.Module) -> None:
    """Replace the stochastic depth of timm or torchvision in a network. Raises InputError where it has none."""
    found = [(name, module) for name, module in trunk.named_modules() if type(module).__name__ in _THEIRS]
    rates = [float(getattr(module, _THEIRS[type(module).__name__])) for _, module in found]
    if not any(rates):
        raise InputError("drop_path: this backbone has no stochastic depth; use drop_path 0")
    for (name, _), rate in zip(found, rates, strict=True):
        owner, _, attribute = name.rpartition(".")
        setattr(trunk.get_submodule(owner), attribute, DropBranch(rate))


def drop_branches(network: nn.Module) -> list[DropBranch]:
    """Return the branches of a network that may be left out, in the order of its modules."""
    return [module for module in network.modules() if isinstance(module, DropBranch)]


def leave_out(network: nn.Module, chances: Shaped[Tensor, "n b"]) -> None:
    """Tell a network for which images of its next batch to leave branches out. chances: uniform in [0, 1)."""
    for branch, row in zip(drop_branches(network), chances, strict=True):
        branch.kept = row >= branch.rate
