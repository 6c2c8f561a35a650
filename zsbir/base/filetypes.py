"""What a file is by its first bytes, in words, for the error that says why it cannot be used and what to do."""

from __future__ import annotations

import re

HEAD_BYTES = 512
"""Bytes at the beginning of a file that `what_is` looks at."""

_CONVERT = "convert it to JPEG or PNG"
_ISO_BRANDS = {
    b"avif": f"an AVIF image: {_CONVERT}",
    b"avis": f"an AVIF image: {_CONVERT}",
    b"heic": f"a HEIC image: {_CONVERT}",
    b"heix": f"a HEIC image: {_CONVERT}",
    b"heim": f"a HEIC image: {_CONVERT}",
    b"heis": f"a HEIC image: {_CONVERT}",
    b"hevc": f"a HEIC image: {_CONVERT}",
    b"hevx": f"a HEIC image: {_CONVERT}",
    b"mif1": f"a HEIF image: {_CONVERT}",
    b"msf1": f"a HEIF image: {_CONVERT}",
    b"crx ": f"a camera's raw image: {_CONVERT}",
}
"""Major brands of ISO media files, which hold images and videos alike (ISO/IEC 14496-12, 23008-12; AVIF 1.1)."""

_STARTS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer instead of the file itself: run git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer instead of the file itself: run git annex get"),
    (b"\x00\x05\x16\x07", "a file that macOS keeps beside another one (AppleDouble): delete it"),
    (b"\x00\x05\x16\x00", "a file that macOS keeps beside another one (AppleSingle): delete it"),
    (b"\x00\x00\x00\x0cJXL ", f"a JPEG XL image: {_CONVERT}"),
    (b"\xff\x0a", f"a JPEG XL image: {_CONVERT}"),
    (b"\x00\x00\x00\x0cjP  ", f"a JPEG 2000 image: {_CONVERT}"),
    (b"\xff\x4f\xff\x51", f"a JPEG 2000 image: {_CONVERT}"),
    (b"8BPS", f"a Photoshop document: {_CONVERT}"),
    (b"%PDF", f"a PDF document: {_CONVERT}"),
    (b"%!PS", f"a PostScript document: {_CONVERT}"),
    (b"\xc5\xd0\xd3\xc6", f"a PostScript document: {_CONVERT}"),
    (b"\x00\x00\x01\x00", f"a Windows icon: {_CONVERT}"),
    (b"\x76\x2f\x31\x01", f"an OpenEXR image: {_CONVERT}"),
    (b"#?RADIANCE", f"a Radiance image: {_CONVERT}"),
    (b"FUJIFILMCCD-RAW", f"a camera's raw image: {_CONVERT}"),
    (b"gimp xcf", f"a GIMP document: {_CONVERT}"),
    (b"DDS ", f"a DirectDraw texture: {_CONVERT}"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file, such as Keras writes"),
    (b"\x1f\x8b", "compressed with gzip: unpack it"),
    (b"\xfd7zXZ", "compressed with xz: unpack it"),
    (b"BZh", "compressed with bzip2: unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"PAR1", "a Parquet file"),
    (b"\x7fELF", "a program"),
)
_PAGE = re.compile(rb"<(!doctype html|html|head|body|script)\b", re.IGNORECASE)
_PATTERNS = (
    (re.compile(rb'\s*\{\s*"(error|message|detail|errors)"', re.I), "a server's error message instead of the file: fetch it again"),
    (re.compile(rb"P[1-7]\s"), f"a PPM, PGM or PBM image: {_CONVERT}"),
    (re.compile(rb"\0{16,}\Z"), "nothing but zeros at its beginning: the copy was broken off, fetch it again"),
    *((re.compile(re.escape(start)), what) for start, what in _STARTS),
)
_MARK = b"\xef\xbb\xbf"


def what_is(data: bytes) -> str | None:
    """Return what a file is by its first bytes, with what to do about it ("an AVIF image: convert it to JPEG or PNG").

    None where they tell nothing. Formats that this project reads are not named: their reader says what is wrong with one.
    """
    head = data[:HEAD_BYTES]
    start = head.removeprefix(_MARK)
    if start.lstrip().startswith(b"<"):
        return _markup(start)
    return _container(head) or next((what for pattern, what in _PATTERNS if pattern.match(start)), None)


def _container(head: bytes) -> str | None:
    """Return what a file is that only names its kind after a general beginning: pictures, videos and sounds."""
    if head[4:8] == b"ftyp":
        return _ISO_BRANDS.get(head[8:12], "a video")
    if head.startswith(b"RIFF") and head[8:12] != b"WEBP":
        return "a video or a sound"
    return None


def _markup(head: bytes) -> str:
    if _PAGE.search(head):
        return "a web page instead of the file itself: the download has failed, fetch it again"
    return f"an SVG drawing: {_CONVERT}" if b"<svg" in head.lower() else "an XML file"
