"""The global batch on every worker, with its gradient, so that 1, 2 or 4 workers compute one and the same loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor


def world_size() -> int:
    """Return the number of workers in the process group; 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    """all_gather whose backward sums the gradients of this worker's rows over all workers' copies of the loss.

    Each of W workers computes the whole loss, so the sum is W times the gradient; DistributedDataParallel then averages the
    parameters' gradients over the W workers, which leaves exactly the gradient of the one global loss.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.rows = len(local)
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.rows
        return total[start : start + ctx.rows]


def gather(local: Shaped[Tensor, "local ..."]) -> Shaped[Tensor, "global ..."]:
    """Gather the rows of all workers in rank order, equally many of each. Differentiable for floating tensors."""
    if world_size() == 1:
        return local
    gathered: Tensor = _Gather.apply(local)
    return gathered


class AllReduceSum(torch.autograd.Function):
    """A sum over workers whose backward is a sum over workers too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004 - autograd's signature
        """Return the sum, on every worker."""
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004 - autograd's signature
        """Return the sum of all workers' gradients."""
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def any_worker(flag: bool, device: torch.device) -> bool:
    """Return on every worker whether the flag is set on any."""
    if world_size() == 1:
        return flag
    flags = torch.tensor([float(flag)], device=device)
    dist.all_reduce(flags)
    return bool(flags.item() > 0)


def from_first(text: str, device: torch.device) -> str:
    """Return worker 0's text on every worker."""
    if world_size() == 1:
        return text
    texts: list[Any] = [text]
    dist.broadcast_object_list(texts, device=device)
    return str(texts[0])


def from_all(text: str) -> list[str]:
    """Return every worker's text, in rank order."""
    if world_size() == 1:
        return [text]
    texts: list[str] = [""] * world_size()
    dist.all_gather_object(texts, text)
    return texts


def barrier() -> None:
    """Wait for all workers."""
    if world_size() > 1:
        dist.barrier()
