"""The files of an index that anybody may have made."""

import io

import hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from building import put
from PIL import Image

from zsbir.base import limits
from zsbir.base.errors import InputError
from zsbir.data.index_files import IndexFiles, open_vectors
from zsbir.search import picture, read_drawing


def parquet(table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=2)
    return sink.getvalue()


def items(thumbnails):
    count = len(thumbnails)
    return pa.table(
        {
            "item_id": range(count),
            "path": [f"photo/{number}.jpg" for number in range(count)],
            "class_name": ["cup"] * count,
            "thumbnail": pa.array(thumbnails, pa.binary()),
        }
    )


def index(root, table, vectors=None):
    vectors = hostile.npy(f"({len(table)}, 4)", data=bytes(16 * len(table))) if vectors is None else vectors
    return put(root, "index", files={"vectors.npy": vectors, "items.parquet": parquet(table)})


@pytest.fixture
def good(tmp_path):
    return index(tmp_path, items([hostile.jpeg(8 + number, 8) for number in range(5)]))


def test_an_index_is_read_as_it_was_written(good):
    files = IndexFiles(good, 4)
    assert [part.shape for part in files.parts] == [(5, 4)]
    assert files.paths.to_pylist() == [f"photo/{number}.jpg" for number in range(5)]
    assert [files.thumbnail_image(row).width for row in (4, 0, 3, 1, 2)] == [12, 8, 11, 9, 10]


EVIL_THUMBNAILS = {
    "a program for Ghostscript": hostile.EPS,
    "a huge JPEG": hostile.jpeg_of_size(65_000, 65_000),
    "a JPEG of too many pixels": hostile.jpeg(1100, 1000),
    "another format": hostile.png_of_size(8, 8),
    "a huge PNG": hostile.png_of_size(60_000, 60_000),
    "a file that is too large": hostile.jpeg() + bytes(limits.THUMBNAIL_BYTES),
    "a damaged JPEG": hostile.jpeg()[:100],
    "nothing but its beginning": b"\xff\xd8\xff",
    "nothing": b"",
    "missing": None,
}


@pytest.mark.parametrize("evil", EVIL_THUMBNAILS.values(), ids=EVIL_THUMBNAILS)
def test_a_thumbnail_is_a_small_jpeg_or_an_error(tmp_path, evil):
    files = IndexFiles(index(tmp_path, items([hostile.jpeg(), evil])), 4)
    with pytest.raises(InputError, match=r"items\.parquet: the thumbnail of photo 1"):
        files.thumbnail_image(1)
    assert files.thumbnail_image(0).size == (8, 8)
    with pytest.raises(InputError, match="the thumbnail of photo 1"):
        picture_of(files, tmp_path)


def picture_of(files, tmp_path):
    """Draw the picture that `search --grid` draws, of both photos."""
    from zsbir.search import Hit

    class Searcher:
        thumbnail_image = staticmethod(files.thumbnail_image)

    Image.new("L", (20, 20), 255).save(tmp_path / "drawing.png")
    hits = [Hit(1, 1.0, 0, "", "a"), Hit(2, 0.5, 1, "", "b")]
    picture(Searcher(), read_drawing(tmp_path / "drawing.png"), hits, "title")


@pytest.mark.parametrize("row", [-1, 5, 10**12])
def test_a_photo_that_is_not_there_has_no_thumbnail(good, row):
    with pytest.raises(InputError, match="has no photo"):
        IndexFiles(good, 4).thumbnail(row)


def test_thumbnails_that_are_stored_once_and_repeated_are_not_expanded(tmp_path):
    one = pa.DictionaryArray.from_arrays(pa.array(np.zeros(5000, np.int32)), pa.array([hostile.jpeg(600, 600)]))
    table = items([b""] * 5000).set_column(3, "thumbnail", one.cast(pa.dictionary(pa.int32(), pa.binary())))
    sink = io.BytesIO()
    pq.write_table(table, sink, store_schema=False, row_group_size=5000)
    made = put(
        tmp_path, "index", files={"vectors.npy": hostile.npy("(5000, 4)", data=bytes(80_000)), "items.parquet": sink.getvalue()}
    )
    assert IndexFiles(made, 4).thumbnail_image(4999).size == (600, 600)


def test_a_row_group_of_too_many_bytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "ROW_GROUP_BYTES", 1000)
    files = IndexFiles(index(tmp_path, items([hostile.jpeg(100, 100)] * 2)), 4)
    with pytest.raises(InputError, match=r"row group 0 holds \d+ bytes, more than 1000"):
        files.thumbnail(0)


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        (hostile.npy("(5, 3)", data=bytes(60)), "not float32 with 4 dimensions"),
        (hostile.npy("(5, 4)", data=bytes(79)), "not as long as its shape"),
        (hostile.npy("(5, 4)", data=bytes(81)), "not as long as its shape"),
        (hostile.npy("(1000000000000, 4)"), "not float32"),
        (hostile.npy("(99999999, 4)"), "not as long as its shape"),
        (hostile.npy("(0, 4)"), "not float32"),
        (hostile.npy("(-5, 4)"), "not float32"),
        (hostile.npy("(20,)", data=bytes(80)), "not float32"),
        (hostile.npy("()", data=bytes(4)), "not float32"),
        (hostile.npy("(5, 2, 2)", data=bytes(80)), "not float32"),
        (hostile.npy("(5, 4)", "'<f8'", data=bytes(160)), "not float32"),
        (hostile.npy("(5, 4)", "'>f4'", data=bytes(80)), "not float32"),
        (hostile.npy("(5, 4)", "'|O'", data=b"cos\nsystem\n(S'true'\ntR." + bytes(60)), "not float32"),
        (hostile.npy("(5, 4)", "[('a', '<f4')]", data=bytes(80)), "not float32"),
        (hostile.npy("(5, 4)", order="True", data=bytes(80)), "not float32"),
        (hostile.npy("(5, 4)", "__import__('os').system('true')"), "not an array"),
        (hostile.npy("(" * 300 + ")" * 300), "not an array"),
        (hostile.npy("(5, 4)" + " " * 60_000, data=bytes(80)), "not an array"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(100), "not an array"),
        (b"\x93NUMPY\x09\x00", "not an array"),
        (b"PK\x03\x04" + bytes(100), "not an array"),
        (b"\x80\x04K\x05.", "not an array"),
        (b"", "not an array"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_vectors_are_a_matrix_of_floats_as_large_as_its_file(tmp_path, vectors, reason):
    with pytest.raises(InputError, match=reason) as error:
        IndexFiles(index(tmp_path, items([hostile.jpeg()] * 5), vectors), 4)
    assert "\n" not in str(error.value)


def test_vectors_that_numpy_saves_are_mapped_as_they_are(tmp_path):
    vectors = np.random.default_rng(0).random((7, 3)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = open_vectors(tmp_path / "vectors.npy", 3, "it")
    assert isinstance(mapped, np.memmap)
    assert (mapped == vectors).all()


def test_vectors_and_photos_that_do_not_belong_together_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds 4 vectors for 5 photos"):
        IndexFiles(index(tmp_path, items([hostile.jpeg()] * 5), hostile.npy("(4, 4)", data=bytes(64))), 4)
