"""The global batch, the loss and its gradient are the same on 1, 2 and 4 workers: real processes over gloo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from plugged import install, remove
from safetensors.torch import load_file, save_file

from zsbir.losses.further import further_losses
from zsbir.losses.loss import Shapes
from zsbir.losses.objective import Objective
from zsbir.losses.objective_config import ObjectiveConfig
from zsbir.losses.registry import offered
from zsbir.model.backbones import network_of
from zsbir.model.encoder import Encoded, Encoder
from zsbir.model.heads import Heads
from zsbir.model.weights import save_weights
from zsbir.training.batchnorm import prepare_batch_norm, set_train_mode
from zsbir.training.config import TrainConfig
from zsbir.training.context import data_parallel
from zsbir.training.drawing import seed_encoder, seed_losses
from zsbir.training.forecast import seconds_per_image
from zsbir.training.gather import any_worker, gather

CLASSES, PER_CLASS, LABELS = 4, 2, 6
SMALL = "timm:convnext_atto.d2_in1k"


class Case(NamedTuple):
    """What is trained. losses: whether all further losses that there are, those of the package in `tests/plugin` among them."""

    backbone: str = "resnet18"
    batch_norm: str = "frozen"
    place: str = "embedding"
    drop_path: float = 0.0
    losses: bool = True
    fixed: bool = False


CASES = {
    "default": Case(),
    "head on features": Case(place="features"),
    "batch statistics": Case(batch_norm="sync"),
    "batch statistics, head on features": Case(batch_norm="sync", place="features"),
    "stochastic depth": Case(backbone=SMALL, drop_path=0.5),
    "nothing to learn but the encoder": Case(losses=False, fixed=True),
}


def global_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """16 images of noise: 4 classes x (2 photos + 2 sketches)."""
    size = CLASSES * 2 * PER_CLASS
    images = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return (
        images,
        torch.arange(CLASSES).repeat_interleave(2 * PER_CLASS),
        torch.arange(2).repeat_interleave(PER_CLASS).repeat(CLASSES),
    )


def config_of(case: Case, teacher: str) -> TrainConfig:
    return TrainConfig(
        backbone=case.backbone,
        drop_path=case.drop_path,
        preservation_place=case.place,
        classes_per_batch=CLASSES,
        per_class=PER_CLASS,
        weight_preservation=0 if case.fixed else 0.3,
        **({"losses": sorted(offered()), "sake_teacher": teacher, "sake_backbone": SMALL} if case.losses else {}),
    )


def one_step(case: Case, teacher: str) -> dict[str, torch.Tensor]:
    """Loss and gradients of one step, as this worker of the group has them. Parameters without a gradient have none."""
    torch.manual_seed(0)
    rank, workers = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    config, device = config_of(case, teacher), torch.device("cpu")
    encoder = Encoder(config.backbone, embedding_dim=8, image_px=32, drop_path=config.drop_path)
    labels = 0 if case.fixed else LABELS
    features = encoder.feature_dim
    heads = Heads(
        feature_dim=features, embedding_dim=8, classes=CLASSES, teacher_labels=labels, place=case.place, fixed_classes=case.fixed
    )
    knowledge = torch.rand(CLASSES, LABELS).softmax(dim=1)
    prepare_batch_norm(encoder, case.batch_norm, device)
    network = data_parallel(encoder, device)
    images, class_id, domain = (part.chunk(workers)[rank] for part in global_batch())
    if rank == 0:  # the first worker alone measures how long training will take, before the first step
        seconds_per_image(encoder, images, nullcontext())
    set_train_mode(encoder, case.batch_norm)
    torch.manual_seed(1)
    further = further_losses(config, Shapes(8, features, CLASSES))
    objective = Objective(config, heads, torch.arange(CLASSES), knowledge, further=further)
    mine = range(rank * len(images), (rank + 1) * len(images))
    seed_encoder(encoder, 0, 3, rank, images=config.batch_images, mine=mine, device=device)
    encoded = Encoded(*map(gather, network(images)))
    seed_losses(0, 3)
    whole = data_parallel(objective, device, unused=True)
    loss, _ = whole(encoded, gather(class_id), gather(domain), images=gather(images))
    loss.backward()
    parts = (encoder, heads, objective.further)
    named = ((f"grad/{number}/{name}", p.grad) for number, module in enumerate(parts) for name, p in module.named_parameters())
    result = {name: gradient for name, gradient in named if gradient is not None}
    result |= {f"buffer/{name}": b.float() for part in (encoder, objective.further) for name, b in part.named_buffers()}
    return result | {"loss": loss.detach()}


def worker(rank: int, world_size: int, folder: str, teacher: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world_size)
    for name, case in CASES.items():
        found = {key: value.contiguous() for key, value in one_step(case, teacher).items()}
        save_file(found, f"{folder}/{name}-{rank}.safetensors")
    assert any_worker(rank == 1, torch.device("cpu"))
    assert not any_worker(False, torch.device("cpu"))
    dist.destroy_process_group()


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a teacher's weights, for SAKE; the package in `tests/plugin` is installed, for processes too."""
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    install(tmp_path / "packages")
    torch.manual_seed(3)
    state = network_of(SMALL).build(5).state_dict()
    yield save_weights(state, backbone=SMALL, labels=tuple("abcde"), root=tmp_path / "root")[0]
    remove(tmp_path / "packages")


def test_the_default_place_of_the_teacher_head_is_among_those_tested():
    assert CASES["default"].place == ObjectiveConfig().preservation_place


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
def test_loss_and_gradient_are_those_of_one_worker(tmp_path: Path, teacher: str, world_size: int) -> None:
    mp.spawn(worker, (world_size, str(tmp_path), teacher), nprocs=world_size)
    for case in CASES:
        expected = one_step(CASES[case], teacher)
        assert "grad/2/loss_recent.scale" not in expected  # which this step does not use
        for rank in range(world_size):
            found = load_file(tmp_path / f"{case}-{rank}.safetensors")
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                scale = max(value.abs().max().item(), 1e-3)
                error = (found[name] - value).abs().max().item()
                assert error <= 2e-4 * scale, f"{name} differs on worker {rank} of {world_size}: {case}"
