"""The sample table of a data set that anybody may have made."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from building import put

from zsbir.base import limits
from zsbir.base.errors import InputError
from zsbir.data.samples import load_samples
from zsbir.data.schema import SAMPLES_SCHEMA, shard_name
from zsbir.data.shards import Images

ROW = {
    "sample_id": 0, "domain": "photo", "class_id": 0, "class_name": "cup", "split": "train", "width": 8, "height": 8,
    "sha256": "0" * 64, "path": "a.jpg", "shard": 0, "row": 0,
}  # fmt: skip


def bytes_of(table, **options) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def dataset(root, data=b"none", **changes):
    samples = bytes_of(pa.Table.from_pylist([{**ROW, **changes}], SAMPLES_SCHEMA))
    return put(root, "dataset", files={"samples.parquet": samples, shard_name(0): data})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class_id": 2**31 - 1}, "column 'class_id' holds 2147483647"),
        ({"class_id": -1}, "column 'class_id' holds -1"),
        ({"shard": -1}, "column 'shard' holds -1"),
        ({"shard": 2**31 - 1}, "column 'shard' holds"),
        ({"row": -1}, "column 'row' holds -1"),
        ({"domain": "x-ray"}, "column 'domain' holds 'x-ray'"),
        ({"split": ""}, "column 'split' holds ''"),
        ({"class_name": None}, "1 values of column 'class_name' are missing"),
        ({"path": "x" * (limits.PATH_BYTES + 1)}, "a text in column 'path'"),
    ],
)
def test_a_sample_table_that_no_ingest_writes_is_refused(tmp_path, changes, reason):
    with pytest.raises(InputError, match=reason):
        load_samples(dataset(tmp_path, **changes))


def images(data, count, **options):
    rows = [{"image": {"bytes": data, "path": "a"}}] * count
    return bytes_of(pa.Table.from_pylist(rows), **options)


@pytest.mark.parametrize("room", [True, False])
def test_images_that_are_stored_once_and_repeated_are_refused(tmp_path, monkeypatch, room):
    if not room:
        monkeypatch.setenv("ZSBIR_CACHE_GB", "0.0000001")
    opened = dataset(tmp_path, images(b"x" * 10**6, 300, compression="zstd"))
    with pytest.raises(InputError, match="may ask for"):
        Images(opened, load_samples(opened)).read(0)


def test_an_image_that_its_shard_does_not_hold_is_an_error(tmp_path):
    opened = dataset(tmp_path, images(b"x", 3), row=7)
    with pytest.raises(InputError, match="has no image 7"):
        Images(opened, load_samples(opened)).read(0)
