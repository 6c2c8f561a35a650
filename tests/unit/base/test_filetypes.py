import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded, picture

from zsbir.base.filetypes import what_is


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer .* git lfs pull"),
        (b"/annex/objects/SHA256E-s1--0\n", "a git-annex pointer .* git annex get"),
        (b"<!DOCTYPE html><p>404", "a web page .* fetch it again"),
        (b"\xef\xbb\xbf\n <HTML lang=en>", "a web page"),
        (b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC ''>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing: convert it"),
        (b'{"message": "Not Found"}', "a server's error message"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "an AVIF image: convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"RIFF\0\0\0\0AVI LIST", "a video or a sound"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "AppleDouble"),
        (b"%PDF-1.7\n", "a PDF document"),
        (bytes(4096), "nothing but zeros .* broken off"),
        (b"P6\n3 4\n255\n", "a PPM"),
    ],
)
def test_a_file_is_named_by_its_first_bytes_with_what_to_do(head, what):
    found = what_is(head)
    assert found is not None
    assert re.search(what, found), found


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_images_that_are_read_are_not_named(form):
    assert what_is(encoded(picture(), form)) is None


def test_what_pillow_writes_as_avif_is_named_so():
    assert what_is(encoded(picture(), "AVIF")) == "an AVIF image: convert it to JPEG or PNG"


def test_a_numpy_file_is_named_so():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    assert what_is(file.getvalue()) == "a NumPy array"


@given(st.binary(max_size=600))
def test_no_bytes_make_it_fail(data):
    assert what_is(data) is None or ("\n" not in what_is(data) and len(what_is(data)) < 120)
