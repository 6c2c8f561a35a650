"""Names as data sets spell them: of classes, compared without regard to spelling; of files, by which images are found.

Classes are compared folded (`fold`): people, disks and lists spell one name in several ways. Files are judged by their names alone,
since opening a million of them only to look would take hours.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Endings of the files that are taken for images."""

_UNREAD = re.compile(
    r"\.(hei[cf]s?|hif|avifs?|jxl|jp2|j2[kc]|jp[xfm]|ps[db]|svgz?|ico|cur|icns|tga|exr|hdr|p[bgpnf]m|pcx|dds|xcf|ai|eps|pdf|wmf|emf"
    r"|dng|cr[23w]|nef|nrw|arw|orf|rw[2l]|raf|pef|srw|raw|3fr|apng|dib|jif|jfi|[jm]ng)"
)
"""Endings of images in formats that are not read."""

_HIDDEN = "hidden: the name begins with a dot"
_MAKERS = {
    "macOS": "__macosx .ds_store .appledouble .appledb .spotlight-v100 .trashes .fseventsd .temporaryitems .apdisk .localized"
    " .documentrevisions-v100 .volumeicon.icns icon\r",
    "Windows": "thumbs.db|ehthumbs.db|ehthumbs_vista.db|desktop.ini|$recycle.bin|system volume information",
    "a network drive": "@eadir @tmp @recycle @recently-snapshot @__thumb .@__thumb @sharebin @synoresource @transcode #recycle"
    " #snapshot ~snapshot .snapshot .snapshots .zfs .streams lost+found",
    "Jupyter": ".ipynb_checkpoints",
    "Python": "__pycache__",
}
_MAKER_OF = {name: maker for maker, names in _MAKERS.items() for name in names.split("|" if "|" in names else " ")}
_MAKER_OF_START = {"._": "macOS", "synofile_thumb": "a network drive", "~$": "Windows", ".~lock.": "an office program"}
_NOT_UTF8 = "a name that is not UTF-8: rename it (such as with convmv)"
_BACKSLASH = "a backslash in the name: rename it"
HARMLESS = frozenset({_HIDDEN, "not an image by its name", *(f"made by {maker}" for maker in _MAKER_OF.values())})
"""Reasons that mean no loss: what was passed over for one of them is no image."""


def fold(name: str) -> str:
    """Return a class name in the form in which names are compared: `Alarm clock`, `alarm-clock` and `alarm_clock ` are one.

    It is in Unicode's form C, without case, invisible characters, and blanks or their substitutes at its ends.
    """
    plain = name if name.isascii() else _visible(unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()))
    folded = re.sub(r"[\s_-]+", "_", plain.lower())
    return folded.strip("_") or folded


def _visible(text: str) -> str:
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


def class_name_of(text: str) -> str:
    """Return a class's name as data sets store it. macOS and Linux write "é" as different characters; both become form C."""
    return unicodedata.normalize("NFC", text)


def match_names(wanted: Iterable[str], present: Sequence[str], *, what: str) -> list[str]:
    """Return the data set's own spelling of each wanted class, sorted. Raises InputError, with a suggestion, for a missing one."""
    exact, folded = set(present), defaultdict(list)
    for name in present:
        folded[fold(name)].append(name)
    matched = set()
    for name in wanted:
        near = [name] if name in exact else folded.get(fold(name), [])
        if len(near) > 1:
            raise InputError(f"{what} {name!r} may be {' or '.join(map(repr, sorted(near)))}: name one of them exactly")
        if not near:
            raise InputError(_unknown(what, name, folded, present))
        matched.add(near[0])
    return sorted(matched)


def _unknown(what: str, name: str, folded: dict[str, list[str]], present: Sequence[str]) -> str:
    near = difflib.get_close_matches(fold(name), folded, n=1)
    return f"unknown {what} {name!r}; did you mean {folded[near[0]][0]!r}?" if near else unknown_name(what, name, present)


def spelled_alike(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ in their spelling alone, each sorted."""
    groups = defaultdict(list)
    for name in names:
        groups[fold(name)].append(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def suffix_of(name: str) -> str:
    """Return the ending of a file's name (".jpg"), in lower case. Dots and blanks at the end of the name do not count."""
    return os.path.splitext(name.rstrip(". "))[1].lower()  # noqa: PTH122 - 5 x faster


def why_not_a_name(name: str) -> str:
    """Return why a file or folder of this name is passed over whatever it holds; "" where nothing is odd about the name.

    Such are hidden ones, those that operating systems and network drives put beside the user's own, and names that the tables
    of a data set cannot hold or other systems cannot read.
    """
    lower = name.lower()
    maker = _MAKER_OF.get(lower) or next((maker for start, maker in _MAKER_OF_START.items() if lower.startswith(start)), "")
    if maker:
        return f"made by {maker}"
    if name.startswith("."):
        return _HIDDEN
    if "\\" in name:
        return _BACKSLASH
    return "" if name.isascii() or _is_utf8(name) else _NOT_UTF8


def why_not_an_image(name: str) -> str:
    """Return why a file of this name is not taken for an image; "" where it is."""
    suffix = suffix_of(name)
    if suffix in IMAGE_SUFFIXES:
        return ""
    if _UNREAD.fullmatch(suffix):
        return f"{suffix} is not read: convert it to JPEG or PNG"
    return "not an image by its name" if suffix else "no ending such as .jpg in the name: rename it"


def _is_utf8(name: str) -> bool:
    """Return whether a name can be written as UTF-8: Python keeps other bytes of a file name as halves of surrogate pairs."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
