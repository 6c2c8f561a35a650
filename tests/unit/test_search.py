"""What a search shows of an index that a stranger made."""

import json

import pytest
import torch
from building import put
from pictures import drawing, encoded, picture
from PIL import Image, ImageChops, ImageOps

from zsbir.base.errors import InputError
from zsbir.data.ink import QUICKDRAW, Ink, ink_facts
from zsbir.data.strokes import draw_query, parse_strokes
from zsbir.index import IndexConfig, Settings, build_index
from zsbir.model.encoder import Encoder
from zsbir.search import Hit, _parse, table


def test_a_table_of_hits_gives_no_orders_to_the_terminal_and_has_one_line_a_hit():
    hits = [Hit(1, 0.9, 0, "cup\x1b[2J", "a\n   2   1.000  gold  /etc/passwd"), Hit(2, 0.8, 1, "", "photo/\u202egpj.exe")]
    assert table(hits).split("\n") == [
        "rank   score  class                 path",
        r"   1   0.900  cup\x1b[2J            a\n   2   1.000  gold  /etc/passwd",
        r"   2   0.800  -                     photo/\u202egpj.exe",
    ]


def test_a_table_has_a_column_of_probabilities_where_scores_are_calibrated():
    lines = table([Hit(1, 0.9, 0, "cup", "a", 0.876), Hit(2, 0.8, 1, "", "b", 0.0)]).split("\n")
    assert lines == [
        "rank   score  probability  class                 path",
        "   1   0.900         0.88  cup                   a",
        "   2   0.800         0.00  -                     b",
    ]


@pytest.fixture
def index(tmp_path):
    """An index of two photos, made by an encoder that nobody trained."""
    torch.manual_seed(0)
    Encoder("resnet18", 8, 32).save(tmp_path / "encoder")
    run = put(str(tmp_path / "root"), "run", files={"encoder.safetensors": (tmp_path / "encoder").read_bytes()})
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "photos" / name).write_bytes(encoded(picture()))
    return build_index(run.uri, IndexConfig(gallery=str(tmp_path / "photos")), Settings(root=str(tmp_path / "root"))).uri


def test_a_drawing_that_is_light_on_dark_is_pointed_out_and_turned_when_asked(index, tmp_path, capsys):
    drawing().save(tmp_path / "dark on light.png")
    ImageOps.invert(drawing()).save(tmp_path / "light on dark.png")
    capsys.readouterr()
    plain = _parse([index, f"file://{tmp_path}/dark%20on%20light.png", "--json"])
    assert "warning" not in capsys.readouterr().err
    assert _parse([index, str(tmp_path / "light on dark.png"), "--json"]) != plain
    assert "warning: the drawing is light strokes on a dark background" in capsys.readouterr().err
    assert _parse([index, str(tmp_path / "light on dark.png"), "--invert", "--json"]) == plain
    assert "warning" not in capsys.readouterr().err


def test_a_grid_shows_every_photo_found_with_its_name_and_says_what_it_leaves_out(index, tmp_path, capsys, monkeypatch):
    drawing().save(tmp_path / "drawing.png")
    _parse([index, str(tmp_path / "drawing.png"), "--grid", str(tmp_path / "found.png"), "-k", "2"])
    assert f"picture: {tmp_path / 'found.png'}\n" in capsys.readouterr().err
    both = Image.open(tmp_path / "found.png").convert("L")
    monkeypatch.setattr("zsbir.evaluation.grid.MOST_FOUND", 1)
    _parse([index, str(tmp_path / "drawing.png"), "--grid", str(tmp_path / "found.png"), "-k", "2"])
    assert f"picture: {tmp_path / 'found.png'}, with the first 1 of 2 photos\n" in capsys.readouterr().err
    first = Image.open(tmp_path / "found.png").convert("L")
    assert first.size == both.size
    changed = ImageChops.difference(first, both).getbbox()
    assert changed[0] > both.width / 3 - 20, "the first photo and the drawing are as before"


# --- strokes in place of a picture

STROKES = [[[0, 90, 50, 0], [90, 90, 10, 90]], [[20, 70], [60, 60]]]


def inked(tmp_path, ink):
    """An index of two photos, whose run states an ink."""
    torch.manual_seed(0)
    Encoder("resnet18", 8, 32).save(tmp_path / "encoder")
    files = {"encoder.safetensors": (tmp_path / "encoder").read_bytes()}
    run = put(str(tmp_path / "root"), "run", files=files, facts=ink_facts(ink))
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "photos" / name).write_bytes(encoded(picture()))
    return build_index(run.uri, IndexConfig(gallery=str(tmp_path / "photos")), Settings(root=str(tmp_path / "root"))).uri


def test_strokes_find_what_their_picture_in_the_indexs_ink_finds(tmp_path):
    index = inked(tmp_path, Ink(line_width=0.06, margin=0.2))
    (tmp_path / "strokes.json").write_text(json.dumps(STROKES))
    draw_query(parse_strokes(STROKES), Ink(line_width=0.06, margin=0.2)).save(tmp_path / "same ink.png")
    draw_query(parse_strokes(STROKES), QUICKDRAW).save(tmp_path / "other ink.png")
    found = _parse([index, str(tmp_path / "strokes.json"), "--json"])
    assert found == _parse([index, str(tmp_path / "same ink.png"), "--json"])
    assert found != _parse([index, str(tmp_path / "other ink.png"), "--json"])
    with pytest.raises(InputError, match="--invert is for pictures"):
        _parse([index, str(tmp_path / "strokes.json"), "--invert"])


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", "{", "cannot read the strokes"),
        ("a.json", "", "cannot read the strokes"),
        ("a.json", '{"word": "cat"}', "a drawing is a list of strokes"),
        ("a.json", "[[[NaN],[1]]]", "NaN is not JSON"),
        ("a.json", "[" * 1000 + "]" * 1000, "nested more than"),
        ("a.json", "[[[1e7],[1]]]", "beyond 1e[+]06"),
        ("a.ndjson", "\n\n", "cannot read the strokes"),
        ("a.ndjson", "version https://git-lfs.github.com/spec/v1", "cannot read the strokes"),
        ("a.json", " " * 10_000_001, "more than 10000000 bytes"),
    ],
)
def test_a_file_without_strokes_is_an_error_in_one_line_before_the_index_is_opened(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason) as error:
        _parse([str(tmp_path / "no index"), str(tmp_path / name)])
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no drawing at"):
        _parse([str(tmp_path / "no index"), str(tmp_path / "nothing.json")])
