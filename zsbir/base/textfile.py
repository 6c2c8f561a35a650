"""Text files as people's editors write them: UTF-8 with or without a byte order mark, or UTF-16 and UTF-32 with one.

Every list that a user writes (classes, paths, labels) is read through here, so that a mark never becomes part of the first name.
"""

from __future__ import annotations

import codecs
import re

from zsbir.base.errors import InputError
from zsbir.base.filetypes import what_is

_MARKS = (
    # The mark of UTF-32 begins with that of UTF-16, so it is looked for first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINE_END = re.compile(r"\r\n|\r|\n")
_AROUND = " \t\ufeff\u200b"
"""What is taken off both ends of a line: blanks, and marks left in the middle of a file by joining several."""


def decode_text(data: bytes, where: str) -> str:
    """Return the text of a file in any encoding that its byte order mark names, else in UTF-8, without the mark.

    where: what to call the file in an error. Raises InputError when the bytes are not text.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = what_is(data) or f"not a text file in UTF-8: line {line} holds the byte 0x{data[error.start]:02x}; save it as UTF-8"
        raise InputError(f"{where} is {what}") from None
    if "\0" in text:
        raise InputError(f"{where} is {what_is(data) or 'not a text file: it holds zero bytes'}")
    return text


def text_lines(text: str) -> list[str]:
    """Return every line of a text, without blanks around it. Lines end at line breaks alone, not at other separators."""
    return [line.strip(_AROUND) for line in _LINE_END.split(text)]
