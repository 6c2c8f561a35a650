"""Folders of drawn photos, and a small network to index them: of an index that grows, all but its vectors is the same with any."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from building import put
from pictures import encoded, picture
from safetensors.torch import load_file

from zsbir.base.artifact import Artifact
from zsbir.index import IndexConfig, Settings, build_index
from zsbir.model.encoder import save_encoder

DIMENSIONS = 8


class Small(torch.nn.Module):
    """A network of one layer of random numbers. seed: which ones."""

    image_px, embedding_dim = 8, DIMENSIONS

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.weight = torch.randn(3 * 8 * 8, DIMENSIONS, generator=torch.Generator().manual_seed(seed))

    def forward(self, images):
        return (torch.nn.functional.normalize(images.flatten(1).float() @ self.weight),)


def small_of(path: Path) -> Small:
    """Return the network of an encoder file that `small_run` made, in place of `Encoder.load`."""
    return Small(int(load_file(path)["seed"]))


def small_run(folder: Path, root: str, seed: int = 0, **inputs: Artifact) -> Artifact:
    """Make a run whose encoder file says what it is, and holds no more than the seed of its network."""
    facts = {"backbone": "resnet18", "embedding_dim": DIMENSIONS, "image_px": 8}
    save_encoder(folder / f"encoder-{seed}", facts, {"seed": torch.tensor(seed)})
    files = {"encoder.safetensors": (folder / f"encoder-{seed}").read_bytes()}
    return put(root, "run", f"small{seed}", files=files, inputs=inputs)


class Photos:
    """A folder of drawn photos. Times of files are coarse, so each kind of photo has its own."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, path: str, kind: int = 0) -> None:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture(24 + kind, 20)))
        os.utime(file, ns=(kind * 10**9, kind * 10**9))

    def remove(self, path: str) -> None:
        (self.path / path).unlink(missing_ok=True)

    def kinds(self) -> dict[str, int]:
        return {path.relative_to(self.path).as_posix(): path.stat().st_mtime_ns // 10**9 for path in self.path.rglob("*.png")}

    def index(self, run: Artifact, settings: Settings, **changes: object) -> Artifact:
        return build_index(run.uri, IndexConfig.of({"gallery": str(self.path), "max_bad_frac": 0.5, **changes}), settings)
