"""Batch normalisation in fine-tuning: keep the pre-trained statistics, or compute them over the global batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zsbir.training.config import BatchNormMode
from zsbir.training.gather import AllReduceSum, world_size


def prepare_batch_norm(network: nn.Module, mode: BatchNormMode, device: torch.device) -> nn.Module:
    """Return `network` ready for training in that mode; on CPU by SyncedBatchNorm2d, since torch's SyncBatchNorm needs a GPU."""
    if mode == "sync" and world_size() > 1:
        if device.type == "cuda":
            from timm.layers import norm_act  # torch's own conversion loses the activations that timm's layers hold

            converted: nn.Module = norm_act.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
            return converted
        _replace(network)
    return network


def set_train_mode(network: nn.Module, mode: BatchNormMode) -> None:
    """Set training mode, except that frozen batch normalisation keeps its statistics (scale and shift still learn)."""
    network.train()
    if mode == "frozen":
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, SyncedBatchNorm2d.like(child))
        else:
            _replace(child)


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of the global batch, on any device and backend.

    Statistics are computed in float32 at least. The biased variance normalises and the unbiased one is tracked, as in torch.
    drop, act: what timm's BatchNormAct2d does afterwards; nothing otherwise.
    """

    drop: nn.Module
    act: nn.Module

    @classmethod
    def like(cls, norm: nn.BatchNorm2d) -> SyncedBatchNorm2d:
        """Return the same layer with statistics over all workers."""
        twin = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        twin.drop, twin.act = (getattr(norm, name, None) or nn.Identity() for name in ("drop", "act"))
        state = norm.state_dict()
        if state:
            twin.to(next(iter(state.values())))  # the device and the precision of scale or running mean
            twin.load_state_dict(state)
        return twin.train(norm.training)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise by the global batch in training, by the running statistics in evaluation."""
        local = not self.training or world_size() == 1
        normalised: Tensor = self.act(self.drop(super().forward(input) if local else self._by_global_batch(input)))
        return normalised

    def _by_global_batch(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        count = values.numel() // values.shape[1]
        # E[x^2] - E[x]^2 loses all digits where the mean is large beside the deviation. Shifted by a constant close to the mean it
        # does not (Chan, Golub and LeVeque 1983), and the result depends on the shift in rounding only: it needs no gradient.
        with torch.no_grad():
            shift = self._sum_over_workers(values.sum(dim=(0, 2, 3)), count)
            shift = shift[:-1] / shift[-1]
        centred = values - _per_channel(shift)
        sums = torch.cat([centred.sum(dim=(0, 2, 3)), centred.square().sum(dim=(0, 2, 3))])
        total = self._sum_over_workers(sums, count)
        n = total[-1].detach()
        offset, square = (total[:-1] / n).chunk(2)
        variance = (square - offset.square()).clamp_min(0)
        self._track((shift + offset).detach(), variance.detach() * n / (n - 1))
        scaled = (centred - _per_channel(offset)) * _per_channel((variance + self.eps).rsqrt())
        if self.affine:
            scaled = scaled * _per_channel(self.weight) + _per_channel(self.bias)
        return scaled.to(input.dtype)

    @staticmethod
    def _sum_over_workers(sums: Float[Tensor, "n"], count: int) -> Float[Tensor, "n+1"]:
        """Return the sums over all workers and, behind them, the number of values of each channel."""
        counted = torch.cat([sums, sums.new_tensor([float(count)])])
        total: Tensor = AllReduceSum.apply(counted)
        return total

    @torch.no_grad()
    def _track(self, mean: Float[Tensor, "c"], unbiased: Float[Tensor, "c"]) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        # Without a momentum, torch averages over all batches.
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


def _per_channel(values: Float[Tensor, "c"]) -> Float[Tensor, "1 c 1 1"]:
    return values[None, :, None, None]
