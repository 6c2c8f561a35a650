"""Where the images of a data set lie: each known folder layout becomes one sorted list of sources.

Layouts: `folder` ({photo,sketch}/<class>/*), `sketchy`, `tuberlin`, `quickdraw` (the sets as published), `lists` (the
community's `<path> <label>` files). On disk and in object storage (see `zsbir.data.trees`) the same files become the same
sources. Nothing is opened here but list files, and of files of strokes the beginning.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError
from zsbir.base.storage import join
from zsbir.data import strokes
from zsbir.data.domains import DOMAINS
from zsbir.data.trees import Stamp, Tree, key_of

if TYPE_CHECKING:
    from zsbir.base.storage import Folder

LAYOUTS = ("folder", "sketchy", "tuberlin", "quickdraw", "lists")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_STROKES = frozenset({".ndjson"})
_LISTS = frozenset({".txt"})
_CLASS_NAMES = {"seen": "cname_cid.txt", "unseen": "cname_cid_zero.txt"}
_FILES_AT_ONCE = 8
"""Files of strokes whose beginnings are read at a time: in object storage that takes a while each."""

_FOLDERS: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    # layout: domain: places that are all read, each under the first of its names that exists
    "folder": {"photo": (("photo", "photos", "images"),), "sketch": (("sketch", "sketches"),)},
    "sketchy": {
        "photo": (
            ("256x256/photo/tx_000000000000_ready", "256x256/photo/tx_000000000000"),
            ("EXTEND_image_sketchy_ready", "EXTEND_image_sketchy"),
        ),
        "sketch": (("256x256/sketch/tx_000000000000_ready", "256x256/sketch/tx_000000000000"),),
    },
    "tuberlin": {"photo": (("ImageResized_ready", "ImageResized"),), "sketch": (("png_ready", "png"),)},
    "quickdraw": {"photo": (("images", "QuickDraw_images_final"),), "sketch": (("sketches", "QuickDraw_sketches_final"),)},
}


@dataclass(frozen=True, slots=True)
class Source:
    """One image to be ingested: a file of the tree, or (`line_start`, `line_bytes`) one drawing of an .ndjson file.

    Small, since there are a million of them, and at home in any process: it knows no place.
    """

    path: str
    domain: str
    class_name: str
    split_hint: str | None = None
    line_start: int | None = None
    line_bytes: int = 0

    def read(self, directory: Folder) -> bytes:
        """The bytes of the image; strokes are rendered as PNG. OSError when the file is gone, BadImage for broken strokes."""
        if self.line_start is None:
            return directory.read(self.path)
        return strokes.read_drawing(directory, self._file, self.line_start, self.line_bytes)

    def stamp(self, tree: Tree) -> Stamp:
        """Size and time of change of the file, which tell a changed source without reading it. Zeros where it is gone."""
        return tree.stamp(self._file)

    @property
    def _file(self) -> str:
        return self.path if self.line_start is None else self.path.rpartition("#")[0]


def scan(
    layout: str,
    tree: Tree,
    *,
    dedup: bool = False,
    lists_dir: str = "",
    held_out_seen: bool = False,
    drawings_per_class: int = 3000,
    skip_incomplete: bool = False,
) -> list[Source]:
    """Every image of the data set in `tree`, sorted by class, domain and path.

    `dedup` leaves out a photo whose file name came before in its class from another folder (the published Sketchy lists
    hold 100 photos a class twice). `lists_dir` and `held_out_seen` belong to `lists`, `drawings_per_class` to .ndjson files;
    `skip_incomplete` leaves out classes that lack photos or sketches. Raises InputError with the way out.
    """
    if layout not in LAYOUTS:
        raise InputError(unknown_name("layout", layout, LAYOUTS))
    if not tree.has_folder(""):
        raise InputError(f"no folder at {tree.folder.uri!r}: give the folder that holds the data set")
    if layout == "lists":
        found = list(_from_lists(tree, lists_dir, held_out_seen=held_out_seen))
    else:
        found, empty = _from_folders(layout, tree, drawings_per_class)
        if not skip_incomplete and empty:
            raise InputError(f"no images in {_some(empty)}: fill or remove the folder, or pass --skip-incomplete")
    found = _complete_classes(found, skip_incomplete=skip_incomplete)
    found.sort(key=lambda source: (source.class_name, DOMAINS.index(source.domain), source.path, source.line_start or 0))
    return _without_repeats(found) if dedup else found


def fold(name: str) -> str:
    """A class name as compared where spelling differs: `Alarm clock`, `alarm-clock` and `alarm_clock` are one."""
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def match_names(wanted: Iterable[str], present: Sequence[str], *, what: str) -> list[str]:
    """The data set's own spelling of each wanted class, sorted. InputError, with a suggestion, for one that is not there."""
    exact, folded = set(present), defaultdict(list)
    for name in present:
        folded[fold(name)].append(name)
    matched = set()
    for name in wanted:
        near = [name] if name in exact else folded.get(fold(name), [])
        if len(near) != 1:
            raise InputError(unknown_name(what, name, present))
        matched.add(near[0])
    return sorted(matched)


def _some(names: Sequence[str], count: int = 3) -> str:
    shown = ", ".join(repr(name) for name in names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"


def _complete_classes(sources: list[Source], *, skip_incomplete: bool) -> list[Source]:
    """Only classes with both domains; one that lacks a domain is an error unless it may be skipped."""
    domains: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        domains[source.class_name].add(source.domain)
    lacking = {domain: sorted(name for name, have in domains.items() if domain not in have) for domain in DOMAINS}
    for domain, names in lacking.items():
        if names and not skip_incomplete:
            raise InputError(f"no {domain} of class {_some(names)}: add some, remove the class, or pass --skip-incomplete")
    complete = {name for name, have in domains.items() if len(have) == len(DOMAINS)}
    if not complete:
        raise InputError("no class with both photos and sketches: is this the right folder and layout?")
    return [source for source in sources if source.class_name in complete]


def _without_repeats(sources: list[Source]) -> list[Source]:
    """Photos of a class under one file name once. The sort put `256x256/photo` before `EXTEND_image_sketchy`."""
    seen: set[tuple[str, str, str]] = set()
    kept = []
    for source in sources:
        key = (source.class_name, source.domain, PurePosixPath(source.path).name)
        if source.domain == "sketch" or key not in seen:
            kept.append(source)
        seen.add(key)
    return kept


def _from_folders(layout: str, tree: Tree, drawings_per_class: int) -> tuple[list[Source], list[str]]:
    """All sources, and the class folders that hold no image."""
    found: list[Source] = []
    empty: list[str] = []
    for domain, places in _FOLDERS[layout].items():
        present = [directory for names in places if (directory := next((name for name in names if tree.has_folder(name)), None))]
        drawings = _drawing_files(tree, present) if layout == "quickdraw" and domain == "sketch" else []
        if not present and not drawings:
            raise InputError(f"no {domain} folder in {tree.folder.uri!r}: layout {layout!r} expects {' or '.join(places[0])}")
        for folder in (folder for directory in present for folder in tree.folders(directory)):
            class_name = folder.rpartition("/")[2]
            files = [Source(path, domain, class_name) for path in tree.files(folder, IMAGE_SUFFIXES)]
            found += files
            empty += [] if files else [folder]
        if drawings:
            found = _with_drawings(tree.folder, found, drawings, drawings_per_class)
    return found, empty


def _drawing_files(tree: Tree, present: Sequence[str]) -> list[str]:
    """QuickDraw's .ndjson files: in the root, in `ndjson/`, or beside the sketch folders."""
    folders = dict.fromkeys(["", "ndjson", *present])
    return [path for folder in folders for path in tree.files(folder, _STROKES)]


def _with_drawings(directory: Folder, found: list[Source], files: Sequence[str], per_class: int) -> list[Source]:
    """`found` and the drawings of each file. A class takes its spelling from the photo folders, where one matches."""
    spelling = {fold(source.class_name): source.class_name for source in found}
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        for path, lines in zip(files, pool.map(partial(_drawings, directory, per_class), files), strict=True):
            stem = re.sub(r"^full_(simplified|raw)_", "", PurePosixPath(path).stem)
            name = spelling.get(fold(stem), stem)
            found += [Source(f"{path}#{line.number}", "sketch", name, None, line.start, line.length) for line in lines]
    return found


def _drawings(directory: Folder, count: int, file: str) -> list[strokes.Line]:
    return list(strokes.drawings(directory, file, count))


def _from_lists(tree: Tree, lists_dir: str, *, held_out_seen: bool) -> Iterator[Source]:
    """`*_train.txt` and `*_zero.txt` (and `*_test.txt`: sketches of seen classes held out of training)."""
    folder = key_of(lists_dir, "--lists-dir") if lists_dir else _only_lists_dir(tree)
    files = {PurePosixPath(path).name: path for path in tree.files(folder, _LISTS)}
    names = {hint: _class_names(tree.folder, files.get(file)) for hint, file in _CLASS_NAMES.items()}
    endings = {"_train.txt": "seen", "_zero.txt": "unseen", **({"_test.txt": "seen"} if held_out_seen else {})}
    used = [(file, hint) for file in files for ending, hint in endings.items() if file.endswith(ending)]
    used = [(file, hint) for file, hint in used if not file.startswith("cname_cid")]
    if not used:
        raise InputError(f"no list ending in _train.txt or _zero.txt in {join(tree.folder.uri, folder)!r}")
    for file, hint in used:
        yield from _listed(tree, files[file], hint, names[hint])


def _only_lists_dir(tree: Tree) -> str:
    folders = tree.folders("", start="zeroshot")
    if len(folders) != 1:
        have = f"there are {_some(folders)}" if folders else "there is no zeroshot* folder"
        raise InputError(f"which lists in {tree.folder.uri!r}? {have}; name the folder with --lists-dir")
    return folders[0]


def _class_names(directory: Folder, file: str | None) -> dict[str, str]:
    """Label to class name; empty where the list's folder has no such file (the class is then the image's folder)."""
    return {label: name for name, label in _rows(directory, file)} if file else {}


def _rows(directory: Folder, file: str) -> Iterator[tuple[str, str]]:
    """`<text> <label>` of each line, split at the last blank: text may hold blanks."""
    name = PurePosixPath(file).name
    try:
        lines = directory.read(file).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{name} is no text list") from None
    for number, row in enumerate(lines, 1):
        if row.strip():
            text, _, label = row.strip().rpartition(" ")
            if not text or not label.isdecimal():
                raise InputError(f"{name} line {number}: {row.strip()[:80]!r} is not '<path> <label>'")
            yield text.strip(), label


def _listed(tree: Tree, file: str, hint: str, names: dict[str, str]) -> Iterator[Source]:
    name = PurePosixPath(file).name
    domain = _list_domain(name)
    for text, label in _rows(tree.folder, file):
        path = key_of(text, name)
        tree.check(path)
        if names and label not in names:
            raise InputError(f"{name}: label {label} of {text!r} has no name in the class list beside it")
        class_name = names[label] if names else sys.intern(PurePosixPath(path).parent.name)
        yield Source(path, domain, class_name, split_hint=hint)


def _list_domain(name: str) -> str:
    """The community's list names: all_photo_..., ImageResized_..., sketch_..., png_..."""
    lower = name.lower()
    if "photo" in lower or "image" in lower:
        return "photo"
    if "sketch" in lower or "png" in lower:
        return "sketch"
    raise InputError(f"does the list {name!r} hold photos or sketches? its name must hold 'photo' or 'sketch'")
