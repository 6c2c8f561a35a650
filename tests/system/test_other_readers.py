"""HF datasets, DuckDB, pandas and pyarrow read a data set's Parquet as it is, on disk and from object storage."""

from __future__ import annotations

import io

import datasets
import duckdb
import numpy as np
import pandas as pd
import pyarrow.dataset
import pytest
from PIL import Image

from zsbir.base.arrow import arrow_filesystem
from zsbir.base.artifact import Artifact
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.ingest import IngestConfig, Settings, ingest

pytestmark = pytest.mark.slow

TOYS = IngestConfig(layout="toy", toy_photos_per_class=2, toy_sketches_per_class=2, toy_px=32)


@pytest.fixture
def toys_on_disk(tmp_path):
    return ingest(TOYS, "", Settings(root=str(tmp_path / "root")))


@pytest.fixture(params=["disk", "s3"])
def toys(request, tmp_path):
    root = str(tmp_path / "root") if request.param == "disk" else request.getfixturevalue("s3_root")
    return ingest(TOYS, "", Settings(root=root))


def shards_of(dataset: Artifact) -> list[str]:
    return [dataset.address(name) for name in dataset.manifest.files if name.startswith("shards/")]


def ours(dataset: Artifact) -> tuple[list[str], list[bytes]]:
    samples = load_samples(dataset)
    images = Images(dataset, samples)
    return samples.path.tolist(), [images.read(position) for position in range(len(samples))]


def check_decoded(rows, toys):
    paths, images = ours(toys)
    assert rows["path"][:] == paths
    assert sorted(set(rows["split"])) == ["dev", "train", "unseen"]
    for row, data in zip(rows, images, strict=True):
        assert row["image"].size == (row["width"], row["height"])
        assert np.array_equal(np.asarray(row["image"]), np.asarray(Image.open(io.BytesIO(data))))


def test_hugging_face_datasets_decode_the_images_of_a_folder(toys_on_disk, tmp_path):
    check_decoded(
        datasets.load_dataset("parquet", data_files=shards_of(toys_on_disk), split="train", cache_dir=str(tmp_path / "hf")),
        toys_on_disk,
    )


def test_hugging_face_datasets_decode_the_images_of_a_table(toys):
    path, filesystem = arrow_filesystem(toys.uri)
    check_decoded(datasets.Dataset(pyarrow.dataset.dataset(f"{path}/shards", filesystem=filesystem).to_table()), toys)


def test_pandas_reads_table_and_images(toys):
    paths, images = ours(toys)
    path, filesystem = arrow_filesystem(toys.uri)
    table = pd.read_parquet(f"{path}/samples.parquet", filesystem=filesystem)
    assert table.path.tolist() == paths
    shard = pd.read_parquet(f"{path}/{toys.key('shards/part-00000.parquet')}", filesystem=filesystem)
    assert [row["bytes"] for row in shard.image] == images[: len(shard)]


def test_duckdb_asks_the_sample_table_and_the_shards(toys_on_disk):
    toys = toys_on_disk
    ((count,),) = duckdb.sql(f"select count(*) from '{toys.address('samples.parquet')}' where split = 'unseen'").fetchall()
    assert count == toys.manifest.counts["unseen_photos"] + toys.manifest.counts["unseen_sketches"]
    longest = duckdb.sql(f"select max(octet_length(image.bytes)) from read_parquet({shards_of(toys)})").fetchall()
    assert longest == [(max(map(len, ours(toys)[1])),)]


def test_duckdb_asks_through_pyarrow_wherever_the_data_lies(toys):
    # DuckDB's own S3 extension is downloaded at first use; through pyarrow it needs none.
    path, filesystem = arrow_filesystem(toys.uri)
    shards = pyarrow.dataset.dataset(f"{path}/shards", filesystem=filesystem, format="parquet")
    found = duckdb.sql("select count(*), count(distinct class_name) from shards where domain = 'photo'").fetchall()
    assert shards.count_rows() == toys.manifest.counts["samples"]
    assert found == [(toys.manifest.counts["photos"], toys.manifest.counts["classes"])]
