"""Metadata from files of people's own: what is read, what is refused, and how it follows the photos of an index that grows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from index_photos import DIMENSIONS

from zsbir.base.errors import InputError
from zsbir.data.index_files import IndexFiles
from zsbir.data.items import Filter
from zsbir.index import GrowthConfig, compact_index, delete_photos, update_index
from zsbir.index_run import embedding
from zsbir.index_run.metadata import read_metadata

CSV = (
    "path,price,stock,sold,colour,code,empty\n"
    'a/0.png,1.5,3,true,"red, or so",007,\n'
    "a/1.png,2,-4,False,,7x,\n"
    "nowhere.png,,,,green,,\n"
)


def known(index):
    files = IndexFiles(index, DIMENSIONS)
    rows = files.rows().tolist()
    return {files.paths[row].as_py(): {name: column[row].as_py() for name, column in files.columns.items()} for row in rows}


@pytest.fixture
def write(tmp_path):
    """A function that writes a file of metadata and returns its path."""

    def written(data):
        path = tmp_path / "metadata"
        if isinstance(data, pa.Table):
            pq.write_table(data, path)
        else:
            path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(path)

    return written


def test_the_types_of_csv_are_told_from_its_values(write):
    found = read_metadata(write("\ufeff" + CSV))
    assert found.kinds == {
        "price": "float", "stock": "int", "sold": "bool", "colour": "string", "code": "string", "empty": "string",
    }  # fmt: skip
    assert found.table.to_pylist()[0] == {
        "path": "a/0.png", "price": 1.5, "stock": 3, "sold": True, "colour": "red, or so", "code": "007", "empty": None,
    }  # fmt: skip
    assert found.rows_of(["a/1.png", "b", "a/0.png"]).tolist() == [1, -1, 0]


def test_the_types_of_parquet_are_kept_and_nan_is_a_missing_value(write):
    table = pa.table(
        {
            "path": ["a", "b"],
            "small": pa.array([1, None], pa.int8()),
            "price": pa.array([np.nan, 2], pa.float32()),
            "word": pa.array(["x", None], pa.large_string()),
        }
    )
    found = read_metadata(write(table))
    assert found.kinds == {"small": "int", "price": "float", "word": "string"}
    assert found.table["price"].to_pylist() == [None, 2.0]


def as_table(**columns):
    return pa.table({"path": ["a"], **columns})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "cannot read the metadata"),
        ("price\n1\n", "has no column 'path'"),
        ("path,price\na,1\na,2\n", "names the path 'a' more than once"),
        ("path,price\n,1\n", "1 of 1 rows have no path"),
        ("path,price\na,1,2\n", "cannot read the metadata"),
        ("path,price,price\na,1,2\n", "must have different names"),
        ("path,class_name\na,1\n", "'class_name' cannot be a column of metadata"),
        ("path,a.b\na,1\n", "'a.b' cannot be a column of metadata"),
        ("path,\x1b[2J\na,1\n", r"x1b\[2J' cannot be a column of metadata"),
        ("path," + ",".join(f"c{number}" for number in range(65)) + "\n", "be at most 64"),
        (f"path,text\na,{'x' * 2000}\n", "has 2000 bytes, more than the 1024"),
        (b"path,text\na,\xff\xfe\n", "cannot read the metadata"),
        (b"PAR1 and no more", "cannot read the metadata"),
        (as_table(when=pa.array([0], pa.timestamp("s"))), "metadata are texts"),
        (as_table(parts=[[1]]), "metadata are texts"),
        (as_table(price=[float("inf")]), "holds infinite numbers"),
        (as_table(big=pa.array([2**64 - 1], pa.uint64())), "cannot be read as int64"),
        (as_table(source=[1]), "'source' cannot be a column of metadata"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_metadata_is_refused_in_one_line(write, data, reason):
    with pytest.raises(InputError, match=reason) as error:
        read_metadata(write(data))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="no file at"):
        read_metadata(str(tmp_path / "nothing.csv"))


def test_metadata_are_columns_of_the_index_and_decide_its_name(photos, run, root, write, capsys):
    plain = photos.index(run, root)
    index = photos.index(run, root, metadata=write(CSV))
    assert "1 of 3 paths are not photos of the gallery" in capsys.readouterr().err
    assert index.digest != plain.digest
    assert "columns" not in plain.manifest.facts
    assert known(index)["a/0.png"]["colour"] == "red, or so"
    assert known(index)["b/3.png"] == dict.fromkeys(("price", "stock", "sold", "colour", "code", "empty"))
    files = IndexFiles(index, DIMENSIONS)
    mask = files.mask(Filter.from_json({"columns": {"price": {"max": 2}}, "folder": "a"}))
    assert [files.paths[row].as_py() for row in np.flatnonzero(mask).tolist()] == ["a/0.png", "a/1.png"]
    assert files.mask(Filter()) is None


def test_a_deleted_photo_meets_no_filter(photos, run, root):
    files = IndexFiles(delete_photos(photos.index(run, root).uri, ["a/0.png"], root), DIMENSIONS)
    mask = files.mask(Filter(folder="a"))
    assert [files.paths[row].as_py() for row in np.flatnonzero(mask).tolist()] == ["a/1.png"]


def test_other_metadata_of_the_same_photos_are_taken_over_without_embedding_them_again(
    photos, run, root, write, monkeypatch, contents
):
    base = photos.index(run, root, metadata=write("path,price\na/0.png,1\na/1.png,2\n"))
    monkeypatch.setattr(embedding.Embedder, "_forward", lambda *_: pytest.fail("a photo was embedded"))
    growth = GrowthConfig(metadata=write("path,price,colour\na/0.png,1,\na/1.png,3,red\nb/3.png,,blue\n"))
    index = update_index(base.uri, "", growth, root)
    assert index.manifest.counts["own_photos"] == 2, "a/0.png is as it was"
    assert {path: row for path, row in known(index).items() if any(row.values())} == {
        "a/0.png": {"price": 1, "colour": None},
        "a/1.png": {"price": 3, "colour": "red"},
        "b/3.png": {"price": None, "colour": "blue"},
    }
    assert known(compact_index(index.uri, root)) == known(index)
    assert update_index(index.uri, "", growth, root).uri == index.uri


def test_a_photo_that_changed_keeps_what_was_known_of_it(photos, run, root, write):
    base = photos.index(run, root, metadata=write("path,price\na/0.png,1\na/1.png,2\n"))
    photos.write("a/0.png", 8)
    photos.write("a/1.png", 8)
    index = update_index(base.uri, "", GrowthConfig(metadata=write("path,price\na/1.png,5\n")), root)
    assert {path: row["price"] for path, row in known(index).items() if row["price"]} == {"a/0.png": 1, "a/1.png": 5}


@pytest.mark.parametrize("replaced", ["a/0.png", "a/1.png", "b/3.png"])
def test_columns_that_a_new_file_lacks_stay_whichever_photo_has_changed(photos, run, root, write, replaced, capsys):
    base = photos.index(run, root, metadata=write("path,price,colour\na/0.png,1,red\na/1.png,2,blue\nb/3.png,3,green\n"))
    photos.write(replaced, 8)
    capsys.readouterr()
    index = update_index(base.uri, "", GrowthConfig(metadata=write("path,price\na/0.png,5\na/1.png,\n")), root)
    assert {path: tuple(row.values()) for path, row in known(index).items() if any(row.values())} == {
        "a/0.png": (5, "red"), "a/1.png": (None, "blue"), "b/3.png": (3, "green"),
    }  # fmt: skip
    assert "are not photos of the gallery" not in capsys.readouterr().err, "those that have not changed are photos, too"


def test_metadata_of_another_type_than_before_are_refused(photos, run, root, write):
    base = photos.index(run, root, metadata=write("path,price\na/0.png,1\n"))
    with pytest.raises(InputError, match="price' is int"):
        update_index(base.uri, "", GrowthConfig(metadata=write("path,price\na/0.png,cheap\n")), root)


def test_a_large_file_is_refused_before_it_is_read(write, monkeypatch):
    monkeypatch.setattr("zsbir.base.limits.METADATA_BYTES", 10)
    with pytest.raises(InputError, match=f"has {len(CSV)} bytes, more than the 10"):
        read_metadata(write(CSV))
