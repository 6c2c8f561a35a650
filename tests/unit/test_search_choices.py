"""Flags of the command that choose photos and search options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pictures import drawing, encoded, picture
from servers.search_service import make_run

from zsbir.base.artifact import Artifact
from zsbir.base.cli import HelpAsked
from zsbir.base.errors import InputError
from zsbir.index import IndexConfig, Settings, build_index
from zsbir.retrieval.options import SearchOptions
from zsbir.search import Searcher, _parse, read_drawing

PHOTOS = [
    (f"{folder}/{number}.png", 5 * number, colour)
    for number, colour in enumerate(["red", "green"] * 3)
    for folder in ("a", "a/b", "ab")
]
"""Path, price and colour of each photo."""


@pytest.fixture(scope="module")
def sketch(module_path: Path) -> str:
    drawing().save(module_path / "drawing.png")
    return str(module_path / "drawing.png")


@pytest.fixture(scope="module")
def runs(module_path: Path) -> tuple[Artifact, Artifact]:
    """Runs with the same encoder, without statistics and with them."""
    return make_run(module_path / "old"), make_run(module_path / "new", statistics=True)


@pytest.fixture(scope="module")
def old(runs, module_path: Path) -> str:
    """An index of photos of which price and colour are known, without statistics."""
    return indexed(runs[0], module_path)


@pytest.fixture(scope="module")
def new(runs, module_path: Path) -> str:
    """The same with statistics."""
    return indexed(runs[1], module_path)


def indexed(run: Artifact, place: Path) -> str:
    for number, (path, _, _) in enumerate(PHOTOS):
        file = place / "photos" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture(60 + number, 40).rotate(19 * number)))
    (place / "known.csv").write_text(
        "\n".join(["path,price,colour", *(f"{path},{price},{colour}" for path, price, colour in PHOTOS)])
    )
    config = IndexConfig(gallery=str(place / "photos"), metadata=str(place / "known.csv"), precision="fp32")
    return build_index(run.uri, config, Settings(root=str(place / "root"))).uri


def found(*argv: str) -> list[tuple[str, float]]:
    hits = [json.loads(line) for line in _parse([*argv, "--json"]).splitlines()]
    return [(hit["path"], hit["score"]) for hit in hits]


CHOICES = {
    ("--folder", "a"): lambda path, price, colour: path.startswith("a/"),
    ("--folder", "a/b/"): lambda path, price, colour: path.startswith("a/b/"),
    ("--where", "price<10"): lambda path, price, colour: price < 10,
    ("--where", "price>=5", "--where", "price<=20"): lambda path, price, colour: 5 <= price <= 20,
    ("--where", "colour=red", "--where", "price>5", "--folder", "ab"): lambda path, price, colour: (
        colour == "red" and price > 5 and path.startswith("ab/")
    ),
    ("--where", "colour=red,green"): lambda path, price, colour: True,
    ("--where", "price>1000"): lambda path, price, colour: False,
}


@pytest.mark.parametrize("flags", CHOICES, ids=" ".join)
def test_what_flags_choose_is_what_is_left_of_a_search_of_everything(old, sketch, flags):
    left = {path for path, price, colour in PHOTOS if CHOICES[flags](path, price, colour)}
    everything = found(old, sketch, "-k", "18", "--plain")
    assert len(everything) == 18
    assert found(old, sketch, "-k", "18", "--plain", *flags) == [hit for hit in everything if hit[0] in left]


def test_where_flags_leave_no_photo_that_is_said(old, sketch, capsys):
    assert found(old, sketch, "--class", "bicycel") == []
    assert "no photo of this index is left by --class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--where", "price"], "is no condition"),
        (["--where", "weight<3"], "unknown column 'weight'"),
        (["--where", "colour<3"], "holds strings"),
        (["--plain", "--smooth", "3"], "--plain leaves all search options out, --smooth sets one"),
        (["--smooth", "-3"], "smooth"),
        (["--centring", "half"], "centring"),
        (["--smooth", "3"], "need statistics of the training embeddings"),
        (["--flip"], "unknown option '--flip'"),
    ],
)
def test_flags_that_cannot_be_followed_are_refused(old, sketch, flags, message):
    with pytest.raises(InputError, match=message):
        _parse([old, sketch, *flags])


def test_an_index_without_statistics_is_searched_plainly_and_says_so(old, sketch, capsys):
    assert found(old, sketch) == found(old, sketch, "--plain")
    said = capsys.readouterr().err
    assert said.count("searched without search options: the index has no statistics") == 1


def test_an_index_with_statistics_is_searched_by_the_defaults_and_says_so(new, sketch, capsys):
    improved = found(new, sketch)
    assert f"search options: {SearchOptions(flip=False).text()}; --plain leaves them out" in capsys.readouterr().err
    assert improved != found(new, sketch, "--plain")
    assert capsys.readouterr().err == ""
    searched = Searcher(new, "default").search(read_drawing(Path(sketch)), 10)
    assert improved == [(hit.path, hit.score) for hit in searched]


def test_single_options_are_set_by_flags_and_the_others_stay(new, sketch, capsys):
    flags = ["--centring", "centre", "--smooth", "3", "--caution", "0"]
    hits = found(new, sketch, *flags)
    options = SearchOptions(flip=False, centring="centre", smooth=3, caution=0)
    searched = Searcher(new, options).search(read_drawing(Path(sketch)), 10)
    assert hits == [(hit.path, hit.score) for hit in searched]
    assert capsys.readouterr().err == ""


def test_the_help_names_the_choices():
    with pytest.raises(HelpAsked) as asked:
        _parse(["--help"])
    for flag in ("--class NAME", "--folder PATH", "--where CONDITION", "--plain", "--smooth N", "--expand N", "--caution X"):
        assert flag in str(asked.value)
    assert "--flip" not in str(asked.value)
