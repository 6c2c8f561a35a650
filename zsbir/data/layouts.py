"""Where the images of a data set lie: each known folder layout becomes one sorted list of sources.

Layouts: `folder` ({photo,sketch}/<class>/*), `sketchy`, `tuberlin`, `quickdraw` (the sets as published), `lists` (the
community's `<path> <label>` files). Nothing is opened here but list files, and no link is followed out of the root.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError
from zsbir.data import strokes
from zsbir.data.schema import DOMAINS

LAYOUTS = ("folder", "sketchy", "tuberlin", "quickdraw", "lists")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

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


@dataclass(frozen=True)
class Source:
    """One image to be ingested: a file below the root, or (`line_start`) one drawing of an .ndjson file."""

    path: str
    domain: str
    class_name: str
    split_hint: str | None = None
    line_start: int | None = None

    def read(self, root: Path) -> bytes:
        """The bytes of the image; strokes are rendered as PNG. OSError when the file is gone, BadImage for broken strokes."""
        if self.line_start is None:
            return self._file(root).read_bytes()
        return strokes.read_drawing(self._file(root), self.line_start)

    def stamp(self, root: Path) -> tuple[int, int]:
        """Size and time of change of the file, which tell a changed source without reading it. Zeros where it is gone."""
        try:
            found = self._file(root).stat()
        except OSError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    def _file(self, root: Path) -> Path:
        return root / (self.path if self.line_start is None else self.path.rpartition("#")[0])


def scan(
    layout: str,
    root: Path,
    *,
    dedup: bool = False,
    lists_dir: str = "",
    held_out_seen: bool = False,
    drawings_per_class: int = 3000,
    skip_incomplete: bool = False,
) -> list[Source]:
    """Every image of the data set at `root`, sorted by class, domain and path.

    `dedup` leaves out a photo whose file name came before in its class from another folder (the published Sketchy lists
    hold 100 photos a class twice). `lists_dir` and `held_out_seen` belong to `lists`, `drawings_per_class` to .ndjson files;
    `skip_incomplete` leaves out classes that lack photos or sketches. Raises InputError with the way out.
    """
    if layout not in LAYOUTS:
        raise InputError(unknown_name("layout", layout, LAYOUTS))
    if not root.is_dir():
        raise InputError(f"no folder at {str(root)!r}: give the folder that holds the data set")
    if layout == "lists":
        found = list(_from_lists(root, lists_dir, held_out_seen=held_out_seen))
    else:
        found, empty = _from_folders(layout, root, drawings_per_class)
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


def _from_folders(layout: str, root: Path, drawings_per_class: int) -> tuple[list[Source], list[str]]:
    """All sources, and the class folders that hold no image."""
    guard = _Guard(root)
    found: list[Source] = []
    empty: list[str] = []
    for domain, places in _FOLDERS[layout].items():
        present = [place for names in places if (place := next((n for n in names if (root / n).is_dir()), None))]
        drawings = list(_drawing_files(root, present)) if layout == "quickdraw" and domain == "sketch" else []
        if not present and not drawings:
            raise InputError(f"no {domain} folder in {str(root)!r}: layout {layout!r} expects {' or '.join(places[0])}")
        for place in present:
            for folder in guard.folders(place):
                files = [Source(path, domain, folder.rpartition("/")[2]) for path in guard.images(folder)]
                found += files
                empty += [] if files else [folder]
        if drawings:
            found = _with_drawings(root, found, drawings, drawings_per_class)
    return found, empty


def _drawing_files(root: Path, present: Sequence[str]) -> Iterator[Path]:
    """QuickDraw's .ndjson files: in the root, in `ndjson/`, or beside the sketch folders."""
    for folder in dict.fromkeys([".", "ndjson", *present]):
        yield from sorted((root / folder).glob("[!.]*.ndjson"))


def _with_drawings(root: Path, found: list[Source], files: Sequence[Path], per_class: int) -> list[Source]:
    """`found` and the drawings of each file. A class takes its spelling from the photo folders, where one matches."""
    guard = _Guard(root)
    spelling = {fold(source.class_name): source.class_name for source in found}
    for file in files:
        guard.check(file)
        stem = re.sub(r"^full_(simplified|raw)_", "", file.stem)
        name = spelling.get(fold(stem), stem)
        path = file.relative_to(root).as_posix()
        for number, start in strokes.drawing_starts(file, per_class):
            found.append(Source(f"{path}#{number}", "sketch", name, line_start=start))
    return found


class _Guard:
    """Lists folders below a root, and refuses links that lead out of it."""

    def __init__(self, root: Path):
        self.root, self.real = root, root.resolve()
        self._checked: set[Path] = set()

    def check(self, path: Path) -> None:
        """InputError when `path` lies, link by link, outside the root."""
        if not path.resolve().is_relative_to(self.real):
            raise InputError(
                f"{str(path)!r} is a link that leads out of {str(self.root)!r}; copy what it points to into the folder"
            )

    def check_listed(self, relative: str, where: str) -> None:
        """The same for a path that a list names; each folder is resolved once."""
        pure = PurePosixPath(relative)
        if pure.is_absolute() or ".." in pure.parts or "\0" in relative:
            raise InputError(f"{where}: {relative!r} is no path below the data set's folder")
        path = self.root / relative
        if path.parent not in self._checked:
            self.check(path.parent)
            self._checked.add(path.parent)
        if path.is_symlink():
            self.check(path)

    def folders(self, place: str) -> list[str]:
        """The visible folders directly in `place`, as paths below the root, sorted."""
        self.check(self.root / place)
        return sorted(f"{place}/{entry.name}" for entry in self._entries(place) if entry.is_dir())

    def images(self, folder: str) -> list[str]:
        """The visible image files directly in `folder`, as paths below the root, sorted."""
        return sorted(
            f"{folder}/{entry.name}"
            for entry in self._entries(folder)
            if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and entry.is_file()  # noqa: PTH122 - 5 x faster
        )

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self.root / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    self.check(Path(entry.path))
                yield entry


def _from_lists(root: Path, lists_dir: str, *, held_out_seen: bool) -> Iterator[Source]:
    """`*_train.txt` and `*_zero.txt` (and `*_test.txt`: sketches of seen classes held out of training)."""
    guard = _Guard(root)
    folder = root / lists_dir if lists_dir else _only_lists_dir(root)
    guard.check(folder)
    names = {"seen": _class_names(folder / "cname_cid.txt"), "unseen": _class_names(folder / "cname_cid_zero.txt")}
    endings = {"_train.txt": "seen", "_zero.txt": "unseen", **({"_test.txt": "seen"} if held_out_seen else {})}
    files = sorted(file for file in folder.glob("*.txt") if not file.name.startswith(("cname_cid", ".")))
    used = [(file, hint) for file in files for ending, hint in endings.items() if file.name.endswith(ending)]
    if not used:
        raise InputError(f"no list ending in _train.txt or _zero.txt in {str(folder)!r}")
    for file, hint in used:
        yield from _listed(file, hint, names[hint], guard)


def _only_lists_dir(root: Path) -> Path:
    folders = sorted(path for path in root.glob("zeroshot*") if path.is_dir())
    if len(folders) != 1:
        have = f"there are {_some([path.name for path in folders])}" if folders else "there is no zeroshot* folder"
        raise InputError(f"which lists in {str(root)!r}? {have}; name the folder with --lists-dir")
    return folders[0]


def _class_names(file: Path) -> dict[str, str]:
    """Label to class name; empty where the list's folder has no such file (the class is then the image's folder)."""
    if not file.is_file():
        return {}
    return {label: name for name, label in _rows(file)}


def _rows(file: Path) -> Iterator[tuple[str, str]]:
    """`<text> <label>` of each line, split at the last blank: text may hold blanks."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{file.name} is no text list") from None
    for number, row in enumerate(lines, 1):
        if row.strip():
            text, _, label = row.strip().rpartition(" ")
            if not text or not label.isdecimal():
                raise InputError(f"{file.name} line {number}: {row.strip()[:80]!r} is not '<path> <label>'")
            yield text.strip(), label


def _listed(file: Path, hint: str, names: dict[str, str], guard: _Guard) -> Iterator[Source]:
    domain = _list_domain(file.name)
    for path, label in _rows(file):
        guard.check_listed(path, file.name)
        if names and label not in names:
            raise InputError(f"{file.name}: label {label} of {path!r} has no name in the class list beside it")
        yield Source(path, domain, names[label] if names else PurePosixPath(path).parent.name, split_hint=hint)


def _list_domain(name: str) -> str:
    """The community's list names: all_photo_..., ImageResized_..., sketch_..., png_..."""
    lower = name.lower()
    if "photo" in lower or "image" in lower:
        return "photo"
    if "sketch" in lower or "png" in lower:
        return "sketch"
    raise InputError(f"does the list {name!r} hold photos or sketches? its name must hold 'photo' or 'sketch'")
