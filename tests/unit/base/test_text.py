"""Text from elsewhere is printed without giving orders to the terminal."""

import unicodedata
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsbir.base.manifest import Kind
from zsbir.base.text import clean, clean_lines, with_article


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, grüße, 猫, 😀", "plain text, grüße, 猫, 😀"),
        ("\x1b]0;renamed window\x07", "\\x1b]0;renamed window\\x07"),
        ("\x9b2J", "\\x9b2J"),  # the same as ESC [ on terminals of eight bits
        ("a\r\nb\tc\x7f\0", "a\\r\\nb\\tc\\x7f\\x00"),
        ("invoice\u202egpj.exe", "invoice\\u202egpj.exe"),
        ("\u2066isolated\u2069 \u200fmarked", "\\u2066isolated\\u2069 \\u200fmarked"),
        ("one\u2028two\u2029three\x85four", "one\\u2028two\\u2029three\\x85four"),
        ("\ufeffairplane", "\\ufeffairplane"),
        ("hidden\U000e0041", "hidden\\U000e0041"),
        ("caf\udce9.png", "caf\\xe9.png"),  # a byte that is not UTF-8
        ("\ud800", "\\ud800"),
        ("joined\u200cletters 👩\u200d👧", "joined\u200cletters 👩\u200d👧"),
        ("no-break\u00a0space", "no-break\u00a0space"),
    ],
)
def test_what_is_no_visible_character_is_shown_as_an_escape(text: str, shown: str):
    assert clean(text) == shown


def test_line_breaks_are_kept_only_where_they_are_meant():
    assert clean_lines("a\x1b[1m\nb\r\n") == "a\\x1b[1m\nb\\r\n"


def test_anything_with_a_text_can_be_cleaned():
    assert clean(FileNotFoundError(2, "gone", "a\nb")) == "[Errno 2] gone: 'a\\nb'"


@given(st.text(st.characters()))
def test_no_cleaned_text_holds_a_control_and_all_can_be_encoded(text: str):
    shown = clean(text)
    assert not {unicodedata.category(character) for character in shown.replace("\u200c", "").replace("\u200d", "")} & {
        "Cc",
        "Cf",
        "Cs",
        "Zl",
        "Zp",
    }
    shown.encode()
    assert clean(shown) == shown


def test_each_kind_of_artifact_has_its_article():
    kinds = get_args(Kind)
    assert [with_article(kind) for kind in kinds if kind[0] in "aeiou"] == ["an index", "an export"]
    assert (with_article("run"), with_article("knowledge"), with_article("weights")) == ("a run", "knowledge", "weights")
