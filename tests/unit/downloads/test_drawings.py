"""The first drawings of a Quick, Draw! file, whole or cut, sound or hostile."""

from __future__ import annotations

import json

import pytest
from published import made_up_drawings

from zsbir.base.errors import InputError
from zsbir.data.images import decode
from zsbir.data.strokes import parse, render
from zsbir.downloads.drawings import drawings

LINES = made_up_drawings("sea turtle", 40)


def written(folder, data):
    file = folder / "sea_turtle.ndjson"
    file.write_bytes(data)
    return file


def test_the_first_recognised_drawings_of_the_word_are_drawn(tmp_path):
    found = list(drawings(written(tmp_path, LINES), "sea turtle", 7, 10**6))
    assert [one.name for one in found] == [str(10**15 + number) for number in (0, 1, 2, 4, 5, 6, 8)]
    first = render(parse(LINES.split(b"\n")[0]))
    assert decode(found[0].png).convert("L").tobytes() == first.tobytes()


def test_a_file_that_is_cut_in_a_line_gives_the_drawings_before(tmp_path, capsys):
    cut = LINES[: len(LINES) // 2 + 20]
    whole = cut.rpartition(b"\n")[0]
    names = [one.name for one in drawings(written(tmp_path, cut), "sea turtle", 99, 10**6)]
    assert names == [one.name for one in drawings(written(tmp_path, whole), "sea turtle", 99, 10**6)]
    assert names == [one.name for one in drawings(written(tmp_path, LINES), "sea turtle", 99, len(cut))]
    assert not capsys.readouterr().err


def test_the_same_drawing_twice_counts_once(tmp_path):
    line = LINES.split(b"\n")[0]
    found = list(drawings(written(tmp_path, line + b"\n" + LINES), "sea turtle", 5, 10**6))
    assert len({one.name for one in found}) == len(found) == 5


def test_lines_that_are_no_drawings_are_counted_and_passed_over(tmp_path, capsys):
    good = json.loads(LINES.split(b"\n")[0])
    bad = [
        b"{",
        b"[1, 2]" * 2,
        json.dumps({**good, "key_id": "../../evil"}).encode(),
        json.dumps({**good, "key_id": "7", "drawing": [[["a"], ["b"]]]}).encode(),
        json.dumps({**good, "key_id": "8", "drawing": [[[0, 1], [float("nan"), 1]]]}).encode(),
        json.dumps({**good, "key_id": "9", "drawing": [[[0] * 200_000, [0] * 200_000]]}).encode(),
    ]
    file = written(tmp_path, b"\n".join(bad) + b"\n" + LINES)
    assert len(list(drawings(file, "sea turtle", 5, 10**7))) == 5
    assert "sea_turtle.ndjson: 6 of 46 lines are no drawings, and were passed over" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", made_up_drawings("ant", 40), LINES[:200]])
def test_a_file_without_drawings_of_the_word_is_refused(tmp_path, data):
    with pytest.raises(InputError, match="drawings of 'sea turtle': is it the file of Quick, Draw!"):
        list(drawings(written(tmp_path, data), "sea turtle", 20, 10**6))
