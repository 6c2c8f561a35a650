"""The table of classes that `ingest` prints and `artifacts show` repeats."""

import json

import pytest

from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.data.class_table import MOST_CLASSES, ClassRow, class_table, classes_of


def row(name, split, photos=10, sketches=5):
    return ClassRow(name=name, split=split, photos=photos, sketches=sketches)


def test_each_split_has_its_sums_and_each_of_few_classes_a_line():
    rows = [row("bat", "unseen", 7, 3), row("car", "train", 1200), row("ant", "train"), row("cow", "dev")]
    assert class_table(rows).splitlines() == [
        "split     classes     photos   sketches",
        "train           2      1,210         10",
        "dev             1         10          5",
        "unseen          1          7          3",
        "all             4      1,227         18",
        "unseen: bat",
        "  ant  train          10          5",
        "  car  train       1,200          5",
        "  cow  dev            10          5",
        "  bat  unseen          7          3",
    ]


def test_of_many_classes_the_smallest_are_shown_and_the_unseen_ones_are_named():
    rows = [row(f"c{number:03}", "train") for number in range(MOST_CLASSES)] + [row("owl", "unseen", 9, 2)]
    lines = class_table(rows).splitlines()
    assert lines[5] == "unseen: owl"
    assert lines[6].startswith("smallest: owl (unseen, 9 photos, 2 sketches), c000 (train, 10 photos, 5 sketches), ")
    assert len(lines) == 7
    many = class_table([row(f"c{number:03}", "unseen") for number in range(100)])
    assert "c039 and 60 more (classes.json)" in many


def test_long_and_odd_names_cannot_spoil_the_table():
    text = class_table([row("x" * 500, "train"), row("a\x1b[2J\nb", "unseen")])
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 120
    assert len(text.splitlines()) == 8


def stored(folder, contents):
    with draft(folder / "datasets/x/1", "dataset", "x") as work:
        work.file("classes.json").write_text(json.dumps(contents))
        return work.commit(digest="a" * 64)


def test_the_classes_of_a_data_set_are_read_from_it(tmp_path):
    rows = [{"class_id": 0, "name": "bat", "split": "unseen", "photos": 3, "sketches": 4}]
    assert classes_of(stored(tmp_path, rows)) == [row("bat", "unseen", 3, 4)]


@pytest.mark.parametrize(
    "contents",
    [
        {"bat": 1},
        [1],
        [{"name": "bat", "split": "unseen", "photos": -1, "sketches": 4}],
        [{"name": "bat", "split": "test", "photos": 1, "sketches": 4}],
        [{"name": ["bat"], "split": "dev", "photos": 1, "sketches": 4}],
        [{"name": "bat", "split": "dev"}],
    ],
)
def test_classes_of_a_stranger_that_make_no_sense_are_one_line(tmp_path, contents):
    with pytest.raises(InputError, match=r"classes\.json: ") as told:
        classes_of(stored(tmp_path, contents))
    assert "\n" not in str(told.value)
