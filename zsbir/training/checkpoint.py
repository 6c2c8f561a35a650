"""Checkpoints: artifacts under `<run>/checkpoints/`, committed by their manifest, without pickle, written while training goes on.

`step-000500` holds everything a resumed run needs (network, heads, optimiser, history); `best-000500` the encoder alone. `save`
takes a snapshot and returns; a thread writes and uploads it. A snapshot that still waits when the next is due is dropped.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zsbir.base import events
from zsbir.base.artifact import Artifact, draft, exists, remove
from zsbir.base.config import digest_of
from zsbir.base.errors import InputError, Interrupted, RunError
from zsbir.base.files import write_atomic
from zsbir.base.layout import checkpoints_uri
from zsbir.base.storage import Folder, is_remote, join, open_folder
from zsbir.model.encoder import Encoder, save_encoder
from zsbir.training.gather import from_first

RETRY_S = (5.0, 15.0, 60.0)
"""Seconds between attempts to save while a store is unavailable; the last one repeats."""

GIVE_UP_S = 900.0
"""Seconds that a due checkpoint may stay unsaved before training ends."""

CLOSING_S = 120.0
"""The same once training has ended and only the last checkpoint is waited for."""


@dataclass
class TrainState:
    """Progress of a run: optimiser steps done, the best dev score and its step, and the rows logged so far."""

    step: int = 0
    best_score: float = -1.0
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Snapshot:
    """The state of one moment, and a function that writes it."""

    step: int
    write: Callable[[], None]


class Checkpoints:
    """The checkpoints of one run. One process saves; all load. As a context manager it waits at its end for pending writes.

    made_from: what the run reads, by role, as manifests name it.
    """

    def __init__(self, run: str | Path, made_from: Mapping[str, Any] | None = None):
        self._made_from = made_from
        self.folder = open_folder(checkpoints_uri(str(run)))
        self._run = open_folder(run).uri.rpartition("/")[2]
        self._best: _Snapshot | None = None
        self._step: _Snapshot | None = None
        self._changed = threading.Condition()
        self._writing, self._closing = False, False
        self._failed_since: float | None = None
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def save(self, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, progress: TrainState) -> None:
        """Write `step-N` soon and, once it is committed, remove older ones, and every best encoder but the one it names.

        Until then the encoder that the last checkpoint names stays, since a run that resumes from there may not reach the newer
        one again. Raises the error that kept earlier checkpoints from being written for too long.
        """
        tensors = _copied(_module_tensors(modules) | _optimiser_tensors(modules, optimiser))
        state = json.dumps(asdict(progress)).encode()
        step, best_step, made_from = progress.step, progress.best_step, self._made_from

        def write() -> None:
            if not exists(join(self.folder.uri, f"step-{step:06d}")):  # the last step is often one that was due anyway
                with draft(join(self.folder.uri, f"step-{step:06d}"), "checkpoint", f"step-{step:06d}", quiet=True) as work:
                    save_file(tensors, work.file("state.safetensors"))
                    write_atomic(work.file("progress.json"), state)
                    work.commit(digest=digest_of([self._run, step]), inputs=made_from, counts={"step": step})
            self._remove_older("step", step)
            self._remove_older("best", best_step)

        self._put("_step", _Snapshot(step, write))

    def save_best(self, encoder: Encoder, progress: TrainState) -> None:
        """Write the encoder as `best-N` soon, before any later checkpoint."""
        facts, tensors = encoder.facts(), _copied(encoder.state_dict())
        step, score, made_from = progress.best_step, progress.best_score, self._made_from

        def write() -> None:
            with draft(join(self.folder.uri, f"best-{step:06d}"), "checkpoint", f"best-{step:06d}", quiet=True) as work:
                save_encoder(work.file("encoder.safetensors"), facts, tensors)
                work.commit(digest=digest_of([self._run, "best", step]), inputs=made_from, facts={"score": score})

        self._put("_best", _Snapshot(step, write))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Wait for pending writes; an error of theirs does not replace one that is being raised already."""
        if kind is None or issubclass(kind, Interrupted):
            self.wait()
        elif issubclass(kind, RunError):
            with suppress(Exception):
                self.wait()

    def wait(self) -> None:
        """Wait until all pending writes are done. Raises RunError or InputError when they cannot be."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while (self._step or self._best or self._writing) and self._error is None:
                self._changed.wait()
            self._closing = False
        self._raise()

    def load(self, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer) -> TrainState:
        """Load the newest complete checkpoint into the modules and the optimiser; a fresh TrainState where there is none.

        Every worker loads the same one, which the first worker chooses.
        """
        newest = newest_checkpoint(self.folder)
        uri = from_first(newest.uri if newest else "", next(modules["encoder"].parameters()).device)
        if not uri:
            return TrainState()
        checkpoint = Artifact(uri, "checkpoint")
        checkpoint.verify()
        tensors = load_file(checkpoint.file("state.safetensors"))
        for prefix, module in modules.items():
            module.load_state_dict(_strip(tensors, f"{prefix}/"))
        for name, parameter in _parameters(modules).items():
            if state := _strip(tensors, f"optimiser/{name}/"):
                # AdamW keeps its step counter on the CPU unless it is fused or captured; torch moves it where it belongs.
                optimiser.state[parameter] = {key: value if key == "step" else value.to(parameter) for key, value in state.items()}
        return TrainState(**json.loads(checkpoint.file("progress.json").read_text("utf-8")))

    def best_encoder(self, progress: TrainState) -> Path:
        """Return the file of the best encoder so far."""
        return Artifact(join(self.folder.uri, f"best-{progress.best_step:06d}"), "checkpoint").verified("encoder.safetensors")

    def _put(self, slot: str, snapshot: _Snapshot) -> None:
        self._raise()
        with self._changed:
            setattr(self, slot, snapshot)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="checkpoints")
                self._thread.start()
            self._changed.notify_all()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        """Write snapshots as they come: the best encoder first, then the checkpoint that names it. Runs in the thread."""
        while self._error is None:
            with self._changed:
                while not (self._best or self._step):
                    self._changed.wait()
                taken = [snapshot for snapshot in (self._best, self._step) if snapshot]
                slots = [name for name in ("_best", "_step") if getattr(self, name)]
                self._best = self._step = None
                self._writing = True
            # A checkpoint is not written before the encoder that it names.
            all(self._write(slot, snapshot) for slot, snapshot in zip(slots, taken, strict=True))
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _write(self, slot: str, snapshot: _Snapshot) -> bool:
        """Write a snapshot, again and again if need be. Return False when it was given up or a newer one replaced it."""
        for number in range(10**6):
            try:
                snapshot.write()
            except Exception as error:  # noqa: BLE001 - every error must reach the trainer; the thread would lose it
                if self._give_up(error):
                    return False
                events.warn(f"checkpoint of step {snapshot.step} is not saved yet, training goes on: {error}")
                with self._changed:
                    pause_s = RETRY_S[min(number, len(RETRY_S) - 1)]
                    if self._changed.wait_for(lambda: getattr(self, slot) is not None, timeout=pause_s):
                        return False
            else:
                self._failed_since = None
                return True
        raise AssertionError("unreachable")

    def _give_up(self, error: Exception) -> bool:
        """Return whether to stop trying: errors of a disk are final, a store may come back."""
        self._failed_since = self._failed_since or time.monotonic()
        patience_s = CLOSING_S if self._closing else GIVE_UP_S
        known = isinstance(error, RunError | InputError) and is_remote(self.folder.uri)
        if known and time.monotonic() - self._failed_since < patience_s:
            return False
        with self._changed:
            self._error = error
            self._changed.notify_all()
        return True

    def _remove_older(self, prefix: str, step: int) -> None:
        """Remove older checkpoints, and what killed processes began and never committed."""
        for name, number in _numbered(self.folder, prefix).items():
            if number < step:
                with suppress(OSError, InputError, RunError):  # it only takes space; the next save tries again
                    remove(join(self.folder.uri, name))


def newest_checkpoint(folder: Folder) -> Artifact | None:
    """Return the newest complete checkpoint in a run's `checkpoints` that can be resumed from."""
    numbers = _numbered(folder, "step")
    steps = sorted(numbers, key=lambda name: numbers[name], reverse=True)
    whole = next((uri for name in steps if exists(uri := join(folder.uri, name))), None)
    return Artifact(whole, "checkpoint") if whole else None


def _numbered(folder: Folder, prefix: str) -> dict[str, int]:
    """Return the folders named like "step-000500" and their numbers; others are ignored."""
    found = {name: re.fullmatch(rf"{prefix}-(\d+)", name) for name in folder.names()}
    return {name: int(match[1]) for name, match in found.items() if match}


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
