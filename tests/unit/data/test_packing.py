import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from zsbir.base.artifact import draft
from zsbir.data.images import encode_sketch
from zsbir.data.packing import MAX_FILE_BYTES, Packed, Refused, Row, ShardWriter, prepare, prepare_all
from zsbir.data.schema import ROW_GROUP_ROWS, shard_name
from zsbir.data.toys import draw

PNG = encode_sketch(draw("cup", "sketch", np.random.default_rng(0), 32))


@dataclass(frozen=True)
class Fixed:
    """A source with given bytes."""

    path: str
    data: bytes = PNG
    domain: str = "sketch"
    class_name: str = "cup"
    split_hint: str | None = None

    def read(self, root):
        return self.data

    def stamp(self, root):
        return (len(self.data),)


def write(folder, count, shard_bytes):
    with draft(folder, "dataset", "t") as work:
        writer = ShardWriter(work, shard_bytes)
        for number in range(count):
            packed = Packed(b"%d" % number + bytes(100), 32, 32, "0" * 64)
            writer.add(Row(Fixed(f"{number}.png"), class_id=0, split="train"), packed)
        table = writer.finish()
        return work.commit("d", digest="0" * 64), table


def test_shards_are_cut_at_row_groups_and_rows_count_from_their_start(tmp_path):
    dataset, table = write(tmp_path, 250, shard_bytes=5_000)
    assert table["sample_id"].to_pylist() == list(range(250))
    assert table["shard"].to_pylist() == [number // ROW_GROUP_ROWS for number in range(250)]
    assert table["row"].to_pylist() == [number % ROW_GROUP_ROWS for number in range(250)]
    for shard in range(3):
        rows = pq.read_table(dataset.file(shard_name(shard))).to_pylist()
        assert all(row["image"]["bytes"].startswith(b"%d" % row["sample_id"]) for row in rows)
        assert [row["sample_id"] for row in rows] == list(range(shard * 100, min(shard * 100 + 100, 250)))


def test_a_large_shard_holds_several_full_row_groups(tmp_path):
    dataset, _ = write(tmp_path, 250, shard_bytes=1_000_000)
    metadata = pq.ParquetFile(dataset.file(shard_name(0))).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [100, 100, 50]


def test_images_come_in_order_whichever_thread_is_first():
    sources = [Fixed(f"{n}", PNG if n % 3 else b"") for n in range(60)]
    results = list(prepare_all(sources, Path(), 256, workers=4))
    assert [isinstance(result, Refused) for result in results] == [n % 3 == 0 for n in range(60)]


def test_only_a_few_images_wait_in_memory_and_none_is_read_after_the_reader_stops():
    read = []

    @dataclass(frozen=True)
    class Counted(Fixed):
        def read(self, root):
            read.append(self.path)
            return self.data

    results = prepare_all([Counted(str(number)) for number in range(500)], Path(), 256, workers=2)
    next(results)
    results.close()
    assert len(read) <= 2 * 8 + 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ingest")]


def test_a_file_beyond_the_cap_is_refused_before_it_is_decoded():
    assert "more than the" in prepare(Fixed("big", bytes(MAX_FILE_BYTES + 1)), Path(), 256).reason
