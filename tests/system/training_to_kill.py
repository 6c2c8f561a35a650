"""Real trainings in real processes that are really killed, a fraction of a second each: for tests of what a kill leaves behind.

As a program, given a path for a weight file that it makes, it reads orders as lines of JSON and answers each with a line.
Libraries are loaded once; each order runs in a process of its own, forked from this one. Three things differ from life: the network
is a single convolution under the name of a ResNet18, the picture of the curves is empty, and the store's writes are slow, so that
training runs ahead of its checkpoints.

Orders: {"do": "train", ...} runs `zsbir.train`, which a SIGKILL may end; {"do": "judge", ...} measures what a run folder holds.
"""

from __future__ import annotations

import functools
import gc
import json
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zsbir.base.artifact import Artifact
from zsbir.base.disk import DiskFolder
from zsbir.base.s3 import S3Folder
from zsbir.base.storage import open_folder
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.model.weights import open_weights
from zsbir.recipes import recipe
from zsbir.train import InputUris, Settings, train
from zsbir.training.checkpoint_names import newest_checkpoint
from zsbir.training.context import LocalContext
from zsbir.training.inputs import TrainInputs
from zsbir.training.loop import DEV_SCORE, Trainer
from zsbir.training_run import worker

STEPS = 9
CONFIG = recipe("toy").replace(
    steps=STEPS,
    image_px=16,
    embedding_dim=4,
    classes_per_batch=3,
    per_class=2,
    weight_preservation=0,
    eval_every_steps=2,
    checkpoint_every_steps=3,
    log_every_steps=1,
    lr=0.05,
    lr_backbone=0.05,
    precision="fp32",
)
WRITES = ("create", "replace", "publish", "delete", "clear", "workspace")
"""The methods of a folder that change what is stored."""


class TinyTrunk(nn.Module):
    """Stands where torchvision's ResNet18 does."""

    def __init__(self, labels: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4)
        self.fc: nn.Module = nn.Linear(4, labels)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.bn1(self.conv1(images)).relu().mean(dim=(2, 3)))


worker.training_curves = lambda _history, *, title: Figure(figsize=(1, 1))
torchvision.models.get_model = lambda _name, *, weights=None, num_classes=1000: TinyTrunk(num_classes)


class Shared:
    """Whole numbers that a process leaves to its parent, also when it is killed."""

    NAMES = ("writes", "first_step", "last_step")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * len(self.NAMES))

    def set(self, name: str, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * self.NAMES.index(name), value)

    def get(self, name: str) -> int:
        return int(struct.unpack_from("q", self._memory, 8 * self.NAMES.index(name))[0])


def slow_down(shared: Shared, *, slow_s: float, kill_at: int) -> None:
    """Delay every change of what is stored, and kill this process at the one with that number, before it is made."""

    def wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*words: Any, **more: Any) -> Any:
            shared.set("writes", number := shared.get("writes") + 1)
            if number == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(slow_s)
            return method(*words, **more)

        return call

    for folder in (DiskFolder, S3Folder):
        for name in WRITES:
            setattr(folder, name, wrapped(getattr(folder, name)))


def follow_steps(shared: Shared, *, noise: float, spoil_at: int) -> None:
    """Count steps. noise: standard deviation of what is added to every weight after each, another in each process, as on a GPU.

    spoil_at: number of the step after which a weight is not a number.
    """
    random, real = np.random.default_rng(), Trainer._step

    def step(trainer: Trainer, batch: Any, number: int) -> dict[str, Tensor]:
        if shared.get("first_step") < 0:
            shared.set("first_step", number)
        figures = real(trainer, batch, number)
        with torch.no_grad():
            for parameter in trainer.encoder.parameters():
                parameter.add_(torch.from_numpy(random.normal(0, noise, tuple(parameter.shape)).astype(np.float32)))
        if number + 1 == spoil_at:
            trainer.encoder.embedding.weight.data[0, 0] = float("nan")
        shared.set("last_step", number + 1)
        return figures

    Trainer._step = step  # type: ignore[method-assign]


def run_training(order: dict[str, Any], shared: Shared) -> dict[str, Any]:
    """Train to the end; the address of the run."""
    slow_down(shared, slow_s=order["slow_s"], kill_at=order.get("kill_at", 0))
    follow_steps(shared, noise=order["noise"], spoil_at=order.get("spoil_at", 0))
    settings = Settings(root=order["root"], tracking=False, decode_threads=1)
    return {"run": train(CONFIG, InputUris(dataset=order["dataset"], weights=order["weights"]), settings).uri}


def judge(order: dict[str, Any], _shared: Shared) -> dict[str, Any]:
    """Say what is stored of a run, its newest checkpoint and its signed artifact, and what the encoders in both really score."""
    folder = open_folder(order["root"]).sub("runs")
    found: dict[str, Any] = {"checkpoint": None, "signed": None, "all_steps": STEPS, "others": []}
    for name in folder.names():
        run = folder.sub(name)
        if newest := newest_checkpoint(run.sub("checkpoints")):
            newest.verify()
            values = json.loads(newest.file("progress.json").read_text())
            found["checkpoint"] = {"step": values["step"], "best_step": values["best_step"]} | best_in_history(values["history"])
            if values["best_step"]:
                scored = true_score(newest.file("best_encoder.safetensors"), order)
                found["checkpoint"] |= {"score": values["best_score"], "true_score": scored}
        others = set(run.sub("checkpoints").names()) - {newest.folder_name if newest else ""}
        found["others"] = sorted(name for name in others if not name.startswith("."))  # those are marks of killed writers
        if run.size("manifest.json") is not None:
            signed = Artifact(run.uri, "run")
            signed.verify()
            scored = true_score(signed.file("encoder.safetensors"), order)
            counts, facts = signed.manifest.counts, signed.manifest.facts
            found["signed"] = {"step": counts["steps"], "best_step": counts["best_step"]}
            found["signed"] |= {"score": facts["best_dev_map_all"], "true_score": scored}
    return found


def best_in_history(history: list[dict[str, float]]) -> dict[str, Any]:
    scores = {row["step"]: row[DEV_SCORE] for row in history if DEV_SCORE in row}
    best = max(scores, key=lambda step: scores[step], default=None)
    return {} if best is None else {"history_step": best, "history_score": scores[best]}


def true_score(encoder: Path, order: dict[str, Any]) -> float | None:
    """Score an encoder on the dev classes as a training does."""
    dataset = Artifact(order["dataset"], "dataset")
    samples = load_samples(dataset)
    inputs = TrainInputs(samples, Images(dataset, samples), open_weights(order["weights"], backbone="resnet18"))
    context = LocalContext(torch.device("cpu"))
    trainer = Trainer(CONFIG, inputs, context, "unused", log=lambda _step, _metrics: None, threads=1)
    trainer.encoder.load_state_dict(load_file(encoder))
    return trainer.dev_score()


@contextmanager
def forked(
    work: Callable[[dict[str, Any], Shared], dict[str, Any]], order: dict[str, Any], shared: Shared
) -> Iterator[tuple[int, int]]:
    """Run `work` in a process of its own; yield its id and the end of a pipe that carries its answer."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read)
            os.write(write, json.dumps(work(order, shared)).encode())
            code = 0
        except BaseException:  # noqa: BLE001 - the parent must hear of everything
            os.write(write, json.dumps({"error": traceback.format_exc()[-3000:]}).encode())
        finally:
            os._exit(code)
    os.close(write)
    try:
        yield pid, read
    finally:
        os.close(read)


def obey(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out an order in a process of its own; kill it after `kill_after_s` seconds where the order says so."""
    work = {"train": run_training, "judge": judge}[order["do"]]
    shared = Shared()
    shared.set("first_step", -1)
    began = time.monotonic()
    with forked(work, order, shared) as (pid, pipe):
        if order.get("kill_after_s") is not None:
            time.sleep(order["kill_after_s"])
            os.kill(pid, signal.SIGKILL)  # it is not reaped yet, so the id is still its own
        answer = b""
        while part := os.read(pipe, 65536):
            answer += part
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    numbers = {name: shared.get(name) for name in Shared.NAMES}
    return numbers | {"code": code, "seconds": time.monotonic() - began} | json.loads(answer or b"{}")


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    save_file(TinyTrunk(10).state_dict(), sys.argv[1])
    gc.freeze()  # what was loaded is not searched again and again by every process
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
