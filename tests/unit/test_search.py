"""What a search shows of an index that a stranger made."""

import pytest
import torch
from building import put
from pictures import drawing, encoded, picture
from PIL import Image, ImageChops, ImageOps

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
