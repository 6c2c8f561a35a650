import io
import json

import numpy as np
import pytest
from PIL import Image

from zsbir.data.images import BadImage
from zsbir.data.strokes import drawing_starts, parse, read_drawing, render

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
    starts = list(drawing_starts(file, 10))
    assert [number for number, _ in starts] == [0, 2, 3]
    assert list(drawing_starts(file, 2)) == starts[:2]
    images = [Image.open(io.BytesIO(read_drawing(file, start))) for _, start in starts]
    assert all((image.format, image.mode, image.size) == ("PNG", "L", (256, 256)) for image in images)
    assert images[0].tobytes() == images[2].tobytes() != images[1].tobytes()


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
