"""Folders of photos, and indexes of them by a small network."""

from __future__ import annotations

import pytest
from index_photos import DIMENSIONS, Photos, small_of, small_run

from zsbir.base.artifact import Artifact
from zsbir.data.index_files import IndexFiles
from zsbir.index import Settings
from zsbir.index_run import embedding


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else each index waits a fifth of a second to see how many cores are free
    monkeypatch.setattr(embedding.Encoder, "load", small_of)


@pytest.fixture(scope="module")
def run(module_path):
    return small_run(module_path, str(module_path / "root"))


@pytest.fixture(scope="module")
def other_run(module_path):
    """A run whose network gives other vectors."""
    return small_run(module_path, str(module_path / "root"), 1)


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
