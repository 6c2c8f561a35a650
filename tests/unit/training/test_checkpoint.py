from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from zsbir.base.errors import InputError, RunError
from zsbir.model.encoder import Encoder
from zsbir.training import checkpoint
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
    newest = newest_checkpoint(Checkpoints(tmp_path).folder)
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


class Away:
    """Drafts fail while `away`, as when a store does not answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away, self.tries = True, 0
        real = checkpoint.draft

        def draft(uri: str, *words: str, **more: object) -> object:
            self.tries += 1
            if self.away:
                raise RunError(f"{uri}: the store does not answer")
            return real(uri, *words, **more)

        monkeypatch.setattr(checkpoint, "draft", draft)
        monkeypatch.setattr(checkpoint, "is_remote", lambda uri: True)
        monkeypatch.setattr(checkpoint, "RETRY_S", (0.02,))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Away:
    return Away(monkeypatch)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("*-*"))


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_snapshot_is_what_was_when_it_was_taken(tmp_path: Path, store: Away):
    modules, optimiser = trained(1)
    before = {name: value.clone() for name, value in modules["heads"].state_dict().items()}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(modules, optimiser, TrainState(1))
        step(modules, optimiser, 5)
        store.away = False
    loaded, other = trained(0)
    assert load_checkpoint(tmp_path, loaded, other).step == 1
    assert all(value.equal(before[name]) for name, value in loaded["heads"].state_dict().items())


def test_training_goes_on_while_the_store_is_away_and_the_newest_arrives(tmp_path: Path, store: Away, capsys):
    modules, optimiser = trained(1)
    with Checkpoints(tmp_path) as checkpoints:
        for number in (1, 2, 3):
            checkpoints.save(modules, optimiser, TrainState(number))
            seen = store.tries
            wait_until(lambda seen=seen: store.tries > seen)
        assert names(tmp_path) == []
        store.away = False
    assert names(tmp_path) == ["step-000003"]
    assert "is not saved yet, training goes on" in capsys.readouterr().err


def test_a_store_that_stays_away_ends_training_with_its_reason(tmp_path: Path, store: Away, monkeypatch):
    monkeypatch.setattr(checkpoint, "GIVE_UP_S", 0.1)
    modules, optimiser = trained(1)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(modules, optimiser, TrainState(1))
    wait_until(lambda: checkpoints._error is not None)
    with pytest.raises(RunError, match="the store does not answer"):
        checkpoints.save(modules, optimiser, TrainState(2))


def test_a_last_checkpoint_that_cannot_be_saved_is_an_error(tmp_path: Path, store: Away, monkeypatch):
    monkeypatch.setattr(checkpoint, "CLOSING_S", 0.1)
    modules, optimiser = trained(1)
    with pytest.raises(RunError, match="the store does not answer"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(modules, optimiser, TrainState(1))


def test_a_disk_that_says_no_is_not_waited_for(tmp_path: Path):
    (tmp_path / "checkpoints").write_text("no folder")
    modules, optimiser = trained(1)
    with pytest.raises(RunError, match="cannot write the checkpoint"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(modules, optimiser, TrainState(1))


def test_no_checkpoint_is_there_before_the_encoder_that_it_names(tmp_path: Path, store: Away):
    modules, optimiser = trained(1)
    encoder = Encoder("resnet18", 8, 32)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save_best(encoder, TrainState(2, 0.5, 2))
        checkpoints.save(modules, optimiser, TrainState(2, 0.5, 2))
        wait_until(lambda: store.tries > 0)
        checkpoints.save_best(encoder, TrainState(4, 0.6, 4))
        store.away = False
        wait_until(lambda: bool(names(tmp_path)))
        assert names(tmp_path)[0].startswith("best-")
        checkpoints.save(modules, optimiser, TrainState(4, 0.6, 4))
    assert names(tmp_path) == ["best-000004", "step-000004"]
    assert Checkpoints(tmp_path).best_encoder(TrainState(4, 0.6, 4)).is_file()
