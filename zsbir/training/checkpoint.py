"""Checkpoints: artifacts under `<run>/checkpoints/`, committed by their manifest, without pickle.

`step-000500` holds everything a resumed run needs (network, heads, optimiser, history); `best-000500` the encoder alone.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zsbir.base.artifact import Artifact, draft, exists
from zsbir.base.config import digest_of
from zsbir.base.storage import write_atomic
from zsbir.model.encoder import Encoder


@dataclass
class TrainState:
    """How far a run is: optimiser steps done, the best dev score and its step, and the rows logged so far."""

    step: int = 0
    best_score: float = -1.0
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(run: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, progress: TrainState) -> None:
    """Write `step-N` and, once it is committed, remove older ones, and every best encoder but the one it names.

    Until then the encoder that the last checkpoint names stays: a run that goes on from there may not find the newer one again.
    """
    parent, name = run / "checkpoints", f"step-{progress.step:06d}"
    if exists(parent / name):
        return
    with draft(parent, "checkpoint", name) as work:
        tensors = _module_tensors(modules) | _optimiser_tensors(modules, optimiser)
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, work.file("state.safetensors"))
        write_atomic(work.file("progress.json"), json.dumps(vars(progress)).encode())
        work.commit(name, digest=digest_of([run.name, progress.step]), counts={"step": progress.step})
    _remove_older(parent, "step", progress.step)
    _remove_older(parent, "best", progress.best_step)


def load_checkpoint(run: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer) -> TrainState:
    """Put the newest whole checkpoint into the modules and the optimiser; a fresh TrainState where there is none."""
    for torn in (run / "checkpoints").glob(".writing-*"):
        shutil.rmtree(torn, ignore_errors=True)  # left by a process that was killed; nobody else writes here
    newest = newest_checkpoint(run)
    if newest is None:
        return TrainState()
    newest.verify()
    tensors = load_file(newest.file("state.safetensors"))
    for prefix, module in modules.items():
        module.load_state_dict(_strip(tensors, f"{prefix}/"))
    for name, parameter in _parameters(modules).items():
        if state := _strip(tensors, f"optimiser/{name}/"):
            # AdamW keeps its step counter on the CPU unless it is fused or captured; torch moves it where it belongs.
            optimiser.state[parameter] = {key: value if key == "step" else value.to(parameter) for key, value in state.items()}
    return TrainState(**json.loads(newest.file("progress.json").read_text("utf-8")))


def newest_checkpoint(run: Path) -> Artifact | None:
    """The newest whole checkpoint of a run that can be resumed from."""
    whole = [path for path in (run / "checkpoints").glob("step-*") if exists(path)]
    return Artifact(max(whole, key=_step_of), "checkpoint") if whole else None


def save_best(run: Path, encoder: Encoder, progress: TrainState) -> None:
    """Write the encoder as `best-N`."""
    parent, name = run / "checkpoints", f"best-{progress.best_step:06d}"
    if exists(parent / name):
        return
    with draft(parent, "checkpoint", name) as work:
        encoder.save(work.file("encoder.safetensors"))
        facts = {"score": progress.best_score}
        work.commit(name, digest=digest_of([run.name, "best", progress.best_step]), facts=facts)


def best_encoder(run: Path, progress: TrainState) -> Path:
    """The file of the best encoder so far."""
    return Artifact(run / "checkpoints" / f"best-{progress.best_step:06d}", "checkpoint").file("encoder.safetensors")


def _remove_older(parent: Path, prefix: str, step: int) -> None:
    for path in parent.glob(f"{prefix}-*"):
        if _step_of(path) < step:
            shutil.rmtree(path, ignore_errors=True)


def _step_of(path: Path) -> int:
    return int(path.name.split("-")[1])


def _module_tensors(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for prefix, module in modules.items() for name, tensor in module.state_dict().items()}


def _parameters(modules: dict[str, nn.Module]) -> dict[str, nn.Parameter]:
    return {f"{prefix}.{name}": parameter for prefix, module in modules.items() for name, parameter in module.named_parameters()}


def _optimiser_tensors(modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimiser/{name}/{key}": value
        for name, parameter in _parameters(modules).items()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
