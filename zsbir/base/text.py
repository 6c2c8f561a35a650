"""Text from elsewhere, made safe to print: names in artifacts, paths, fields of requests, errors of other programs.

Whoever writes such a text may put characters into it that a terminal or a reader takes for commands: escape sequences that rename
the window or erase lines, line breaks that forge a second message or row, overrides of direction that show `gpj.exe` as `exe.jpg`.
`clean` shows each of them as the escape by which Python writes it. Programs get the text itself, as JSON or in a pipe.
"""

from __future__ import annotations

import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that are never printed: controls, format characters, halves of surrogate pairs, line and paragraph breaks."""

_JOINERS = "\u200c\u200d"
"""Format characters without an effect on the rest of a line; Persian and emoji need them."""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def clean(text: object) -> str:
    r"""Return `str(text)` for one line of a terminal, a log or a table: what is no visible character is shown as an escape.

    A byte of a file name that is not UTF-8 (Python keeps it as half of a surrogate pair) is shown as that byte.

    >>> clean("photo" + chr(27) + "[2J.png")
    'photo\\x1b[2J.png'
    """
    plain = str(text)
    return plain if plain.isprintable() else "".join(map(_visible, plain))


def clean_lines(text: object) -> str:
    """Return `clean` of each line: for texts of several lines whose line breaks are meant, such as tables and log files."""
    return "\n".join(map(clean, str(text).split("\n")))


_UNCOUNTED = frozenset({"knowledge", "weights"})


def with_article(noun: str) -> str:
    """Return the name of a kind of artifact with its indefinite article: "an index", "a run"; "knowledge" has none."""
    if noun in _UNCOUNTED:
        return noun
    return f"{'an' if noun[:1].lower() in set('aeio') else 'a'} {noun}"


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN or character in _JOINERS:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that os.fsdecode could not decode
        code -= 0xDC00
    escape = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _SHORT.get(character, escape)
