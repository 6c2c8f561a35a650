import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsbir.base.errors import InputError
from zsbir.base.textfile import decode_text, text_lines

MARKED = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("encoding", MARKED)
def test_a_byte_order_mark_names_the_encoding_and_is_no_part_of_the_text(encoding):
    text = "airplane 0\r\ncafé 1\n猫 2"
    assert decode_text(MARKED[encoding] + text.encode(encoding), "names.txt") == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"cup\ncaf\xe9\n", "names.txt is not a text file in UTF-8: line 2 holds the byte 0xe9; save it as UTF-8"),
        (b"cup\0\n", "names.txt is not a text file: it holds zero bytes"),
        (b"\xff\xfea", "names.txt is not a text file"),
        (b"\x1f\x8b\x08\0\xff", "names.txt is compressed with gzip: unpack it"),
    ],
)
def test_what_is_no_text_is_refused_with_its_name_and_the_reason(data, reason):
    with pytest.raises(InputError, match=reason):
        decode_text(data, "names.txt")


def test_lines_end_at_line_breaks_alone_and_lose_blanks_and_marks_around_them():
    assert text_lines("cup\r\n dog \n\ufeffcat\rtwo words\u2028and\x85more\x0b\x1cx") == [
        "cup",
        "dog",
        "cat",
        "two words\u2028and\x85more\x0b\x1cx",
    ]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))), st.sampled_from(list(MARKED)))
def test_any_lines_come_back_from_any_encoding(lines, encoding):
    data = MARKED[encoding] + "\n".join(lines).encode(encoding)
    plain = [line.strip(" \t\ufeff\u200b") for line in lines] or [""]
    if encoding != "utf-8" or not data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        assert text_lines(decode_text(data, "x")) == plain
