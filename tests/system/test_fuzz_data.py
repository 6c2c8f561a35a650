"""Data from strangers, broken as chance will have it: an image or a list is read, or refused for a reason; nothing else happens."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, picture

from zsbir.base.errors import InputError
from zsbir.data.images import FORMATS, BadImage
from zsbir.data.layouts import scan
from zsbir.data.preparing import stored_form
from zsbir.data.splits import read_lists
from zsbir.data.trees import open_tree

SOME, MINUTE_S = 300, 60.0
"""Tries in a run of all tests; seconds in a long one."""

LISTS = {
    "cname_cid.txt": "alarm clock 0\r\ndog 1\n",
    "cname_cid_zero.txt": "cat 0\n",
    "all_photo_train.txt": "photo/alarm clock/a 1.jpg 0\nphoto\\dog\\b.jpg 1\n",
    "all_photo_zero.txt": "photo/cat/c.jpg 0\n",
    "sketch_train.txt": "sketch/alarm clock/1.png 0\nsketch/dog/1.png 1\n",
    "sketch_zero.txt": "sketch/cat/1.png 0\n",
}
SPECIAL = [
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xff\xfe\0\0",
    b"\0",
    b"..",
    b"/",
    b"\\",
    b"\n",
    b"\x85",
    "\u2028".encode(),
    b"\xed\xa0\x80",
    b"0",
]


def broken(data: bytes, random: np.random.Generator) -> bytes:
    """Return the bytes with a few changed, cut out, repeated, or others put between them."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 6))):
        at, length = int(random.integers(0, len(changed) + 1)), int(random.integers(1, 9))
        match int(random.integers(0, 5)):
            case 0:
                changed[at : at + length] = random.bytes(length)
            case 1:
                del changed[at : at + length**2]
            case 2:
                changed[at:at] = changed[at : at + length]
            case 3:
                changed[at:at] = SPECIAL[int(random.integers(len(SPECIAL)))]
            case _:
                del changed[max(at, 8) :]
    return bytes(changed)


def tries(how_long: float, attempt: Callable[[np.random.Generator], None]) -> None:
    """Try so many times, or for so many seconds; each try has its own seed, which a failure names."""
    until_s = time.monotonic() + how_long
    number = 0
    while number < how_long if how_long == SOME else time.monotonic() < until_s:
        number += 1
        try:
            attempt(np.random.default_rng(number))
        except Exception as error:
            raise AssertionError(f"seed {number}") from error


how_long = pytest.mark.parametrize("how_long", [SOME, pytest.param(MINUTE_S, marks=pytest.mark.long)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMATS)
@how_long
def test_a_broken_image_is_read_or_refused(form: str, how_long: float) -> None:
    data = encoded(picture().convert("P") if form == "GIF" else picture(), form)

    def attempt(random: np.random.Generator) -> None:
        with suppress(BadImage):
            stored_form(broken(data, random), 32, "sketch")

    tries(how_long, attempt)


@pytest.mark.slow
@how_long
def test_broken_lists_are_read_or_refused(tmp_path: Path, how_long: float) -> None:
    (tmp_path / "zeroshot").mkdir()

    def attempt(random: np.random.Generator) -> None:
        for name, text in LISTS.items():
            data = text.encode("utf-16" if random.random() < 0.1 else "utf-8")
            (tmp_path / "zeroshot" / name).write_bytes(broken(data, random) if random.random() < 0.5 else data)
        with suppress(InputError):
            sources = scan("lists", open_tree(tmp_path))
            assert not any(source.path.startswith("/") or ".." in source.path.split("/") for source in sources)

    tries(how_long, attempt)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unseen.txt", "split.json"])
@how_long
def test_a_broken_split_file_is_read_or_refused(tmp_path: Path, name: str, how_long: float) -> None:
    data = b'{"unseen": ["cup", "caf\\u00e9"], "dev": ["dog"]}' if name == "split.json" else "cup\r\ncafé\n".encode()

    def attempt(random: np.random.Generator) -> None:
        (tmp_path / name).write_bytes(broken(data, random))
        with suppress(InputError):
            assert all(not unseen.startswith("\ufeff") for unseen in read_lists(tmp_path / name).unseen)

    tries(how_long, attempt)
