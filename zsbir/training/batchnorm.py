"""What batch normalisation does in fine-tuning: keep the pre-trained statistics, or take them over the global batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zsbir.training.config import BatchNormMode
from zsbir.training.gather import AllReduceSum, world_size


def prepare_batch_norm(network: nn.Module, mode: BatchNormMode, device: torch.device) -> nn.Module:
    """`network` ready for training in that mode. torch's own SyncBatchNorm needs a GPU; on CPU ours does the same."""
    if mode == "sync" and world_size() > 1:
        if device.type == "cuda":
            converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
            return converted
        _replace(network)
    return network


def set_train_mode(network: nn.Module, mode: BatchNormMode) -> None:
    """Training mode, except that frozen batch normalisation keeps its statistics (scale and shift still learn)."""
    network.train()
    if mode == "frozen":
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            twin = SyncedBatchNorm2d(child.num_features, child.eps, child.momentum)
            twin.load_state_dict(child.state_dict())
            setattr(module, name, twin)
        else:
            _replace(child)


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of the global batch, on any device and backend.

    Mean and biased variance are summed over workers in float32; running variance is updated with the unbiased one, as torch does.
    """

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise by the global batch in training, by the running statistics in evaluation."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        values = input.float()
        count = torch.tensor([float(values.numel() // values.shape[1])], device=values.device)
        sums = torch.cat([values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3)), count])
        total: Tensor = AllReduceSum.apply(sums)
        first, second, n = total[: self.num_features], total[self.num_features : -1], total[-1]
        mean = first / n
        variance = (second / n - mean.square()).clamp_min(0)
        self._track(mean.detach(), variance.detach() * n.detach() / (n.detach() - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (values * scale[None, :, None, None] + shift[None, :, None, None]).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Float[Tensor, "c"], unbiased: Float[Tensor, "c"]) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(unbiased, momentum)
        self.num_batches_tracked.add_(1)
