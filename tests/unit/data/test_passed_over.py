import os

import pyarrow as pa

from zsbir.data.passed_over import PassedOver
from zsbir.data.schema import PASSED_OVER_SCHEMA

PHOTO = "no ending such as .jpg in the name: rename it"


def test_what_was_passed_over_is_counted_and_named_by_reason_the_most_frequent_first():
    passed = PassedOver([("b", PHOTO), ("README.md", "not an image by its name"), ("a", PHOTO)])
    assert len(passed) == 3
    assert passed.facts() == [
        {"reason": PHOTO, "count": 2, "examples": ["a", "b"]},
        {"reason": "not an image by its name", "count": 1, "examples": ["README.md"]},
    ]
    assert [row["path"] for row in passed.rows()] == ["a", "b", "README.md"]


def test_names_that_no_table_can_hold_are_written_as_escapes():
    passed = PassedOver([(os.fsdecode(b"caf\xe9.png"), "x"), ("new\nline.png", "x")])
    table = pa.Table.from_pylist(list(passed.rows()), PASSED_OVER_SCHEMA)
    assert table["path"].to_pylist() == ["caf\\xe9.png", "new\\nline.png"]


def test_a_table_is_printed_as_a_warning_unless_nothing_is_lost(capsys):
    PassedOver([("README.md", "not an image by its name"), (".DS_Store", "made by macOS")]).show("passed over in /data")
    assert capsys.readouterr().err.startswith("passed over in /data: 2, by reason\n       1  made by macOS")
    PassedOver([(f"{number}", PHOTO) for number in range(2000)]).show("passed over in /data")
    assert capsys.readouterr().err == f"warning: passed over in /data: 2000, by reason\n   2,000  {PHOTO}  0, 1, 10, ...\n"
    PassedOver().show("passed over in /data")
    assert capsys.readouterr().err == ""


def test_a_table_of_many_reasons_is_cut_and_says_so(capsys):
    PassedOver([(f"{number}", f"reason {number:02d}") for number in range(25)]).show("refused images")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 22
    assert lines[-1].strip() == "5  for 5 other reasons"


def test_what_was_passed_over_in_a_folder_is_said_in_a_few_words():
    passed = PassedOver(
        [("photo/ant/1.heic", ".heic is not read"), ("photo/ant/2.heic", ".heic is not read"), ("photo/antler/x", "x")]
    )
    assert passed.below("photo/ant") == "2 passed over: .heic is not read"
    assert passed.below("photo/bee") == ""
