"""Synchronised batch normalisation over 1, 2 and 4 real processes, compared with torch's own in float64 on the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import nn

from zsbir.training.batchnorm import SyncedBatchNorm2d, prepare_batch_norm

CHANNELS = 3
SHAPE = (8, CHANNELS, 6, 6)
CASES = {"usual": (0.0, 1.0), "far from zero": (100.0, 0.1), "very far": (-3000.0, 0.5), "constant": (5.0, 0.0)}
"""Mean and standard deviation of the values."""

WEIGHT, BIAS = torch.tensor([1.5, -0.5, 2.0]), torch.tensor([0.1, 0.2, -0.3])


def global_values(case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole batch, of unequal means over the images, and the gradient that arrives from above."""
    random = torch.Generator().manual_seed(len(case))
    mean, deviation = CASES[case]
    noise = torch.randn(SHAPE, generator=random) + torch.linspace(-1, 1, SHAPE[0])[:, None, None, None]
    return mean + deviation * noise, torch.randn(SHAPE, generator=random)


def normalised(norm: nn.BatchNorm2d, values: torch.Tensor, above: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, gradients and running statistics of one pass."""
    with torch.no_grad():
        norm.weight.copy_(WEIGHT)
        norm.bias.copy_(BIAS)
    values = values.clone().requires_grad_()
    out = norm(values)
    (out * above).sum().backward()
    found = {"out": out.detach(), "grad_in": values.grad, "grad_weight": norm.weight.grad, "grad_bias": norm.bias.grad}
    return found | {"mean": norm.running_mean, "variance": norm.running_var, "batches": norm.num_batches_tracked[None]}


def worker(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world_size)
    for case in CASES:
        for momentum in (0.1, None):
            network = prepare_batch_norm(nn.Sequential(nn.BatchNorm2d(CHANNELS, momentum=momentum)), "sync", torch.device("cpu"))
            assert isinstance(network[0], SyncedBatchNorm2d) == (world_size > 1)
            values, above = (part.chunk(world_size)[rank] for part in global_values(case))
            found = {name: value.contiguous() for name, value in normalised(network[0], values, above).items()}
            save_file(found, f"{folder}/{case}-{momentum}-{rank}.safetensors")
    dist.destroy_process_group()


def together(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Put the workers' parts of the batch together and add up what each contributes to the gradients of scale and shift."""
    whole = {name: torch.cat([part[name] for part in parts]) for name in ("out", "grad_in")}
    whole |= {name: torch.stack([part[name] for part in parts]).sum(dim=0) for name in ("grad_weight", "grad_bias")}
    for name in ("mean", "variance", "batches"):
        assert all(part[name].equal(parts[0][name]) for part in parts), f"{name} differs between workers"
        whole[name] = parts[0][name]
    return whole


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 4])  # one process uses torch's own layer
def test_it_computes_what_one_process_computes_in_float64_also_far_from_zero(tmp_path: Path, world_size: int):
    mp.spawn(worker, (world_size, str(tmp_path)), nprocs=world_size)
    for case in CASES:
        for momentum in (0.1, None):
            values, above = global_values(case)
            expected = normalised(nn.BatchNorm2d(CHANNELS, momentum=momentum).double(), values.double(), above.double())
            parts = [load_file(tmp_path / f"{case}-{momentum}-{rank}.safetensors") for rank in range(world_size)]
            for name, value in together(parts).items():
                scale = max(expected[name].abs().max().item(), 1e-3)
                error = (value.double() - expected[name]).abs().max().item() / scale
                assert error < (1e-3 if world_size == 1 else 2e-6), (
                    f"{name} of {case!r} differs by {error:.1e} with {world_size} workers, momentum {momentum}"
                )


def test_a_synchronised_layer_is_its_original_in_all_but_its_statistics():
    for original in (
        nn.BatchNorm2d(4).double(),
        nn.BatchNorm2d(4, eps=1e-3, momentum=None, affine=False).eval(),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.BatchNorm2d(4, affine=False, track_running_stats=False),
    ):
        twin = SyncedBatchNorm2d.like(original)
        assert twin.state_dict().keys() == original.state_dict().keys()
        assert all(value.equal(original.state_dict()[name]) for name, value in twin.state_dict().items())
        assert [(value.dtype, value.device) for value in twin.state_dict().values()] == [
            (value.dtype, value.device) for value in original.state_dict().values()
        ]
        assert (twin.eps, twin.momentum, twin.training) == (original.eps, original.momentum, original.training)
