"""Images read through the cache, and past it where it is too small: always the bytes that went in."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zsbir.base import cache
from zsbir.base.artifact import Artifact
from zsbir.base.cache import cache_dir
from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.data.samples import Samples, load_samples
from zsbir.data.schema import SAMPLES_SCHEMA, SHARD_SCHEMA, shard_name
from zsbir.data.shards import Images

ROWS = (230, 100, 7)
"""Images of each shard: more and fewer than a row group."""


def image(number: int) -> bytes:
    return np.random.default_rng(number).bytes(1000 + number)


def make_dataset(uri: str) -> Artifact:
    samples, number = [], 0
    with draft(uri, "dataset", "test") as work:
        for shard, rows in enumerate(ROWS):
            table = []
            for row in range(rows):
                facts = {"sample_id": number, "domain": "photo", "class_id": 0, "class_name": "a", "split": "train", "width": 1}
                facts |= {"height": 1, "sha256": hashlib.sha256(image(number)).hexdigest(), "path": f"{number}.jpg"}
                table.append({**facts, "image": {"bytes": image(number), "path": f"{number}.jpg"}})
                samples.append({**facts, "shard": shard, "row": row})
                number += 1
            pq.write_table(pa.Table.from_pylist(table, SHARD_SCHEMA), work.file(shard_name(shard)), row_group_size=100)
        pq.write_table(pa.Table.from_pylist(samples, SAMPLES_SCHEMA), work.file("samples.parquet"))
        return work.commit(digest="d" * 64)


@pytest.fixture(params=["disk", "s3"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path / "cache"))
    root = str(tmp_path / "root") if request.param == "disk" else f"{request.getfixturevalue('s3_root')}/root"
    return make_dataset(f"{root}/datasets/test/0")


def opened(dataset: Artifact) -> tuple[Samples, Images]:
    samples = load_samples(dataset)
    return samples, Images(dataset, samples)


def check_all(images: Images, samples: Samples) -> None:
    for position in np.random.default_rng(0).permutation(len(samples)).tolist():
        assert images.read(position) == image(position)


def test_every_image_comes_back_as_it_went_in(dataset: Artifact):
    samples, images = opened(dataset)
    check_all(images, samples)
    assert len(list((cache_dir() / "objects").rglob("*.arrow"))) == len(ROWS)


def test_also_where_the_cache_has_no_room_and_its_bound_holds(dataset: Artifact, monkeypatch, capsys):
    monkeypatch.setattr(cache, "IN_USE_S", 0.0)
    monkeypatch.setenv("ZSBIR_CACHE_GB", "0.0004")
    samples, images = opened(dataset)
    check_all(images, samples)
    assert "find no room in the cache" in capsys.readouterr().err
    assert len(list((cache_dir() / "objects").rglob("*.arrow"))) < len(ROWS)
    assert sum(path.stat().st_size for path in (cache_dir() / "objects").rglob("*") if path.is_file()) < 400_000


def test_threads_share_one_copy_of_each_shard(dataset: Artifact, monkeypatch):
    samples, images = opened(dataset)
    wrong: list[int] = []

    def read(seed: int) -> None:
        for position in np.random.default_rng(seed).integers(0, len(samples), 200).tolist():
            if images.read(position) != image(position):
                wrong.append(position)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_is_fetched_ahead_is_there_when_it_is_read(dataset: Artifact):
    samples, images = opened(dataset)
    images.prefetch(np.arange(len(samples)))
    check_all(images, samples)
    images.prefetch(np.arange(len(samples)))


@pytest.mark.parametrize("room_gb", ["1", "0.0000001"])
def test_a_damaged_shard_is_refused_with_and_without_room(dataset: Artifact, monkeypatch, room_gb):
    key, size = dataset.key(shard_name(0)), dataset.manifest.files[shard_name(0)].size
    data = bytearray(dataset.folder.read(key))
    middle = data.find(image(150)) + 500
    data[middle] ^= 1
    assert len(data) == size
    dataset.folder.replace(key, bytes(data))
    monkeypatch.setenv("ZSBIR_CACHE_GB", room_gb)
    samples, images = opened(dataset)
    images.prefetch(np.arange(len(samples)))
    with pytest.raises(InputError, match=r"part-00000\.parquet"):
        images.read(150)
    assert images.read(len(samples) - 1) == image(len(samples) - 1), "other shards are not touched by it"


def test_a_shard_that_is_gone_is_an_input_error(dataset: Artifact):
    dataset.folder.delete([dataset.key(shard_name(1))])
    _samples, images = opened(dataset)
    assert images.read(0) == image(0)
    with pytest.raises(InputError, match="it is gone"):
        images.read(ROWS[0])


def test_a_copy_in_the_cache_that_vanishes_is_made_again(dataset: Artifact):
    samples, images = opened(dataset)
    check_all(images, samples)
    for path in (cache_dir() / "objects").rglob("*.arrow"):
        path.unlink()
    check_all(images, samples)
    check_all(*reversed(opened(dataset)))
