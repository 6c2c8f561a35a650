import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zsbir.base.artifact import FileEntry
from zsbir.base.files import sha256_file
from zsbir.base.storage import open_folder
from zsbir.data import packing
from zsbir.data.blocks import Block
from zsbir.data.images import encode_sketch
from zsbir.data.packing import OtherForm, Packer, Packing, Record, Shard, found_records, record_name
from zsbir.data.schema import QUARANTINE_SCHEMA, ROW_GROUP_ROWS, SAMPLES_SCHEMA, SHARD_SCHEMA, shard_name
from zsbir.toys.draw import draw

PNG = encode_sketch(draw("cup", "sketch", np.random.default_rng(0), 32))
CLASSES = {"cup": (3, "train"), "fish": (5, "unseen")}


@dataclass(frozen=True)
class Fixed:
    """A source with given bytes."""

    path: str
    data: bytes = PNG
    domain: str = "sketch"
    class_name: str = "cup"
    split_hint: str | None = None

    def read(self, folder):
        return self.data

    def stamp(self, tree):
        return (len(self.data),)


def png(number):
    """A picture like no other."""
    return encode_sketch(draw("cup", "sketch", np.random.default_rng(number), 32))


def pack(folder, *blocks, threads=2, **how):
    packer = Packer(str(folder), str(folder), Packing(short_side_px=0, classes=CLASSES, **how), threads)
    return [Record.of(data) for data in packer.pack(blocks)]


def images(folder, key):
    return [row["image"]["bytes"] for row in pq.read_table(folder / key).to_pylist()]


def test_a_block_becomes_a_shard_and_a_record(tmp_path):
    sources = [Fixed(f"{number}.png", png(number), class_name=name) for number, name in enumerate(("cup", "fish", "cup"))]
    (record,) = pack(tmp_path, Block(7, 100, sources))
    shard = tmp_path / shard_name(7)
    assert record.shard == Shard(shard_name(7), FileEntry(size=shard.stat().st_size, sha256=sha256_file(shard)))
    assert record.samples.to_pylist()[1] == {
        "sample_id": 101,
        "domain": "sketch",
        "class_id": 5,
        "class_name": "fish",
        "split": "unseen",
        "width": 32,
        "height": 32,
        "sha256": hashlib.sha256(png(1)).hexdigest(),
        "path": "1.png",
        "shard": 7,
        "row": 1,
    }
    assert record.samples.schema == SAMPLES_SCHEMA
    assert record.refused.num_rows == 0
    assert images(tmp_path, shard_name(7)) == [png(0), png(1), png(2)]
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {
        shard_name(7),
        record_name(7),
    }


def test_the_rows_of_a_shard_are_those_of_the_sample_table(tmp_path):
    (record,) = pack(tmp_path, Block(0, 0, [Fixed(f"{n}.png", png(n)) for n in range(5)]))
    file = pq.ParquetFile(tmp_path / shard_name(0))
    assert file.schema_arrow.remove_metadata() == SHARD_SCHEMA
    features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == SHARD_SCHEMA.names
    columns = [name for name in SHARD_SCHEMA.names if name != "image"]
    assert file.read(columns).to_pylist() == record.samples.select(columns).to_pylist()


def test_row_groups_are_full_but_the_last(tmp_path):
    (record,) = pack(tmp_path, Block(0, 0, [Fixed(f"{number}.png") for number in range(250)]))
    metadata = pq.ParquetFile(tmp_path / shard_name(0)).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 50]
    assert record.samples["row"].to_pylist() == list(range(250))


def test_refused_images_leave_gaps_in_the_sample_ids_and_none_in_the_rows(tmp_path):
    sources = [Fixed(f"{number}.png", b"" if number % 3 == 1 else PNG) for number in range(6)]
    (record,) = pack(tmp_path, Block(0, 10, sources))
    assert record.samples["sample_id"].to_pylist() == [10, 12, 13, 15]
    assert record.samples["row"].to_pylist() == [0, 1, 2, 3]
    assert record.refused.to_pylist() == [
        {"path": f"{number}.png", "domain": "sketch", "class_name": "cup", "reason": "the file has zero bytes"} for number in (1, 4)
    ]


def test_a_block_of_nothing_but_bad_images_has_a_record_and_no_shard(tmp_path):
    empty, full = pack(tmp_path, Block(0, 0, [Fixed("a", b"")]), Block(1, 1, [Fixed("b")]))
    assert empty.shard is None
    assert empty.samples.num_rows == 0
    assert not (tmp_path / shard_name(0)).exists()
    assert full.samples["sample_id"].to_pylist() == [1]
    assert list(found_records(open_folder(tmp_path))) == [0, 1]


def test_repeated_photos_of_a_class_are_left_out_where_asked(tmp_path):
    photos = [Fixed("a", domain="photo"), Fixed("b", domain="photo"), Fixed("c", domain="photo", class_name="fish")]
    sketches = [Fixed("d"), Fixed("e")]
    (record,) = pack(tmp_path / "dedup", Block(0, 0, [*photos, *sketches]), dedup=True)
    assert record.samples["path"].to_pylist() == ["a", "c", "d", "e"]
    (record,) = pack(tmp_path / "all", Block(0, 0, [*photos, *sketches]))
    assert record.samples["path"].to_pylist() == ["a", "b", "c", "d", "e"]


def test_the_same_block_gives_the_same_bytes_however_it_is_packed(tmp_path):
    blocks = [
        Block(n, 10 * n, [Fixed(f"{n}{i}", png(i) if i % 4 else b"", class_name="fish") for i in range(10)]) for n in range(4)
    ]
    pack(tmp_path / "one", *blocks, threads=1)
    for block in reversed(blocks):
        pack(tmp_path / "each", block, threads=4)
    files = {path.relative_to(tmp_path / "one"): path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert len(files) == 8
    assert all((tmp_path / "each" / name).read_bytes() == data for name, data in files.items())


def test_records_come_in_order_and_a_record_says_that_its_shard_is_there(tmp_path):
    blocks = [Block(number, number, [Fixed(str(number))]) for number in range(12)]
    packer = Packer(str(tmp_path), str(tmp_path), Packing(0, CLASSES), 2)
    for number, data in enumerate(packer.pack(blocks)):
        record = Record.of(data)
        assert record.samples["shard"].to_pylist() == [number]
        assert (tmp_path / record.shard.key).stat().st_size == record.shard.entry.size
        assert (tmp_path / record_name(number)).read_bytes() == data


def test_each_image_is_counted_as_it_is_packed(tmp_path):
    seen = []
    packer = Packer(str(tmp_path), str(tmp_path), Packing(0, CLASSES), 2)
    list(packer.pack([Block(0, 0, [Fixed(str(number)) for number in range(20)])], lambda: seen.append(1)))
    assert len(seen) == 20


def test_only_a_few_images_wait_in_memory_and_none_is_read_after_the_reader_stops(tmp_path):
    read = []

    @dataclass(frozen=True)
    class Counted(Fixed):
        def read(self, folder):
            read.append(self.path)
            return self.data

    def stop():
        raise KeyboardInterrupt

    packer = Packer(str(tmp_path), str(tmp_path), Packing(0, CLASSES), 2)
    with pytest.raises(KeyboardInterrupt):
        list(packer.pack([Block(0, 0, [Counted(str(number)) for number in range(500)])], stop))
    assert len(read) < 100
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("ingest", "publish"))]
    assert not tmp_path.exists() or not list(tmp_path.iterdir()), "nothing is left of it"


def test_a_store_that_fails_stops_the_work(tmp_path, monkeypatch):
    def full(self, key, file, sha256):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zsbir.base.disk.DiskFolder.publish", full)
    with pytest.raises(OSError, match="No space left"):
        pack(tmp_path, *[Block(number, number, [Fixed(str(number))]) for number in range(20)])
    assert not list(tmp_path.rglob("*.arrow"))


RECORD = Record(
    pa.table({name: [] for name in SAMPLES_SCHEMA.names}, SAMPLES_SCHEMA),
    pa.Table.from_pylist([{"path": "a b/ü.jpg", "domain": "photo", "class_name": "x", "reason": "why"}], QUARANTINE_SCHEMA),
    Shard("shards/part-00001~0123.parquet", FileEntry(size=7, sha256="0" * 64)),
)


def test_a_record_survives_being_written():
    again = Record.of(RECORD.to_bytes())
    assert again.samples.equals(RECORD.samples)
    assert again.refused.equals(RECORD.refused)
    assert again.shard == RECORD.shard
    assert again.to_bytes() == RECORD.to_bytes()


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[:100], lambda data: data[:-40], lambda data: b"x" * 500])
def test_bytes_that_are_no_record_are_told_from_one(spoil):
    with pytest.raises(OtherForm):
        Record.of(spoil(RECORD.to_bytes()))


def test_what_another_version_packed_is_packed_again(tmp_path, monkeypatch):
    pack(tmp_path, Block(0, 0, [Fixed("a")]))
    assert list(found_records(open_folder(tmp_path))) == [0]
    monkeypatch.setattr(packing, "_FORM", "1, pyarrow 1000.0, pillow 1000.0")
    assert found_records(open_folder(tmp_path)) == {}


def test_a_record_whose_shard_is_gone_or_cut_is_not_used(tmp_path):
    pack(tmp_path, *[Block(number, number, [Fixed(str(number))]) for number in range(3)])
    (tmp_path / shard_name(0)).unlink()
    shard = tmp_path / shard_name(1)
    shard.write_bytes(shard.read_bytes()[:-1])
    (tmp_path / packing.PARTS / "notes.txt").write_text("no record")
    assert list(found_records(open_folder(tmp_path))) == [2]


def test_there_are_no_records_where_nothing_is(tmp_path):
    assert found_records(open_folder(tmp_path / "nowhere")) == {}


def test_threads_are_chosen_by_cores_and_by_where_the_images_lie(moto, monkeypatch, tmp_path):
    for name, value in moto.env.items():
        monkeypatch.setenv(name, value)
    bucket = moto.new_bucket()
    how = Packing(0, CLASSES)
    assert Packer(str(tmp_path), str(tmp_path), how, 0, cores=3)._threads == 3
    assert Packer(str(tmp_path), str(tmp_path), how, 5, cores=3)._threads == 5
    assert Packer(f"s3://{bucket}/images", str(tmp_path), how, 0, cores=3)._threads == 12


def test_blocks_are_packed_in_object_storage_as_on_disk(moto, monkeypatch, tmp_path):
    for name, value in moto.env.items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{moto.new_bucket()}/made"
    blocks = [Block(n, 10 * n, [Fixed(f"{n}{i}", png(i)) for i in range(10)]) for n in range(3)]
    how = Packing(0, CLASSES)
    on_disk = list(Packer(str(tmp_path), str(tmp_path), how, 2).pack(blocks))
    in_store = list(Packer(str(tmp_path), uri, how, 2).pack(blocks))
    assert on_disk == in_store
    folder = open_folder(uri)
    assert [entry.key for entry in folder.walk()] == [*map(record_name, range(3)), *map(shard_name, range(3))]
    assert all(folder.read(shard_name(n)) == Path(tmp_path / shard_name(n)).read_bytes() for n in range(3))
    assert list(found_records(folder)) == [0, 1, 2]
