"""Folders of drawn photos, and a small network to index them: of an index that grows, all but its vectors is the same with any."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from pictures import encoded, picture

from zsbir.base.artifact import Artifact
from zsbir.index import IndexConfig, Settings, build_index

DIMENSIONS = 8


class Small(torch.nn.Module):
    """A network of one layer."""

    image_px, embedding_dim = 8, DIMENSIONS

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(3 * 8 * 8, DIMENSIONS, generator=torch.Generator().manual_seed(0))

    def forward(self, images):
        return (torch.nn.functional.normalize(images.flatten(1).float() @ self.weight),)


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
