import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zsbir.base.errors import InputError
from zsbir.base.storage import open_folder
from zsbir.data.images import BadImage
from zsbir.data.strokes import drawings, parse, read_drawing, render

SQUARE = [[[0, 100, 100, 0, 0], [0, 0, 50, 50, 0]]]


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_drawing_fills_the_image_but_for_its_margin_and_keeps_its_proportions():
    dark = np.argwhere(np.asarray(render(parse(json.dumps({"drawing": SQUARE}).encode()))) < 128)
    (top, left), (bottom, right) = dark.min(0), dark.max(0)
    assert abs((right - left) - 228) <= 4
    assert abs((bottom - top) - 114) <= 4
    assert abs(left + right - 255) <= 2
    assert abs(top + bottom - 255) <= 2


def test_raw_drawings_with_times_are_read_too():
    raw = [[*SQUARE[0], [0, 10, 20, 30, 40]]]
    assert np.array_equal(render(parse(json.dumps({"drawing": raw}).encode())), render([np.array(SQUARE[0], float).T]))


def test_a_dot_is_a_drawing():
    assert np.asarray(render([np.array([[5.0, 5.0]])])).min() < 50


def test_only_recognised_drawings_are_listed_and_each_is_found_by_its_offset(tmp_path):
    file = write(
        tmp_path / "cat.ndjson",
        {"word": "cat", "recognized": True, "drawing": SQUARE},
        {"word": "cat", "recognized": False, "drawing": SQUARE},
        {"word": "cat", "recognized": True, "drawing": [[[0, 9], [0, 9]]]},
        {"word": "cat", "drawing": SQUARE},
    )
    folder = open_folder(file.parent)
    lines = list(drawings(folder, "cat.ndjson", 10))
    assert [line.number for line in lines] == [0, 2, 3]
    assert list(drawings(folder, "cat.ndjson", 2)) == lines[:2]
    images = [Image.open(io.BytesIO(read_drawing(folder, "cat.ndjson", line.start, line.length))) for line in lines]
    assert all((image.format, image.mode, image.size) == ("PNG", "L", (256, 256)) for image in images)
    assert images[0].tobytes() == images[2].tobytes() != images[1].tobytes()


class Bytes:
    """A folder of one file, which tells how much of it was read."""

    uri = "memory"

    def __init__(self, data):
        self.data, self.asked = data, []

    def read_range(self, key, start, length):
        self.asked.append((start, length))
        return self.data[start : start + length]


@given(st.lists(st.sampled_from([b"{}", b" ", b"", b'{"recognized": false}', b'{"a": "\r\x0b"}', b"[" * 30])), st.integers(1, 40))
def test_by_the_piece_a_file_has_the_lines_that_it_has_as_a_whole(lines, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zsbir.data.strokes._PIECE_BYTES", piece)
        for data in (b"\n".join(lines), b"".join(line + b"\n" for line in lines)):
            got = list(drawings(Bytes(data), "cat.ndjson", 100))
            good = [number for number, line in enumerate(lines) if line.strip() and b"false" not in line]
            assert [line.number for line in got] == good
            assert [data[line.start : line.start + line.length] for line in got] == [lines[number] for number in good]


def test_no_more_of_a_file_is_read_than_its_first_drawings_need(monkeypatch):
    monkeypatch.setattr("zsbir.data.strokes._PIECE_BYTES", 100)
    folder = Bytes(b'{"drawing": 1}\n' * 1000)
    assert len(list(drawings(folder, "cat.ndjson", 10))) == 10
    assert folder.asked == [(0, 100), (100, 100)]


def test_a_file_without_lines_is_an_input_error(monkeypatch):
    monkeypatch.setattr("zsbir.data.strokes._PIECE_BYTES", 100)
    monkeypatch.setattr("zsbir.data.strokes._MAX_LINE_BYTES", 1000)
    folder = Bytes(b"{}\n" + b"[" * 10_000)
    with pytest.raises(InputError, match=r"memory/cat.ndjson: a line before byte 1100 is too long .* is this .ndjson\?"):
        list(drawings(folder, "cat.ndjson", 10))
    assert len(folder.asked) == 11


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"[1, 2]",
        b'{"word": "cat"}',
        b'{"drawing": []}',
        b'{"drawing": [[[], []]]}',
        b'{"drawing": [[[1, 2], [3]]]}',
        b'{"drawing": [[["a"], ["b"]]]}',
        b'{"drawing": [[[NaN], [1]]]}',
        b'{"drawing": [[[1e999], [1]]]}',
        b'{"drawing": 7}',
        b"[" * 100_000,
    ],
)
def test_a_broken_line_is_a_bad_image(line):
    with pytest.raises(BadImage):
        parse(line)


def test_a_byte_order_mark_costs_no_drawing(tmp_path):
    record = json.dumps({"word": "cat", "recognized": True, "drawing": SQUARE}).encode()
    (tmp_path / "cat.ndjson").write_bytes(b"\xef\xbb\xbf" + record + b"\r\n" + record)
    folder = open_folder(tmp_path)
    lines = list(drawings(folder, "cat.ndjson", 10))
    assert [read_drawing(folder, "cat.ndjson", line.start, line.length)[:4] for line in lines] == [b"\x89PNG"] * 2


def test_a_file_that_was_broken_off_loses_its_last_drawing_alone(tmp_path):
    record = json.dumps({"word": "cat", "recognized": True, "drawing": SQUARE}).encode() + b"\n"
    (tmp_path / "cat.ndjson").write_bytes(record * 2 + record[:-9])
    folder = open_folder(tmp_path)
    first, second, last = drawings(folder, "cat.ndjson", 10)
    for line in (first, second):
        read_drawing(folder, "cat.ndjson", line.start, line.length)
    with pytest.raises(BadImage, match="not a QuickDraw drawing"):
        read_drawing(folder, "cat.ndjson", last.start, last.length)


def test_a_pointer_in_place_of_the_drawings_is_named():
    with pytest.raises(BadImage, match="a Git LFS pointer instead of the file itself: run git lfs pull"):
        parse(b"version https://git-lfs.github.com/spec/v1")
