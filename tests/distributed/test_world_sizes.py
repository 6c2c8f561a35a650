"""The global batch, the loss and its gradient are the same on 1, 2 and 4 workers: real processes over gloo."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from zsbir.losses.further import further_losses
from zsbir.losses.loss import Shapes
from zsbir.losses.objective import Objective
from zsbir.losses.objective_config import ObjectiveConfig
from zsbir.losses.registry import offered
from zsbir.model.encoder import Encoded, Encoder
from zsbir.model.heads import Heads
from zsbir.training.batchnorm import prepare_batch_norm, set_train_mode
from zsbir.training.config import TrainConfig
from zsbir.training.context import data_parallel
from zsbir.training.forecast import seconds_per_image
from zsbir.training.gather import any_worker, gather

CLASSES, PER_CLASS, LABELS = 4, 2, 6
MODES = ("frozen", "sync")
PLACES = ("embedding", "features")
"""Where the teacher-label head sits; the first is the configuration's default."""
CASES = [(mode, place) for mode in MODES for place in PLACES]


def global_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """16 images of noise: 4 classes x (2 photos + 2 sketches)."""
    size = CLASSES * 2 * PER_CLASS
    images = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return (
        images,
        torch.arange(CLASSES).repeat_interleave(2 * PER_CLASS),
        torch.arange(2).repeat_interleave(PER_CLASS).repeat(CLASSES),
    )


def one_step(mode: str, place: str) -> dict[str, torch.Tensor]:
    """Loss and gradients of one step, as this worker of the group has them."""
    torch.manual_seed(0)
    rank, workers = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    encoder = Encoder("resnet18", embedding_dim=8, image_px=32)
    heads = Heads(feature_dim=512, embedding_dim=8, classes=CLASSES, teacher_labels=LABELS, place=place)
    knowledge = torch.rand(CLASSES, LABELS).softmax(dim=1)
    prepare_batch_norm(encoder, mode, torch.device("cpu"))
    device = torch.device("cpu")
    network = data_parallel(encoder, device)
    images, class_id, domain = (part.chunk(workers)[rank] for part in global_batch())
    if rank == 0:  # the first worker alone measures how long training will take, before the first step
        seconds_per_image(encoder, images, nullcontext())
    set_train_mode(encoder, mode)
    config = TrainConfig(preservation_place=place, losses=sorted(offered()))
    objective = Objective(config, heads, torch.arange(CLASSES), knowledge, further=further_losses(config, Shapes(8, 512, CLASSES)))
    encoded = Encoded(*map(gather, network(images)))
    loss, _ = data_parallel(objective, device)(encoded, gather(class_id), gather(domain))
    loss.backward()
    parts = (encoder, heads, objective.further)
    result = {f"grad/{number}/{name}": p.grad for number, module in enumerate(parts) for name, p in module.named_parameters()}
    result |= {f"buffer/{name}": b.float() for name, b in encoder.named_buffers()}
    return result | {"loss": loss.detach()}


def worker(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world_size)
    for mode, place in CASES:
        found = {name: value.contiguous() for name, value in one_step(mode, place).items()}
        save_file(found, f"{folder}/{mode}-{place}-{rank}.safetensors")
    assert any_worker(rank == 1, torch.device("cpu"))
    assert not any_worker(False, torch.device("cpu"))
    dist.destroy_process_group()


def test_the_default_place_of_the_teacher_head_is_among_those_tested():
    assert PLACES[0] == ObjectiveConfig().preservation_place


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
def test_loss_and_gradient_are_those_of_one_worker(tmp_path: Path, world_size: int) -> None:
    mp.spawn(worker, (world_size, str(tmp_path)), nprocs=world_size)
    for mode, place in CASES:
        expected = one_step(mode, place)
        for rank in range(world_size):
            found = load_file(tmp_path / f"{mode}-{place}-{rank}.safetensors")
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                scale = max(value.abs().max().item(), 1e-3)
                error = (found[name] - value).abs().max().item()
                assert error <= 2e-4 * scale, f"{name} differs on worker {rank} of {world_size}, batch norm {mode}, head on {place}"
