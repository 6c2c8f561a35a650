import io
import json
import time
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from zsbir.base import limits
from zsbir.base.errors import InputError
from zsbir.base.storage import open_folder
from zsbir.data.images import BadImage, eval_array
from zsbir.data.ink import QUICKDRAW, Ink
from zsbir.data.strokes import draw_query, drawings, framed, parse, parse_strokes, prefix, read_drawing, read_strokes, render
from zsbir.model.encoder import Encoder

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


# --- strokes of queries

HOSTILE = {
    "null": None,
    "a text": "[[[0],[0]]]",
    "a mapping": {"0": [[0], [0]]},
    "nothing": [],
    "empty strokes": [[[], []]] * 5,
    "points instead of strokes": [[0, 0], [1, 1]],
    "one list": [[[1, 2]]],
    "four lists": [[[1], [2], [3], [4]]],
    "unequal lengths": [[[1, 2], [3]]],
    "too few times": [[[1, 2], [3, 4], [0]]],
    "NaN": [[[float("nan")], [1]]],
    "infinity": [[[1], [float("-inf")]]],
    "a bool": [[[True], [1]]],
    "a text as coordinate": [[["1"], ["2"]]],
    "null as coordinate": [[[None], [1]]],
    "a list as coordinate": [[[[1]], [1]]],
    "a giant canvas": [[[0, 1e7], [0, 0]]],
    "far to the left": [[[0, -1e7], [0, 0]]],
    "an integer of a thousand digits": [[[10**1000], [0]]],
    "a million points": [[[1] * 10**6] * 2],
    "a million points in two thousand strokes": [[[1] * 500] * 2] * limits.DRAWING_STROKES,
    "one point too many": [[[1] * (limits.DRAWING_POINTS + 1)] * 2],
    "one stroke too many": [[[1], [1]]] * (limits.DRAWING_STROKES + 1),
    "a hundred thousand empty strokes": [[[], []]] * 100_000,
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_strokes_that_are_none_are_refused_in_one_line_before_memory_is_taken(value):
    tracemalloc.start()
    start_s = time.process_time()
    try:
        with pytest.raises(BadImage) as error:
            parse_strokes(value)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert time.process_time() - start_s < 1
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=20,
)
COORDINATE = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)


@given(JSON | st.lists(st.lists(st.lists(COORDINATE | JSON, max_size=3), min_size=2, max_size=3), max_size=3))
def test_whatever_json_holds_it_is_drawn_or_refused(value):
    try:
        strokes = parse_strokes(value)
    except BadImage:
        return
    assert all(stroke.shape[1] == 2 and len(stroke) for stroke in strokes)
    assert render(strokes, 64).size == (64, 64)


def test_strokes_have_two_lists_or_a_third_one_of_times_and_empty_ones_are_left_out():
    x, y = [0, -10.5, 100], [5, 6, 7]
    with_times = parse_strokes([[x, y, [0, "any", None]], [[], []], [[1], [2]]])
    without = parse_strokes([[x, y], [[1], [2]]])
    assert [stroke.tolist() for stroke in with_times] == [[[0, 5], [-10.5, 6], [100, 7]], [[1, 2]]]
    assert [stroke.tolist() for stroke in without] == [stroke.tolist() for stroke in with_times]


def test_the_largest_drawing_that_is_allowed_is_drawn():
    zigzag = list(range(limits.DRAWING_POINTS // 2))
    strokes = parse_strokes([[zigzag, [number % 2 * 1e6 for number in zigzag]], [zigzag, zigzag]])
    assert render(strokes).getextrema()[0] == 0


def as_version_0_1_0_drew_it(strokes):
    """The renderer with which QuickDraw's strokes were ingested before there was ink."""
    points = np.concatenate(strokes)
    low, extent = points.min(0), points.max(0) - points.min(0)
    scale = 2 * (256 - 2 * 14) / max(float(extent.max()), 1e-6)
    offset = 2 * 256 / 2 - (low + extent / 2) * scale
    image = Image.new("L", (512, 512), 255)
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        path = [(x, y) for x, y in (stroke * scale + offset).tolist()]
        if len(path) > 1:
            pen.line(path, fill=0, width=6, joint="curve")
        for x, y in (path[0], path[-1]):
            pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=0)
    return image.resize((256, 256), Image.Resampling.BOX)


def points(coordinate):
    return st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=8).map(lambda pairs: np.array(pairs, float))


WHOLE = st.lists(points(st.integers(0, 255)), min_size=1, max_size=5)
"""Drawings in QuickDraw's simplified form."""


@given(WHOLE | st.lists(points(st.floats(-2000, 2000)), min_size=1, max_size=3))
def test_quickdraws_strokes_are_drawn_to_the_byte_as_before_so_data_sets_keep_their_digests(strokes):
    assert render(strokes).tobytes() == as_version_0_1_0_drew_it(strokes).tobytes()
    assert render(strokes, 256, QUICKDRAW).tobytes() == as_version_0_1_0_drew_it(strokes).tobytes()


def test_quickdraws_file_is_read_as_before(shared):
    line = (shared / "data/strokes/bear.ndjson").read_bytes().split(b"\n")[0]
    before = [np.array(stroke[:2], float).T for stroke in json.loads(line)["drawing"]]
    assert all(np.array_equal(old, new) for old, new in zip(before, parse(line), strict=True))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps(SQUARE)),
        ("a.JSON", json.dumps({"strokes": SQUARE, "canvas": {"width": 100, "height": 100}})),
        ("a.json", "\ufeff" + json.dumps({"drawing": SQUARE})),
        ("a.ndjson", "\n" + json.dumps({"word": "box", "drawing": SQUARE}) + "\r\n" + json.dumps({"drawing": [[[0], [0]]]})),
        ("a.ndjson", json.dumps(SQUARE)),
    ],
)
def test_a_file_holds_the_strokes_themselves_or_a_mapping_that_names_them_or_lines_of_those(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert [stroke.T.tolist() for stroke in read_strokes(tmp_path / name)] == SQUARE


# --- one drawing, captured in several ways: what differs between two devices

INKS = st.sampled_from(
    [QUICKDRAW, Ink(line_width=0.013, margin=0.054), Ink(line_width=0.03, margin=0.1, down=0), Ink(keeps_proportions=False)]
)


def difference(one, other):
    """Mean difference of two pictures in grey levels, of 255."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def resampled(stroke, between):
    """The same line with more points on it."""
    steps = np.arange(between) / between
    lines = [a + (b - a) * steps[:, None] for a, b in pairwise(stroke)]
    return np.concatenate([*lines, stroke[-1:]])


def as_sent(strokes):
    """The strokes as a page sends them, checked."""
    return parse_strokes([stroke.T.tolist() for stroke in strokes])


@given(WHOLE, INKS, st.sampled_from([2, 3, 0.5, 1.25, 1 / 3]), st.integers(-500, 500), st.integers(0, 3000))
def test_size_pixel_ratio_and_place_on_the_canvas_change_nothing_beyond_the_rounding_of_a_line(strokes, ink, ratio, right, down):
    there = as_sent([stroke * ratio + [right, down] for stroke in strokes])
    assert difference(draw_query(as_sent(strokes), ink), draw_query(there, ink)) < 1
    if ratio in (2, 3, 0.5):
        assert draw_query(as_sent(strokes), ink).tobytes() == draw_query(there, ink).tobytes()


@given(WHOLE, INKS, st.integers(2, 12))
def test_more_points_on_the_same_lines_change_the_picture_by_less_than_four_grey_levels(strokes, ink, between):
    dense = [resampled(stroke, between) for stroke in strokes]
    assert difference(draw_query(as_sent(strokes), ink), draw_query(as_sent(dense), ink)) < 4


@given(WHOLE, st.integers(1, 3))
def test_times_and_repeated_points_change_nothing(strokes, repeats):
    repeated = [np.repeat(stroke, repeats, axis=0) for stroke in strokes]
    value = [[*stroke.T.tolist(), list(range(len(stroke)))] for stroke in repeated]
    assert difference(render(strokes), render(parse_strokes(value))) < 0.5


def test_a_drawing_in_quickdraws_frame_stays_as_it_is():
    strokes = [np.array([[0.0, 17.0], [255.0, 30.0]]), np.array([[100.0, 0.0]])]
    assert all(np.array_equal(old, new) for old, new in zip(strokes, framed(strokes), strict=True))
    assert [stroke.tolist() for stroke in framed([np.array([[1e6, -1e6]])])] == [[[0, 0]]]


def curves(rng):
    """A drawing of four curves, in whole pixels of a canvas."""
    turns = [np.linspace(0, rng.uniform(0.4, 1), 30) * 2 * np.pi + rng.uniform(0, 6) for _ in range(4)]
    arcs = [rng.uniform(size=2) + rng.uniform(0.1, 0.6, 2) * np.stack([np.cos(turn), np.sin(turn)], 1) for turn in turns]
    return [np.round(300 * arc) for arc in arcs]


def test_one_drawing_from_several_devices_has_nearly_one_embedding_and_the_same_first_result():
    torch.manual_seed(0)
    encoder, rng, ink = Encoder("resnet18", 64, 64).eval(), np.random.default_rng(0), Ink(line_width=0.013, margin=0.054)
    drawn = [curves(rng) for _ in range(16)]
    devices = {
        "another place": [[stroke + np.array([40, 7]) for stroke in strokes] for strokes in drawn],
        "pixel ratio 3": [[stroke * 3 for stroke in strokes] for strokes in drawn],
        "a phone's small canvas": [[np.round(stroke * 0.8) for stroke in strokes] for strokes in drawn],
        "a pen with many samples": [[resampled(stroke, 6) for stroke in strokes] for strokes in drawn],
    }

    def embedded(sent):
        pixels = np.stack([eval_array(draw_query(as_sent(strokes), ink), 64) for strokes in sent])
        with torch.inference_mode():
            return encoder(torch.from_numpy(pixels))[0].numpy()

    at_home = embedded(drawn)
    centre = at_home.mean(0)
    gallery = at_home - centre  # an untrained encoder finds everything alike, but for what is left without the mean
    for device, sent in devices.items():
        vectors = embedded(sent)
        assert (vectors * at_home).sum(1).min() > 0.999, device
        ranked = np.argsort(-(vectors - centre) @ gallery.T, axis=1)
        assert np.array_equal(ranked[:, 0], np.arange(len(drawn))), device


# --- a drawing in the making


@given(WHOLE, st.floats(0.01, 1))
def test_a_part_of_a_drawing_is_its_first_points(strokes, share):
    begun, whole = np.concatenate(prefix(strokes, share)), np.concatenate(strokes)
    assert np.array_equal(begun, whole[: len(begun)])
    assert abs(len(begun) - max(1, share * len(whole))) <= 0.5
    assert all(len(stroke) for stroke in prefix(strokes, share))


@given(WHOLE)
def test_a_whole_drawing_is_its_own_last_part(strokes):
    assert [stroke.tolist() for stroke in prefix(strokes, 1.0)] == [stroke.tolist() for stroke in strokes]


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, float("nan")])
def test_there_is_no_part_of_nothing_or_of_more_than_all(share):
    with pytest.raises(ValueError, match="share must be above 0 and at most 1"):
        prefix([np.zeros((3, 2))], share)
