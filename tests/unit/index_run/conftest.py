"""Folders of photos, and indexes of them by a small network."""

from __future__ import annotations

import pytest
import torch
from building import put
from index_photos import DIMENSIONS, Photos, Small

from zsbir.base.artifact import Artifact
from zsbir.data.index_files import IndexFiles
from zsbir.index import Settings
from zsbir.index_run import embedding
from zsbir.model.encoder import save_encoder


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else each index waits a fifth of a second to see how many cores are free
    monkeypatch.setattr(embedding.Encoder, "load", lambda _: Small())


@pytest.fixture(scope="module")
def run(module_path):
    """A run whose encoder file says what it is, and is small."""
    facts = {"backbone": "resnet18", "embedding_dim": DIMENSIONS, "image_px": 8}
    save_encoder(module_path / "encoder", facts, {"nothing": torch.zeros(1)})
    return put(str(module_path / "root"), "run", files={"encoder.safetensors": (module_path / "encoder").read_bytes()})


@pytest.fixture
def root(tmp_path):
    """Where indexes are made."""
    return Settings(root=str(tmp_path / "root"))


@pytest.fixture
def photos(tmp_path):
    """A folder of six photos."""
    found = Photos(tmp_path / "photos")
    for number, path in enumerate(["a/0.png", "a/1.png", "ab/2.png", "b/3.png", "b/4.png", "5.png"]):
        found.write(path, number)
    return found


@pytest.fixture
def contents():
    """A function from an index to what it holds of each photo by path: vector, thumbnail, class, metadata."""

    def of(index: Artifact) -> dict[str, tuple]:
        files = IndexFiles(index, DIMENSIONS)
        vectors, rows = files.living()
        assert len(rows) == files.photos == index.manifest.counts["photos"]
        found = {
            files.paths[row].as_py(): (
                vector.tobytes(),
                files.thumbnail(row),
                files.class_names[row].as_py(),
                {name: column[row].as_py() for name, column in files.columns.items()},
            )
            for vector, row in zip(vectors, rows.tolist(), strict=True)
        }
        assert len(found) == len(rows), "no path twice"
        return found

    return of
