"""Checkpoints: artifacts under `<run>/checkpoints/`, committed by their manifest, without pickle, written while training goes on.

`step-000500` holds everything that a resumed run needs: network, heads, optimiser, history, and the best encoder so far with its
score. So one commit decides all of it: there is no moment at which a checkpoint names an encoder that is not there, or a score of
another one. Older checkpoints are removed once a newer one is committed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zsbir.base import events
from zsbir.base.artifact import Artifact, exists
from zsbir.base.config import digest_of
from zsbir.base.draft import Draft, draft, remove
from zsbir.base.errors import InputError, Interrupted, RunError
from zsbir.base.files import write_atomic
from zsbir.base.layout import checkpoints_uri
from zsbir.base.storage import folder_name, is_remote, join, open_folder
from zsbir.base.text import clean
from zsbir.model.encoder import Encoder, save_encoder, stated_facts
from zsbir.training.checkpoint_names import newest_checkpoint, numbered
from zsbir.training.failures import diverged
from zsbir.training.gather import from_first
from zsbir.training.writer import Snapshot, SnapshotWriter

STATE, PROGRESS, BEST = "state.safetensors", "progress.json", "best_encoder.safetensors"
"""Files of a checkpoint; BEST is there once an encoder has been judged."""

NO_SCORE = -1.0
"""Stands in a checkpoint for the score of an encoder that no dev class could judge."""


@dataclass(frozen=True)
class BestEncoder:
    """The best encoder so far, in memory: what it was after a step, and the dev score that it had then (None: not scored)."""

    step: int
    score: float | None
    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def of(cls, encoder: Encoder, step: int, score: float | None) -> Self:
        """Return a copy of the encoder, which training does not change."""
        return cls(step, score, encoder.facts(), _copied(encoder.state_dict()))

    def save(self, path: Path) -> None:
        """Write one file from which `Encoder.load` makes the encoder."""
        save_encoder(path, self.facts, self.tensors)

    def encoder(self) -> Encoder:
        """Return the encoder itself, on the CPU."""
        encoder = Encoder(**self.facts)
        encoder.load_state_dict(self.tensors)
        return encoder.to(memory_format=torch.channels_last)


@dataclass
class TrainState:
    """Progress of a run: optimiser steps done, the best encoder so far, and the rows logged so far."""

    step: int = 0
    best: BestEncoder | None = None
    history: list[dict[str, float]] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of one run. One process saves; all load. As a context manager it waits at its end for pending writes.

    made_from: what the run reads, by role, as manifests name it.
    """

    def __init__(self, run: str | Path, made_from: Mapping[str, Any] | None = None):
        self._made_from = made_from
        self.folder = open_folder(checkpoints_uri(str(run)))
        self._run = folder_name(open_folder(run).uri)
        self._writer = SnapshotWriter(patient=is_remote(self.folder.uri))

    def save(self, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, progress: TrainState) -> None:
        """Write `step-N` soon and, once it is committed, remove older checkpoints.

        Raises PermanentError where the state holds numbers that are not finite: then nothing is written and nothing removed. Raises
        the error that kept an earlier checkpoint from being written for too long.
        """
        tensors = _copied(_module_tensors(modules) | _optimiser_tensors(modules, optimiser))
        if name := _not_finite(tensors):
            raise diverged(f"{name} is not finite after step {progress.step}")
        step, best, text = progress.step, progress.best, _progress_text(progress)

        def fill(work: Draft) -> None:
            save_file(tensors, work.file(STATE))
            if best:
                best.save(work.file(BEST))
            write_atomic(work.file(PROGRESS), text)

        def write() -> None:
            uri = join(self.folder.uri, f"step-{step:06d}")
            if not exists(uri):  # the last step is often one that was due anyway
                with draft(uri, "checkpoint", folder_name(uri), quiet=True) as work:
                    fill(work)
                    work.commit(digest=digest_of([self._run, step]), inputs=self._made_from, counts={"step": step})
            self._remove_superseded(step, holds_best=best is None or BEST in Artifact(uri).manifest.files)

        self._writer.put(Snapshot(step, write))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Wait for pending writes; an error of theirs does not replace one that is being raised already."""
        if kind is None or issubclass(kind, Interrupted):
            self._writer.wait()
        elif issubclass(kind, RunError):
            with suppress(Exception):
                self._writer.wait()

    def load(self, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer) -> TrainState:
        """Load the newest complete checkpoint into the modules and the optimiser; a fresh TrainState where there is none.

        Every worker loads the same one, which the first worker chooses. Raises InputError when it is damaged or not finite.
        """
        newest = newest_checkpoint(self.folder)
        uri = from_first(newest.uri if newest else "", next(modules["encoder"].parameters()).device)
        if not uri:
            return TrainState()
        checkpoint = Artifact(uri, "checkpoint")
        checkpoint.verify()
        tensors = load_file(checkpoint.file(STATE))
        if name := _not_finite(tensors):  # version 0.1.0 saved such states
            raise InputError(
                f"{uri} is of a training that had diverged: {name} is not finite; remove it, and lower the learning rates"
            )
        for prefix, module in modules.items():
            _restore(module, _strip(tensors, f"{prefix}/"), f"{uri} is of other networks than this training's: {prefix}")
        for name, parameter in _parameters(modules).items():
            if state := _strip(tensors, f"optimiser/{name}/"):
                optimiser.state[parameter] = {key: _placed(key, value, parameter) for key, value in state.items()}
        values = json.loads(checkpoint.file(PROGRESS).read_text("utf-8"))
        return TrainState(values["step"], self._load_best(checkpoint, values), values["history"])

    def _load_best(self, checkpoint: Artifact, values: Mapping[str, Any]) -> BestEncoder | None:
        if not values["best_step"]:
            return None
        if BEST not in checkpoint.manifest.files:
            return self._load_separate_best(values["best_step"])
        file = checkpoint.file(BEST)
        return _open_best(values["best_step"], values["best_score"], file)

    def _load_separate_best(self, step: int) -> BestEncoder | None:
        """Return the best encoder that a checkpoint of version 0.1.0 names, with the score stored beside it; None where it is gone.

        That version wrote it as an artifact of its own, `best-N`. The encoder there and the score in the checkpoint could be those
        of two processes, and the encoder could be missing.
        """
        uri = join(self.folder.uri, f"best-{step:06d}")
        if not exists(uri):
            events.warn(f"the best encoder so far, of step {step}, was never saved; from here on the best one is chosen anew")
            return None
        best = Artifact(uri, "checkpoint")
        return _open_best(step, best.manifest.facts["score"], best.verified("encoder.safetensors"))

    def _remove_superseded(self, step: int, *, holds_best: bool) -> None:
        """Remove checkpoints before a committed one, what killed processes began of them, and the `best-N` of version 0.1.0.

        holds_best: whether the committed one holds the best encoder. One that version 0.1.0 made does not, and needs its `best-N`.
        """
        names = self.folder.names()
        superseded = {name for name, number in numbered(names, "step").items() if number < step}
        superseded |= numbered(names, "best").keys() if holds_best else set()
        for name in sorted(superseded):
            with suppress(OSError, InputError, RunError):  # it only takes space; the next save tries again
                remove(join(self.folder.uri, name))


def _progress_text(progress: TrainState) -> bytes:
    best = progress.best
    score = NO_SCORE if best is None or best.score is None else best.score
    values = {"step": progress.step, "best_score": score, "best_step": best.step if best else 0, "history": progress.history}
    return json.dumps(values).encode()


def _open_best(step: int, score: float, file: Path) -> BestEncoder:
    return BestEncoder(step, None if score == NO_SCORE else score, stated_facts(file), load_file(file))


def _restore(module: nn.Module, state: dict[str, Any], what: str) -> None:
    """Load a state into a module. Raises InputError, which begins with `what`, where the state is that of another one."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = clean(str(error).strip().splitlines()[-1].strip())
        raise InputError(
            f"{what}: {reason}; where the code of a package was changed without a new version, remove the checkpoint to begin anew"
        ) from None


def _placed(key: str, value: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a part of the optimiser's state on its parameter's device and in its memory format, without which updates are slow."""
    if key == "step" or value.shape != parameter.shape:
        return value  # AdamW keeps its step counter on the CPU unless it is fused or captured; torch moves it where it belongs
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with a number that is infinite or not a number."""
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, so that training does not change them."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


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
