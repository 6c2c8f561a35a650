"""Indexes that grow, with a small encoder that nobody trained and drawn photos."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from building import put
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pictures import encoded, picture

from zsbir.data.index_files import IndexFiles
from zsbir.index import GrowthConfig, IndexConfig, Settings, add_photos, build_index, compact_index, delete_photos, update_index
from zsbir.index_run import embedding
from zsbir.model.encoder import save_encoder

DIMENSIONS = 8
PATHS = [f"{folder}/{number}.png" for folder in ("a", "b", "c/d") for number in range(3)]


class Small(torch.nn.Module):
    """A network of one layer: of an index that grows, all but its vectors is the same with any encoder."""

    image_px, embedding_dim = 8, DIMENSIONS

    def __init__(self):
        super().__init__()
        self.weight = torch.randn(3 * 8 * 8, DIMENSIONS, generator=torch.Generator().manual_seed(0))

    def forward(self, images):
        return (torch.nn.functional.normalize(images.flatten(1).float() @ self.weight),)


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch):
    monkeypatch.setattr(embedding.Encoder, "load", lambda _: Small())


@pytest.fixture(scope="module")
def run(module_path):
    """A run whose encoder file says what it is, and is small."""
    facts = {"backbone": "resnet18", "embedding_dim": DIMENSIONS, "image_px": 8}
    save_encoder(module_path / "encoder", facts, {"nothing": torch.zeros(1)})
    return put(str(module_path / "root"), "run", files={"encoder.safetensors": (module_path / "encoder").read_bytes()})


@pytest.fixture
def root(tmp_path):
    return Settings(root=str(tmp_path / "root"))


def write(folder, path, kind=0):
    """Draw the photo of that kind at a path, with a time of its own: times of files are coarse."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded(photo(kind)))
    os.utime(file, ns=(kind * 10**9, kind * 10**9))


def photo(kind):
    return picture(24 + kind, 20)


def built(run, folder, root, **changes):
    return build_index(run.uri, IndexConfig.of({"gallery": str(folder), "max_bad_frac": 0.5, **changes}), root)


def opened(index):
    return IndexFiles(index, DIMENSIONS)


def contents(index):
    """What an index holds of each photo by path: vector, thumbnail, class, metadata. No path twice."""
    files = opened(index)
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
    assert len(found) == len(rows)
    return found


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "update", "delete", "compact"]),
        st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from([0, 1, 2, None])), max_size=4),
    ),
    min_size=1,
    max_size=5,
)
"""What happens to an index: a command, and before it, photos that are written (0 to 2: which) or removed (None)."""


@settings(max_examples=12, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(CHANGES)
def test_any_sequence_of_changes_ends_in_the_index_that_a_fresh_build_makes(run, tmp_path_factory, changes):
    place = tmp_path_factory.mktemp("photos")
    folder, root = place / "photos", Settings(root=str(place / "root"))
    write(folder, "kept.png", 3)
    index = built(run, folder, root)
    indexed = {"kept.png": 3}
    for command, writes in changes:
        for path, kind in writes:
            if kind is None:
                (folder / path).unlink(missing_ok=True)
            else:
                write(folder, path, kind)
        now = {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns // 10**9 for path in folder.rglob("*.png")}
        if command == "add":
            index, indexed = add_photos(index.uri, str(folder), GrowthConfig(), root), {**indexed, **now}
        elif command == "update":
            index, indexed = update_index(index.uri, "", GrowthConfig(), root), now
        elif command == "delete" and (named := sorted({path for path, _ in writes} & indexed.keys())):
            index = delete_photos(index.uri, named, root)
            indexed = {path: kind for path, kind in indexed.items() if path not in named}
        elif command == "compact":
            index = compact_index(index.uri, root)
    fresh = place / "fresh"
    for path, kind in indexed.items():
        write(fresh, path, kind)
    assert contents(index) == contents(built(run, fresh, root))
    assert contents(compact_index(index.uri, root)) == contents(index)
    assert index.manifest.counts.get("segments", 1) <= np.log2(len(indexed)) + 2
