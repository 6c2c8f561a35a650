"""Parquet files from strangers are read within bounds, and what stages write is read as it is."""

import resource
from pathlib import Path

import hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zsbir.base import limits
from zsbir.base.errors import InputError
from zsbir.base.files import open_regular
from zsbir.base.parquet import read_numbers, read_table
from zsbir.base.parquet_pages import pages

TEXT = {"path": pa.string()}


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def refused(path: Path, columns=None) -> str:
    before = peak_bytes()
    with pytest.raises(InputError) as error:
        read_table(path, columns or TEXT, "the file")
    assert peak_bytes() - before < 200 * limits.MIB, "it is refused before the memory is taken"
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False, ["name"]])
def test_what_stages_write_is_read_as_it_is(tmp_path, compression, version, dictionary):
    rows = 3000
    table = pa.table(
        {
            "path": [f"photo/{number}.jpg" for number in range(rows)],
            "name": ["cat", "dog", "bird"] * (rows // 3),
            "id": pa.array(range(rows), pa.int32()),
            "score": np.linspace(0, 1, rows),
            "distribution": pa.array([[0.5, 0.25]] * rows, pa.list_(pa.float64())),
            "unread": [{"a": 1}] * rows,
        }
    )
    pq.write_table(
        table, tmp_path / "a", compression=compression, data_page_version=version, use_dictionary=dictionary, row_group_size=1000
    )
    wanted = {name: table.schema.field(name).type for name in table.column_names if name != "unread"}
    assert read_table(tmp_path / "a", wanted, "it").equals(table.select(list(wanted)))
    assert read_table(tmp_path / "a", dict.fromkeys(["path", "score"]), "it").equals(table.select(["path", "score"]))


def test_pages_are_found_as_the_footer_counts_them(tmp_path):
    pq.write_table(pa.table({"x": np.random.default_rng(0).random(50_000)}), tmp_path / "a", data_page_size=4096)
    column = pq.read_metadata(tmp_path / "a").row_group(0).column(0)
    start = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
    with open_regular(tmp_path / "a") as file:
        found = list(pages(file, start, column.total_compressed_size))
    assert len(found) > 20
    assert sum(page.values for page in found) == 50_000


def test_a_text_that_is_stored_once_and_repeated_is_refused(tmp_path):
    hostile.write_parquet(tmp_path / "a", {"path": hostile.repeated_text(5000, 1_000_000)}, store_schema=False)
    assert (tmp_path / "a").stat().st_size < 10_000
    assert "asks for 5000000000 bytes of memory" in refused(tmp_path / "a")


def test_pages_that_grow_when_they_are_decompressed_are_refused(tmp_path):
    rows = 400
    hostile.write_parquet(
        tmp_path / "a", {"path": pa.array(["x" * 1_000_000 for _ in range(rows)])}, use_dictionary=False, store_schema=False
    )
    assert (tmp_path / "a").stat().st_size < 1_000_000
    assert "bytes of memory, more than the" in refused(tmp_path / "a")
    hostile.with_smaller_footer(tmp_path / "a")
    assert "the pages of column 'path' are not what its footer says" in refused(tmp_path / "a")


def test_numbers_that_are_stored_once_and_repeated_are_refused(tmp_path):
    numbers = pa.chunked_array([pa.array(np.zeros(10**6))] * 40)
    hostile.write_parquet(tmp_path / "a", {"x": numbers, "y": numbers})
    assert (tmp_path / "a").stat().st_size < 1_000_000
    assert "bytes of memory" in refused(tmp_path / "a", {"x": pa.float64(), "y": pa.float64()})
    with pytest.raises(InputError, match="bytes of memory"):
        read_numbers(tmp_path / "a", "the file")


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_encodings_that_no_stage_writes_are_refused(tmp_path, encoding):
    pq.write_table(pa.table({"path": ["a" * 1000] * 10}), tmp_path / "a", use_dictionary=False, column_encoding={"path": encoding})
    assert "stored in a form that is not read here" in refused(tmp_path / "a")


def test_a_long_text_and_missing_values_are_refused(tmp_path):
    pq.write_table(pa.table({"path": ["a" * (limits.PATH_BYTES + 1)]}), tmp_path / "a")
    assert "more than 16384" in refused(tmp_path / "a")
    pq.write_table(pa.table({"path": ["a", None]}), tmp_path / "b")
    assert "1 values of column 'path' are missing" in refused(tmp_path / "b")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"other": ["a"]}, "has no column 'path'"),
        ({"path": [1]}, "should be string, found int64"),
        ({"path": [b"a"]}, "should be string, found binary"),
        ({"path": [["a"]]}, "should be string, found list"),
        ({"path": [{"path": "a"}]}, "should be string, found struct"),
        ({"path": pa.array(["a"], pa.large_string())}, "should be string, found large_string"),
    ],
)
def test_columns_of_other_types_are_refused(tmp_path, columns, reason):
    pq.write_table(pa.table(columns), tmp_path / "a")
    assert reason in refused(tmp_path / "a")


def test_two_columns_of_one_name_are_refused(tmp_path):
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["path", "path"]), tmp_path / "a")
    assert "2 column 'path'" in refused(tmp_path / "a")


def test_text_that_is_not_utf8_is_refused(tmp_path):
    column = pa.array([b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"path": column}), tmp_path / "a")
    assert "is damaged, or not what it should be" in refused(tmp_path / "a")


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1", b"PAR1" + bytes(8) + b"\x04\0\0\0PAR1"]
)
def test_what_is_no_parquet_file_is_one_line(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    assert "is damaged" in refused(tmp_path / "a")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x15",
        b"\x15\x00\x15\x02\x15\x02\x00",  # no details
        b"\x15\x00\x15\x01\x15\x02\x2c\x15\x02\x15\x00\x00\x00",  # a negative size
        b"\x15\x00\x15\x02\x15\x02\x2c\x15\x01\x15\x00\x00\x00",  # a negative number of values
        b"\x1c" * 100,
        b"\x19\xfc" + b"\xff" * 9 + b"\x01",
        b"\x18" + b"\xff" * 9 + b"\x01",
        b"\x15" + b"\xff" * 20,
        b"\x1b\x00",
    ],
)
def test_damaged_page_headers_are_errors_in_no_time(tmp_path, data):
    (tmp_path / "a").write_bytes(data + bytes(20))
    with open_regular(tmp_path / "a") as file, pytest.raises(ValueError, match="page"):
        list(pages(file, 0, max(1, len(data))))
