import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsbir.base.errors import InputError
from zsbir.data.names import class_name_of, fold, match_names, spelled_alike, suffix_of, why_not_a_name, why_not_an_image

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_names_match_exactly_first_and_then_without_regard_to_spelling():
    assert fold(" Alarm-clock ") == "alarm_clock"
    assert match_names(["alarm_clock", "Dog"], ["alarm clock", "dog", "cat"], what="class") == ["alarm clock", "dog"]
    assert match_names(["t-shirt"], ["t-shirt", "t_shirt"], what="class") == ["t-shirt"]
    with pytest.raises(InputError, match="did you mean 'dolphin'"):
        match_names(["dolfin"], ["dolphin", "dog"], what="unseen class")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cup", "Cup"),
        ("cup", "cup "),
        ("cup", "cup_"),
        ("cup", "\ufeffcup"),
        ("cup", "c\u200bup"),
        ("ice cream", "ice\u00a0cream"),
        (COMPOSED, DECOMPOSED),
        (COMPOSED, DECOMPOSED.upper()),
        ("straße", "STRASSE"),
        ("İzmir", "i\u0307zmir"),
    ],
)
def test_spellings_of_one_name_are_equal_when_folded(one, other):
    assert fold(one) == fold(other)
    assert spelled_alike([one, "dog", other]) == [sorted([one, other])]


@pytest.mark.parametrize(("one", "other"), [("cup", "cups"), ("form 1", "form 11"), ("_", "cup"), ("猫", "犬")])
def test_other_names_stay_apart(one, other):
    assert fold(one) != fold(other)


@given(st.text())
def test_folding_twice_changes_nothing(name):
    assert fold(fold(name)) == fold(name)


def test_a_name_that_is_missing_is_suggested_without_regard_to_case():
    with pytest.raises(InputError, match="unknown class 'DOLFIN'; did you mean 'dolphin'"):
        match_names(["DOLFIN"], ["dolphin", "dog"], what="class")
    with pytest.raises(InputError, match=r"class 'CUP' may be 'Cup' or 'cup': name one of them exactly"):
        match_names(["CUP"], ["cup", "Cup"], what="class")


def test_a_class_is_stored_in_one_form_of_unicode():
    assert class_name_of(DECOMPOSED) == class_name_of(COMPOSED) == COMPOSED


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("._a.jpg", "made by macOS"),
        ("__MACOSX", "made by macOS"),
        ("Thumbs.db", "made by Windows"),
        ("System Volume Information", "made by Windows"),
        ("@eaDir", "made by a network drive"),
        ("#recycle", "made by a network drive"),
        ("SYNOFILE_THUMB_M.jpg", "made by a network drive"),
        (".ipynb_checkpoints", "made by Jupyter"),
        (".git", "hidden"),
        ("a\\b.jpg", "a backslash"),
        (os.fsdecode(b"caf\xe9.jpg"), "a name that is not UTF-8"),
        ("a.jpg", ""),
        ("猫.jpg", ""),
        ("new\nline.jpg", ""),
    ],
)
def test_a_name_that_is_passed_over_has_a_reason(name, reason):
    assert why_not_a_name(name).startswith(reason)
    assert bool(why_not_a_name(name)) == bool(reason)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.jpe", "a.JFIF", "a.png", "a.webp", "a.tif", "a.b.gif", "a.jpg.", "a.jpg "])
def test_an_image_is_known_by_the_ending_of_its_name(name):
    assert why_not_an_image(name) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.heic", ".heic is not read: convert it to JPEG or PNG"),
        ("a.AVIF", ".avif is not read: convert it to JPEG or PNG"),
        ("a.CR2", ".cr2 is not read: convert it to JPEG or PNG"),
        ("a", "no ending such as .jpg in the name: rename it"),
        ("a.", "no ending such as .jpg in the name: rename it"),
        ("notes.txt", "not an image by its name"),
        ("a.jpg.part", "not an image by its name"),
    ],
)
def test_what_is_no_image_by_its_name_has_a_reason(name, reason):
    assert why_not_an_image(name) == reason
    assert suffix_of("a.JPG") == ".jpg"
