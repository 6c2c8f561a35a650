from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from zsbir.base.errors import InputError
from zsbir.training.checkpoint import Checkpoints, TrainState, newest_checkpoint


def trained(steps: int) -> tuple[dict[str, nn.Module], torch.optim.Optimizer]:
    torch.manual_seed(0)
    modules: dict[str, nn.Module] = {"encoder": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "heads": nn.Linear(4, 2)}
    optimiser = torch.optim.AdamW([p for module in modules.values() for p in module.parameters()], lr=0.1)
    step(modules, optimiser, steps)
    return modules, optimiser


def step(modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, steps: int) -> None:
    values = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimiser.zero_grad()
        modules["heads"](modules["encoder"](values)).square().sum().backward()
        optimiser.step()


def save_checkpoint(run: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, state: TrainState) -> None:
    with Checkpoints(run) as checkpoints:
        checkpoints.save(modules, optimiser, state)


def load_checkpoint(run: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer) -> TrainState:
    return Checkpoints(run).load(modules, optimiser)


def test_a_loaded_checkpoint_goes_on_bit_for_bit(tmp_path: Path):
    modules, optimiser = trained(3)
    save_checkpoint(tmp_path, modules, optimiser, TrainState(3, 0.5, 2, [{"step": 1, "loss": 2.0}]))
    step(modules, optimiser, 4)
    others, other_optimiser = trained(0)
    state = load_checkpoint(tmp_path, others, other_optimiser)
    assert state == TrainState(3, 0.5, 2, [{"step": 1, "loss": 2.0}])
    step(others, other_optimiser, 4)
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            assert value.equal(others[name].state_dict()[key]), key


def test_only_the_newest_is_kept_and_one_without_a_manifest_is_not_seen(tmp_path: Path):
    modules, optimiser = trained(1)
    for done in (5, 999_999, 1_000_000):
        save_checkpoint(tmp_path, modules, optimiser, TrainState(done))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-1000000"]
    torn = tmp_path / "checkpoints" / "step-2000000"
    torn.mkdir()
    (torn / "state.safetensors").write_bytes(b"half")
    newest = newest_checkpoint(Checkpoints(tmp_path).place)
    assert newest is not None
    assert newest.path.name == "step-1000000"


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path):
    modules, optimiser = trained(1)
    save_checkpoint(tmp_path, modules, optimiser, TrainState(5))
    file = tmp_path / "checkpoints" / "step-000005" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"state\.safetensors differs from its manifest"):
        load_checkpoint(tmp_path, modules, optimiser)


def test_a_fresh_run_starts_at_zero(tmp_path: Path):
    modules, optimiser = trained(0)
    assert load_checkpoint(tmp_path, modules, optimiser) == TrainState()
