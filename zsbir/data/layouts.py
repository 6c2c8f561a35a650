"""Folder layouts of data sets: each known one becomes a sorted list of sources.

Layouts: `folder` ({photo,sketch}/<class>/*), `sketchy`, `tuberlin`, `quickdraw` (the sets as published), `lists` (the
community's `<path> <label>` files). On disk and in object storage (see `zsbir.data.trees`) the same files become the same
sources. Only list files are opened here, and the beginnings of files of strokes.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError
from zsbir.base.storage import join
from zsbir.base.textfile import decode_text, text_lines
from zsbir.data import strokes
from zsbir.data.domains import DOMAINS
from zsbir.data.names import IMAGE_SUFFIXES, class_name_of, fold
from zsbir.data.passed_over import PassedOver
from zsbir.data.trees import Stamp, Tree, key_of

if TYPE_CHECKING:
    from zsbir.base.storage import Folder

LAYOUTS = ("folder", "sketchy", "tuberlin", "quickdraw", "lists")
_STROKES = frozenset({".ndjson"})
_LISTS = frozenset({".txt"})
_CLASS_NAMES = {"seen": "cname_cid.txt", "unseen": "cname_cid_zero.txt"}
_FILES_AT_ONCE = 8
"""Files of strokes whose beginnings are read at a time: in object storage that takes a while each."""

_FOLDERS: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    # layout: domain: folders that are all read, each under the first of its names that exists
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

    Kept small, since there are a million of them, and free of addresses, so that any process can read it.
    """

    path: str
    domain: str
    class_name: str
    split_hint: str | None = None
    line_start: int | None = None
    line_bytes: int = 0

    def read(self, directory: Folder) -> bytes:
        """Return the bytes of the image; strokes are rendered as PNG.

        Raises OSError when the file is gone, BadImage for malformed strokes.
        """
        if self.line_start is None:
            return directory.read(self.path)
        return strokes.read_drawing(directory, self._file, self.line_start, self.line_bytes)

    def stamp(self, tree: Tree) -> Stamp:
        """Return size and time of change of the file, which show a changed source without reading it; zeros where it is gone."""
        return tree.stamp(self._file)

    @property
    def _file(self) -> str:
        return self.path if self.line_start is None else self.path.rpartition("#")[0]


def scan(
    layout: str,
    tree: Tree,
    passed: PassedOver | None = None,
    *,
    dedup: bool = False,
    lists_dir: str = "",
    held_out_seen: bool = False,
    drawings_per_class: int = 3000,
    skip_incomplete: bool = False,
) -> list[Source]:
    """List every image of the data set in `tree`, sorted by class, domain and path. What is passed over is noted in `passed`.

    `dedup` leaves out a photo whose file name came before in its class from another folder (the published Sketchy lists
    hold 100 photos a class twice). `lists_dir` and `held_out_seen` belong to `lists`, `drawings_per_class` to .ndjson files;
    `skip_incomplete` leaves out classes that lack photos or sketches. Raises InputError with the way out.
    """
    if layout not in LAYOUTS:
        raise InputError(unknown_name("layout", layout, LAYOUTS))
    if not tree.has_folder(""):
        raise InputError(f"no folder at {tree.folder.uri!r}: give the folder that holds the data set")
    passed = PassedOver() if passed is None else passed
    tree.note_odd_keys(passed)
    if layout == "lists":
        found = list(_from_lists(tree, passed, lists_dir, held_out_seen=held_out_seen))
    else:
        found, empty = _from_folders(layout, tree, passed, drawings_per_class)
        if empty and not skip_incomplete:
            raise InputError(f"no images in {_some(empty, passed)}: fill or remove the folder, or pass --skip-incomplete")
        for folder in empty:
            passed.add(f"{folder}/", "the folder of a class, without images (--skip-incomplete)")
    found = _complete_classes(found, passed, skip_incomplete=skip_incomplete)
    found.sort(key=lambda source: (source.class_name, DOMAINS.index(source.domain), source.path, source.line_start or 0))
    return _without_repeats(found, passed) if dedup else found


def _some(names: Sequence[str], passed: PassedOver | None = None, count: int = 3) -> str:
    """Return the first few names; for folders, with what was passed over there."""
    why = [passed.below(name) if passed else "" for name in names[:count]]
    shown = ", ".join(f"{name!r}{f' ({reason})' if reason else ''}" for name, reason in zip(names, why, strict=False))
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"


def _complete_classes(sources: list[Source], passed: PassedOver, *, skip_incomplete: bool) -> list[Source]:
    """Keep the classes with both domains. Raises InputError for one that lacks a domain, unless it may be skipped."""
    domains: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        domains[source.class_name].add(source.domain)
    lacking = {domain: sorted(name for name, have in domains.items() if domain not in have) for domain in DOMAINS}
    for domain, names in lacking.items():
        if names and not skip_incomplete:
            raise InputError(
                f"no {domain} of class {_some(names)}{_spelled_otherwise(names, domain, domains)}:"
                " add some, remove the class, or pass --skip-incomplete"
            )
    complete = {name for name, have in domains.items() if len(have) == len(DOMAINS)}
    if not complete:
        raise InputError(
            "no class with both photos and sketches: is this the right folder and layout?"
            f"{_spelled_otherwise(lacking['sketch'], 'sketch', domains)}"
        )
    for source in sources:
        if source.class_name not in complete:
            passed.add(source.path, f"a {source.domain} of a class without the other domain (--skip-incomplete)")
    return [source for source in sources if source.class_name in complete]


def _spelled_otherwise(names: Sequence[str], domain: str, domains: Mapping[str, set[str]]) -> str:
    """Return a hint, where a domain lacks the first class only because it spells the name in another way."""
    alike = [other for other, have in domains.items() if names and domain in have and fold(other) == fold(names[0])]
    return f" (is it {alike[0]!r} there? give both the same name)" if alike else ""


def _without_repeats(sources: list[Source], passed: PassedOver) -> list[Source]:
    """Keep the first photo of each file name in a class. The sort put `256x256/photo` before `EXTEND_image_sketchy`."""
    seen: set[tuple[str, str, str]] = set()
    kept = []
    for source in sources:
        key = (source.class_name, source.domain, PurePosixPath(source.path).name)
        if source.domain == "sketch" or key not in seen:
            kept.append(source)
        else:
            passed.add(source.path, "a photo whose file name came before in its class (--dedup)")
        seen.add(key)
    return kept


def _from_folders(layout: str, tree: Tree, passed: PassedOver, drawings_per_class: int) -> tuple[list[Source], list[str]]:
    """Return all sources, and the class folders that hold no image."""
    found: list[Source] = []
    empty: list[str] = []
    for domain, folders in _FOLDERS[layout].items():
        present = [directory for names in folders if (directory := _first(tree, names, passed))]
        drawings = _drawing_files(tree, present) if layout == "quickdraw" and domain == "sketch" else []
        if not present and not drawings:
            raise InputError(f"no {domain} folder in {tree.folder.uri!r}: layout {layout!r} expects {_expected(tree, folders[0])}")
        for folder in (folder for place in present for folder in tree.folders(place, passed=passed, besides=_STROKES)):
            class_name = class_name_of(folder.rpartition("/")[2])
            files = [Source(path, domain, class_name) for path in tree.files(folder, IMAGE_SUFFIXES, passed)]
            found += files
            empty += [] if files else [folder]
        if drawings:
            found = _with_drawings(tree.folder, found, passed, drawings, drawings_per_class)
    return found, empty


def class_names(layout: str, tree: Tree) -> list[str] | None:
    """Return the classes that have a folder of photos and one of sketches, by the names of the folders; sorted.

    None where only a scan tells: in lists, and in QuickDraw's files of drawings. Raises InputError, as `scan` does, where folders
    are missing.
    """
    if not tree.has_folder(""):
        raise InputError(f"no folder at {tree.folder.uri!r}: give the folder that holds the data set")
    if layout not in _FOLDERS or layout == "quickdraw":
        return None
    found: list[set[str]] = []
    for domain, folders in _FOLDERS[layout].items():
        present = [place for names in folders if (place := _first(tree, names, PassedOver()))]
        if not present:
            raise InputError(f"no {domain} folder in {tree.folder.uri!r}: layout {layout!r} expects {_expected(tree, folders[0])}")
        found.append({class_name_of(folder.rpartition("/")[2]) for place in present for folder in tree.folders(place)})
    return sorted(set.intersection(*found))


def _first(tree: Tree, names: Sequence[str], passed: PassedOver) -> str | None:
    """Return the first of alternative folders that exists; others beside it are passed over."""
    present = [name for name in names if tree.has_folder(name)]
    for name in present[1:]:
        passed.add(f"{name}/", f"not read, since {present[0]!r} is there too")
    return present[0] if present else None


def _expected(tree: Tree, names: Sequence[str]) -> str:
    """Return the names that a folder may have, and the one that is there under another spelling."""
    other = [folder for folder in tree.folders("") if fold(folder) in names]
    return " or ".join(names) + (f"; rename {other[0]!r}" if other else "")


def _drawing_files(tree: Tree, present: Sequence[str]) -> list[str]:
    """List QuickDraw's .ndjson files: in the root, in `ndjson/`, or in the sketch folders."""
    folders = dict.fromkeys(["", "ndjson", *present])
    return [path for folder in folders for path in tree.files(folder, _STROKES)]


def _with_drawings(
    directory: Folder, found: list[Source], passed: PassedOver, files: Sequence[str], per_class: int
) -> list[Source]:
    """Add the drawings of each file to `found`. A class takes its spelling from the photo folders, where one matches."""
    spelling = {fold(source.class_name): source.class_name for source in found}
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        for path, lines in zip(files, pool.map(partial(_drawings, directory, per_class), files), strict=True):
            stem = re.sub(r"^full_(simplified|raw)_", "", PurePosixPath(path).stem)
            name = spelling.get(fold(stem), class_name_of(stem))
            found += [Source(f"{path}#{line.number}", "sketch", name, None, line.start, line.length) for line in lines]
            if not lines:
                passed.add(path, "a file of strokes without a drawing that the game recognised")
    return found


def _drawings(directory: Folder, count: int, file: str) -> list[strokes.Line]:
    return list(strokes.drawings(directory, file, count))


def _from_lists(tree: Tree, passed: PassedOver, lists_dir: str, *, held_out_seen: bool) -> Iterator[Source]:
    """Read `*_train.txt` and `*_zero.txt` (and `*_test.txt`: sketches of seen classes held out of training)."""
    folder = key_of(lists_dir, "--lists-dir") if lists_dir else _only_lists_dir(tree)
    files = {PurePosixPath(path).name: path for path in tree.files(folder, _LISTS)}
    names = {hint: _class_names(tree.folder, files.get(file)) for hint, file in _CLASS_NAMES.items()}
    endings = {"_train.txt": "seen", "_zero.txt": "unseen", **({"_test.txt": "seen"} if held_out_seen else {})}
    used = [(file, hint) for file in files for ending, hint in endings.items() if file.endswith(ending)]
    used = [(file, hint) for file, hint in used if not file.startswith("cname_cid")]
    if not used:
        raise InputError(f"no list ending in _train.txt or _zero.txt in {join(tree.folder.uri, folder)!r}")
    listed: dict[str, set[str]] = defaultdict(set)
    for file, hint in used:
        for source in _listed(tree, files[file], hint, names[hint]):
            listed[hint].add(source.class_name)
            yield source
    for hint, by_label in names.items():
        for name in by_label.values():
            if hint in endings.values() and name not in listed[hint]:
                passed.add(name, f"a class of {_CLASS_NAMES[hint]} that no list has an image of")


def _only_lists_dir(tree: Tree) -> str:
    folders = tree.folders("", start="zeroshot")
    if len(folders) != 1:
        have = f"there are {_some(folders)}" if folders else "there is no zeroshot* folder"
        raise InputError(f"which lists in {tree.folder.uri!r}? {have}; name the folder with --lists-dir")
    return folders[0]


def _class_names(directory: Folder, file: str | None) -> dict[str, str]:
    """Map labels to class names; empty where the list's folder has no such file (the class is then the image's folder).

    Raises InputError when a label has two names.
    """
    names: dict[str, str] = {}
    for name, label in _rows(directory, file) if file else ():
        if names.setdefault(label, class_name_of(name)) != class_name_of(name):
            raise InputError(f"{PurePosixPath(file or '').name}: label {label} is both {names[label]!r} and {name!r}")
    return names


def _rows(directory: Folder, file: str) -> Iterator[tuple[str, str]]:
    """Yield text and label of each line `<text> <label>`, split at the last blank, since the text may hold blanks."""
    name = PurePosixPath(file).name
    for number, row in enumerate(text_lines(decode_text(directory.read(file), name)), 1):
        if row:
            text, *label = row.rsplit(maxsplit=1)
            if not label or not label[0].isdecimal():
                raise InputError(f"{name} line {number}: {row[:80]!r} is not '<path> <label>'")
            yield text, label[0]


def _listed(tree: Tree, file: str, hint: str, names: dict[str, str]) -> Iterator[Source]:
    name = PurePosixPath(file).name
    domain = _list_domain(name)
    for text, label in _rows(tree.folder, file):
        path = key_of(text, name)
        tree.check(path)
        if names and label not in names:
            raise InputError(f"{name}: label {label} of {text!r} has no name in the class list beside it")
        class_name = names[label] if names else sys.intern(class_name_of(PurePosixPath(path).parent.name))
        yield Source(path, domain, class_name, split_hint=hint)


def _list_domain(name: str) -> str:
    """Return the domain that the name of a list contains: all_photo_..., ImageResized_..., sketch_..., png_..."""
    lower = name.lower()
    if "photo" in lower or "image" in lower:
        return "photo"
    if "sketch" in lower or "png" in lower:
        return "sketch"
    raise InputError(f"does the list {name!r} hold photos or sketches? its name must hold 'photo' or 'sketch'")
