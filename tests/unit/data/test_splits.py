import json

import pytest

from zsbir.base.errors import InputError
from zsbir.data.splits import ClassLists, assign, draw_unseen, hinted, lonely, read_lists

NAMES = [f"class_{number:02d}" for number in range(20)]


def test_a_text_file_names_an_unseen_class_a_line(tmp_path):
    file = tmp_path / "unseen.txt"
    file.write_text("alarm clock\n\n  t-shirt \n")
    assert read_lists(file) == ClassLists(unseen=("alarm clock", "t-shirt"))


def test_a_json_file_may_also_name_seen_and_dev_classes(tmp_path):
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"name": "mine", "unseen": ["a"], "seen": ["b", "c"], "dev": ["c"]}))
    assert read_lists(file) == ClassLists(unseen=("a",), seen=("b", "c"), dev=("c",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be"),
        ('{"seen": []}', "must be"),
        ('{"unseen": "cat"}', "list of class names"),
        ('{"unseen": [1]}', "list of class names"),
    ],
)
def test_a_file_that_is_no_split_is_named(tmp_path, text, message):
    file = tmp_path / "split.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_lists(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot read the split file"):
        read_lists(tmp_path / "nowhere.txt")


def test_a_file_in_object_storage_is_read_too(bucket):
    bucket.put("splits/mine.JSON", json.dumps({"unseen": ["a"], "dev": ["c"]}).encode())
    bucket.put("unseen.txt", b"alarm clock\r\nt-shirt\n")
    assert read_lists(f"{bucket.uri}/splits/mine.JSON") == ClassLists(unseen=("a",), dev=("c",))
    assert read_lists(f"{bucket.uri}/unseen.txt") == ClassLists(unseen=("alarm clock", "t-shirt"))
    with pytest.raises(InputError, match=f"cannot read the split file '{bucket.uri}/nowhere.txt'"):
        read_lists(f"{bucket.uri}/nowhere.txt")
    with pytest.raises(InputError, match="there is no bucket"):
        read_lists("s3://no-such-bucket/unseen.txt")


def test_a_split_file_of_other_bytes_than_text_is_an_input_error(tmp_path):
    (tmp_path / "unseen.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match=r"the split file .*unseen\.txt' is not a text file in UTF-8: line 1 holds the byte 0xe9"):
        read_lists(str(tmp_path / "unseen.txt"))


def test_dev_classes_are_drawn_from_the_seen_ones_by_the_seed():
    lists = ClassLists(unseen=tuple(NAMES[:5]))
    first, again, other = (assign(NAMES, lists, dev_frac=0.2, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert list(first.values()).count("dev") == 3
    assert {name for name, split in first.items() if split == "unseen"} == set(NAMES[:5])
    assert set(first) == set(NAMES)


def test_dev_has_at_least_two_classes_or_none():
    assert list(assign(NAMES, ClassLists(("class_00",)), dev_frac=0.01, seed=0).values()).count("dev") == 2
    assert "dev" not in assign(NAMES, ClassLists(("class_00",)), dev_frac=0.0, seed=0).values()


def test_named_dev_and_seen_classes_are_taken_as_they_are():
    splits = assign(NAMES, ClassLists(("class_00",), ("class_01", "class_02", "class_03"), ("class_03",)), dev_frac=0.5, seed=0)
    assert splits == {"class_00": "unseen", "class_01": "train", "class_02": "train", "class_03": "dev"}


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (ClassLists(("class_00", "klass_01")), "unknown unseen class 'klass_01'; did you mean"),
        (ClassLists(("class_00",), seen=("nothing",)), "unknown seen class 'nothing'"),
        (ClassLists(("class_00",), dev=("class_00",)), "unknown dev class"),
        (ClassLists(("class_00",), seen=("class_00", "class_01")), "both seen and unseen"),
        (ClassLists(tuple(NAMES[1:])), "at least 2 classes"),
        (ClassLists(), "no class is unseen"),
    ],
)
def test_a_split_that_cannot_be_is_refused(lists, message):
    with pytest.raises(InputError, match=message):
        assign(NAMES, lists, dev_frac=0.0, seed=0)


def test_a_share_of_unseen_classes_is_drawn_by_the_seed():
    assert len(draw_unseen(NAMES, 0.25, seed=0).unseen) == 5
    assert draw_unseen(NAMES, 0.25, seed=0) == draw_unseen(NAMES[::-1], 0.25, seed=0)
    assert len(draw_unseen(NAMES, 0.001, seed=0).unseen) == 2, "among one class every search is right"


def test_hints_of_lists_become_the_split():
    assert hinted([("cat", "unseen"), ("dog", "seen"), ("dog", "seen")]) == ClassLists(unseen=("cat",))
    assert hinted([("cat", None)]) is None
    with pytest.raises(InputError, match="'cat' is in a list of seen and in one of unseen"):
        hinted([("cat", "unseen"), ("cat", "seen")])


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_the_first_class(tmp_path, mark):
    (tmp_path / "unseen.TXT").write_text("cup\n\ndog\n", mark)
    (tmp_path / "split.json").write_text(json.dumps({"unseen": ["cup"], "dev": ["dog"]}), mark)
    assert read_lists(tmp_path / "unseen.TXT") == ClassLists(unseen=("cup", "dog"))
    assert read_lists(tmp_path / "split.json") == ClassLists(unseen=("cup",), dev=("dog",))


def test_a_split_file_that_is_something_else_is_named_by_what_it_is(tmp_path):
    (tmp_path / "split.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(InputError, match=r"split\.json is a Git LFS pointer instead of the file itself: run git lfs pull"):
        read_lists(tmp_path / "split.json")
    (tmp_path / "unseen.txt").write_text("\ufeff\n \n", "utf-8")
    with pytest.raises(InputError, match="names no class"):
        read_lists(tmp_path / "unseen.txt")


@pytest.mark.parametrize("other", ["Class_00", "class-00", "class_00_", "class 00 ", "class_00\u200b"])
def test_a_class_that_is_unseen_in_one_spelling_and_seen_in_another_is_refused(other):
    with pytest.raises(InputError, match=r"'class_00' \(unseen\) and .* \(seen\) differ in their spelling alone"):
        assign([*NAMES, other], ClassLists(("class_00",)), dev_frac=0.0, seed=0)
    splits = assign([*NAMES, other], ClassLists(("class_00", other)), dev_frac=0.0, seed=0)
    assert splits["class_00"] == splits[other] == "unseen"
    left_out = assign([*NAMES, other], ClassLists(("class_00",), seen=tuple(NAMES[1:])), dev_frac=0.0, seed=0)
    assert other not in left_out, "what takes no part leaks nothing"


def test_a_single_class_that_something_is_measured_on_is_pointed_out():
    (unseen,) = lonely({"a": "train", "b": "train", "cup": "unseen"})
    assert unseen.startswith("'cup' is the only unseen class, and every score of a search among one class is 1; ")
    assert "--unseen-classes" in unseen
    (dev,) = lonely({"a": "train", "bee": "dev", "cup": "unseen", "dog": "unseen"})
    assert dev.startswith("'bee' is the only dev class")
    assert lonely({"a": "train", "b": "dev", "c": "dev", "d": "unseen", "e": "unseen"}) == []
    assert lonely({"a": "train", "d": "unseen", "e": "unseen"}) == [], "no dev classes are no mistake"
