"""Links of a graph that strangers make: faiss gets none that leads anywhere, and what it finds is scored by the vectors."""

from __future__ import annotations

import random

import numpy as np
import pytest
from fuzz.fuzzing import LENGTHS, NUMBERS, changed, fuzz, head_changed
from safetensors.numpy import load, save

from zsbir.base.errors import InputError
from zsbir.retrieval import exact
from zsbir.retrieval.graph import Graph
from zsbir.retrieval.scan import Scan

ROWS, DIMENSIONS, K = 300, 6, 5
HARMLESS = [-1, 0, 1, 8, ROWS - 1]


@pytest.fixture(scope="module")
def gallery():
    return np.random.default_rng(0).standard_normal((ROWS, DIMENSIONS)).astype(np.float32)


def links_changed(examples: list[bytes], seed: int) -> bytes:
    """Return an example in which some numbers of its arrays are others, most of them possible, or an array has another length."""
    rng = random.Random(seed)
    if rng.random() < 0.2:
        return rng.choice([changed, head_changed])(examples, seed)
    arrays = load(rng.choice(examples))
    for _ in range(rng.choice([1, 3, 100])):
        name = rng.choice(["links"] * 8 + ["levels", "entry"])
        wanted = rng.choice(HARMLESS if rng.random() < 0.99 else NUMBERS)
        arrays[name] = arrays[name].copy()
        arrays[name][rng.randrange(len(arrays[name]))] = np.int64(np.uint64(wanted % 2**64)).astype(arrays[name].dtype)
        if rng.random() < 0.02:
            arrays[name] = np.resize(arrays[name], rng.choice([1, max(1, len(arrays[name]) - 1), len(arrays[name]) + 1]))
    return save(arrays)


@LENGTHS
def test_links(tmp_path, gallery, seconds):
    scan, queries = Scan([gallery], threads=1), np.random.default_rng(1).standard_normal((4, DIMENSIONS)).astype(np.float32)
    built = Graph.build(scan, links=8, effort=20, threads=1)
    built.save(tmp_path / "links")
    good = (tmp_path / "links").read_bytes()
    arrays = load(good)
    nowhere = save({**arrays, "links": np.full_like(arrays["links"], -1)})
    circle = save({**arrays, "links": np.where(arrays["links"] < 0, -1, arrays["entry"][0]).astype(np.int32)})
    outside = save({**arrays, "links": np.full_like(arrays["links"], ROWS)})
    tall = save({**arrays, "levels": np.full_like(arrays["levels"], 255)})
    among = np.arange(ROWS) % 2 == 0

    def read(data: bytes) -> None:
        (tmp_path / "links").write_bytes(data)
        graph = Graph.load(scan, tmp_path / "links")
        for chosen in (None, among):
            found, scores = graph.search(queries, K, among=chosen)
            assert found.shape == (4, K)
            assert all(len(set(rows)) == K for rows in found.tolist())
            assert chosen is None or chosen[found].all()
            np.testing.assert_array_equal(scores, np.take_along_axis(exact.scores(queries, gallery), found, axis=1))

    fuzz([good, nowhere, circle, outside, tall], read, InputError, seconds, links_changed)
