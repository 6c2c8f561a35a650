from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from zsbir.base.artifact import Artifact, exists
from zsbir.base.draft import draft
from zsbir.base.errors import InputError, PermanentError, RunError
from zsbir.model.encoder import save_encoder
from zsbir.training import checkpoint, writer
from zsbir.training.checkpoint import BestEncoder, Checkpoints, TrainState
from zsbir.training.checkpoint_names import newest_checkpoint


class Encoder(nn.Sequential):
    """A network as small as one can be that has what an encoder has."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 4))
        self.to(memory_format=torch.channels_last)

    def facts(self) -> dict[str, object]:
        return {"backbone": "resnet18", "embedding_dim": 4, "image_px": 4}


def trained(steps: int) -> tuple[dict[str, nn.Module], torch.optim.Optimizer]:
    torch.manual_seed(0)
    modules: dict[str, nn.Module] = {"encoder": Encoder(), "heads": nn.Linear(4, 2)}
    optimiser = torch.optim.AdamW([p for module in modules.values() for p in module.parameters()], lr=0.1)
    step(modules, optimiser, steps)
    return modules, optimiser


def step(modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, steps: int) -> None:
    values = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=torch.channels_last)
    for _ in range(steps):
        optimiser.zero_grad()
        modules["heads"](modules["encoder"](values)).square().sum().backward()
        optimiser.step()


def best_of(modules: dict[str, nn.Module], at: int, score: float | None) -> BestEncoder:
    return BestEncoder.of(modules["encoder"], at, score)


def save_checkpoint(run: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, state: TrainState) -> None:
    with Checkpoints(run) as checkpoints:
        checkpoints.save(modules, optimiser, state)


def load_checkpoint(run: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer) -> TrainState:
    return Checkpoints(run).load(modules, optimiser)


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.equal(theirs[name]), name


def test_a_loaded_checkpoint_goes_on_bit_for_bit(tmp_path: Path):
    modules, optimiser = trained(3)
    save_checkpoint(tmp_path, modules, optimiser, TrainState(3, history=[{"step": 1, "loss": 2.0}]))
    step(modules, optimiser, 4)
    others, other_optimiser = trained(0)
    state = load_checkpoint(tmp_path, others, other_optimiser)
    assert state == TrainState(3, None, [{"step": 1, "loss": 2.0}])
    step(others, other_optimiser, 4)
    for name, module in modules.items():
        assert_equal(module.state_dict(), others[name].state_dict())


def test_the_optimisers_state_has_the_memory_format_of_its_parameters_also_after_a_resume(tmp_path: Path):
    """Where the two differ, torch updates element by element: AdamW took twice as long after each resume."""
    modules, optimiser = trained(3)
    save_checkpoint(tmp_path, modules, optimiser, TrainState(3))
    others, other_optimiser = trained(0)
    load_checkpoint(tmp_path, others, other_optimiser)
    for module, before in zip(others.values(), modules.values(), strict=True):
        for parameter, same in zip(module.parameters(), before.parameters(), strict=True):
            state = other_optimiser.state[parameter]
            for name, value in optimiser.state[same].items():
                assert state[name].equal(value)
                assert (state[name].stride(), state[name].dtype, state[name].device) == (value.stride(), value.dtype, value.device)
    assert others["encoder"][0].weight.is_contiguous(memory_format=torch.channels_last)


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


def test_a_checkpoint_of_other_networks_is_refused_in_one_line(tmp_path: Path):
    modules, optimiser = trained(1)
    save_checkpoint(tmp_path, modules, optimiser, TrainState(step=1))
    modules["heads"] = nn.Linear(4, 3)
    with pytest.raises(InputError, match=r"step-000001 is of other networks than this training's: heads: size mismatch") as told:
        load_checkpoint(tmp_path, modules, optimiser)
    assert "\n" not in str(told.value)
    assert "remove the checkpoint to begin anew" in str(told.value)


def test_a_fresh_run_starts_at_zero(tmp_path: Path):
    modules, optimiser = trained(0)
    assert load_checkpoint(tmp_path, modules, optimiser) == TrainState()


@pytest.mark.parametrize("score", [0.5, None])
def test_the_best_encoder_is_in_the_checkpoint_with_its_score(tmp_path: Path, score: float | None):
    modules, optimiser = trained(2)
    best = best_of(modules, 2, score)
    step(modules, optimiser, 3)
    save_checkpoint(tmp_path, modules, optimiser, TrainState(5, best))
    loaded = load_checkpoint(tmp_path, *trained(0)).best
    assert loaded is not None
    assert (loaded.step, loaded.score, loaded.facts) == (2, score, best.facts)
    assert_equal(loaded.tensors, best.tensors)
    assert not loaded.tensors["0.weight"].equal(modules["encoder"].state_dict()["0.weight"]), "it is that of step 2, not of step 5"


NUMBERS = [float("nan"), float("inf"), float("-inf")]


def spoil(modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, where: str, number: float) -> None:
    """Put one bad number somewhere into the state."""
    encoder = modules["encoder"]
    tensors = {
        "a weight": encoder[0].weight,
        "a running statistic": encoder[1].running_var,
        "a head": modules["heads"].bias,
        "the optimiser": optimiser.state[encoder[0].weight]["exp_avg_sq"],
    }
    with torch.no_grad():
        tensors[where][(-1,) * tensors[where].ndim] = number


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("where", ["a weight", "a running statistic", "a head", "the optimiser"])
def test_a_state_that_is_not_finite_replaces_no_good_one(tmp_path: Path, where: str, number: float):
    modules, optimiser = trained(2)
    save_checkpoint(tmp_path, modules, optimiser, TrainState(2, best_of(modules, 2, 0.5)))
    spoil(modules, optimiser, where, number)
    with pytest.raises(PermanentError, match=r"not finite after step 4; earlier checkpoints are kept.*lower the learning rates"):
        save_checkpoint(tmp_path, modules, optimiser, TrainState(4, best_of(modules, 2, 0.5)))
    assert names(tmp_path) == ["step-000002"]
    assert load_checkpoint(tmp_path, *trained(0)).step == 2


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
        monkeypatch.setattr(writer, "RETRY_S", (0.02,))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Away:
    return Away(monkeypatch)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("*-*"))


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
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
    assert_equal(loaded["heads"].state_dict(), before)


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


def test_a_newer_best_encoder_waiting_with_its_checkpoint_leaves_the_older_pair_whole(tmp_path: Path, store: Away):
    """The best encoder of step 4 used to replace that of step 2, while the checkpoint that waited still named step 2."""
    modules, optimiser = trained(2)
    second = best_of(modules, 2, 0.5)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(modules, optimiser, TrainState(2, second))
        wait_until(lambda: store.tries > 0)
        step(modules, optimiser, 2)
        fourth = best_of(modules, 4, 0.6)
        store.away = False
        wait_until(lambda: bool(newest_checkpoint(checkpoints.folder)))
        state = load_checkpoint(tmp_path, *trained(0))
        assert state.best is not None
        assert_equal(state.best.tensors, second.tensors)
        checkpoints.save(modules, optimiser, TrainState(4, fourth))
    state = load_checkpoint(tmp_path, *trained(0))
    assert state.best is not None
    assert (state.step, state.best.step, state.best.score) == (4, 4, 0.6)
    assert_equal(state.best.tensors, fourth.tensors)


def test_a_store_that_stays_away_ends_training_with_its_reason(tmp_path: Path, store: Away, monkeypatch):
    monkeypatch.setattr(writer, "GIVE_UP_S", 0.1)
    modules, optimiser = trained(1)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(modules, optimiser, TrainState(1))
    wait_until(lambda: checkpoints._writer._error is not None)
    with pytest.raises(RunError, match="the store does not answer"):
        checkpoints.save(modules, optimiser, TrainState(2))


def test_a_last_checkpoint_that_cannot_be_saved_is_an_error(tmp_path: Path, store: Away, monkeypatch):
    monkeypatch.setattr(writer, "CLOSING_S", 0.1)
    modules, optimiser = trained(1)
    with pytest.raises(RunError, match="the store does not answer"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(modules, optimiser, TrainState(1))


def test_a_disk_that_says_no_is_not_waited_for(tmp_path: Path):
    (tmp_path / "checkpoints").write_text("no folder")
    modules, optimiser = trained(1)
    with pytest.raises(RunError, match="cannot write the checkpoint"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(modules, optimiser, TrainState(1))


def save_as_before(
    run: Path, modules: dict[str, nn.Module], *, best_step: int, best_score: float, stored: dict[int, float]
) -> None:
    """Write checkpoints as version 0.1.0 did: the encoder of each step in `stored` apart, with the score there."""
    for number, score in stored.items():
        uri = run / "checkpoints" / f"best-{number:06d}"
        with draft(uri, "checkpoint", uri.name) as work:
            save_encoder(work.file("encoder.safetensors"), modules["encoder"].facts(), modules["encoder"].state_dict())
            work.commit(digest=f"best{number}", facts={"score": score})
    uri = run / "checkpoints" / "step-000005"
    with draft(uri, "checkpoint", uri.name) as work:
        tensors = {f"{part}/{name}": value for part, module in modules.items() for name, value in module.state_dict().items()}
        save_file({name: value.contiguous() for name, value in tensors.items()}, work.file("state.safetensors"))
        values = {"step": 5, "best_score": best_score, "best_step": best_step, "history": [{"step": 1.0}]}
        work.file("progress.json").write_text(json.dumps(values))
        work.commit(digest="step5", counts={"step": 5})


def test_a_checkpoint_of_version_0_1_0_is_resumed_and_its_best_encoder_moves_into_the_next(tmp_path: Path):
    modules, optimiser = trained(2)
    save_as_before(tmp_path, modules, best_step=4, best_score=0.5, stored={4: 0.5})
    state = load_checkpoint(tmp_path, *trained(0))
    assert (state.step, state.history) == (5, [{"step": 1.0}])
    assert state.best is not None
    assert (state.best.step, state.best.score) == (4, 0.5)
    assert_equal(state.best.tensors, modules["encoder"].state_dict())
    save_checkpoint(tmp_path, modules, optimiser, TrainState(8, state.best))
    assert names(tmp_path) == ["step-000008"]
    assert load_checkpoint(tmp_path, *trained(0)).best.step == 4


def test_the_score_stored_beside_an_encoder_of_version_0_1_0_counts_not_that_of_another_process(tmp_path: Path):
    modules, _ = trained(2)
    save_as_before(tmp_path, modules, best_step=4, best_score=0.9, stored={4: 0.5})
    assert load_checkpoint(tmp_path, *trained(0)).best.score == 0.5
    save_as_before(other := tmp_path / "unscored", modules, best_step=4, best_score=-1.0, stored={4: -1.0})
    assert load_checkpoint(other, *trained(0)).best.score is None


def test_a_run_whose_best_encoder_version_0_1_0_lost_is_resumed_without_one(tmp_path: Path, capsys):
    """Every further attempt used to end in "no checkpoint at .../best-000004"."""
    modules, _ = trained(2)
    save_as_before(tmp_path, modules, best_step=4, best_score=0.5, stored={6: 0.6})
    state = load_checkpoint(tmp_path, *trained(0))
    assert state == TrainState(5, None, [{"step": 1.0}])
    assert "of step 4, was never saved; from here on the best one is chosen anew" in capsys.readouterr().err


def test_a_diverged_checkpoint_of_version_0_1_0_is_refused_with_the_way_out(tmp_path: Path):
    modules, _ = trained(2)
    with torch.no_grad():
        modules["encoder"][0].weight.fill_(float("nan"))
    save_as_before(tmp_path, modules, best_step=0, best_score=-1, stored={})
    with pytest.raises(InputError, match=r"step-000005 is of a training that had diverged.*remove it, and lower"):
        load_checkpoint(tmp_path, *trained(0))


def test_what_is_removed_is_older_than_what_was_committed(tmp_path: Path):
    modules, optimiser = trained(1)
    for name in ("step-000003/state.safetensors", "step-000009/state.safetensors", "best-000003/encoder.safetensors", "notes/a"):
        file = tmp_path / "checkpoints" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"of a killed process")
    save_checkpoint(tmp_path, modules, optimiser, TrainState(5))
    found = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert found == ["notes", "step-000005", "step-000009"]
    assert exists(tmp_path / "checkpoints" / "step-000005")
    save_checkpoint(tmp_path, modules, optimiser, TrainState(9))
    Artifact(tmp_path / "checkpoints" / "step-000009", "checkpoint").verify()


def test_the_last_checkpoint_of_version_0_1_0_keeps_its_best_encoder_when_its_step_is_saved_again(tmp_path: Path):
    modules, optimiser = trained(2)
    save_as_before(tmp_path, modules, best_step=4, best_score=0.5, stored={4: 0.5})
    state = load_checkpoint(tmp_path, *trained(0))
    save_checkpoint(tmp_path, modules, optimiser, state)
    assert names(tmp_path) == ["best-000004", "step-000005"]
    assert load_checkpoint(tmp_path, *trained(0)).best.step == 4
