"""Photos of Caltech-101 and drawings of Quick, Draw!, of the classes that both have, as a folder that `ingest` reads."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from filelock import FileLock, Timeout

from zsbir.base import events
from zsbir.base.errors import Busy, DiskFull, RunError, Unreachable
from zsbir.base.files import is_full, write_atomic
from zsbir.base.limits import MIB
from zsbir.base.strict_json import parse_json
from zsbir.downloads import archive, drawings, licences
from zsbir.downloads.classes import CLASSES
from zsbir.downloads.config import DownloadConfig, Settings, Sources
from zsbir.downloads.files import Checksum, Wanted, ask_sizes, check_all, check_room, download_all, missing, say_sizes
from zsbir.downloads.transfer import Patience
from zsbir.downloads.web import Web
from zsbir.storage_admin.tables import count_text

RECORD = "download.json"
"""The file that says what was asked for and what was made; it is written last."""

DOWNLOADS = "downloads"
WEIGHTS = "resnet18.pth"
UNSEEN = "unseen.txt"
"""A split to start with: the classes that none of ImageNet's labels names."""

ARCHIVE = "caltech-101.zip"
FETCH = "fetch.sh"
MOST_ARCHIVE_BYTES = 320 * MIB
MOST_WEIGHTS_BYTES = 128 * MIB
MOST_DRAWINGS_BYTES = 2**30
"""Bytes of a whole file of drawings, of which the beginning is fetched."""

PHOTO_BYTES, SKETCH_BYTES = 40_000, 10_000
"""About how many bytes a photo of the archive has, and more than a rendered drawing has."""


def download(config: DownloadConfig, sources: Sources, settings: Settings) -> Path:
    """Make a folder of photos and sketches with ResNet18's weights, and return it. A complete one is left as it is.

    Raises Unreachable, with what to fetch by hand, where a host cannot be reached; DiskFull before the first byte where there is no
    room; InputError and RunError for files that are not what they should be; Busy where another process makes the same folder.
    """
    folder = Path(settings.to)
    asked = {"config": config.model_dump(mode="json"), "sources": sources.model_dump(mode="json")}
    try:
        (folder / DOWNLOADS).mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if _is_complete(folder, asked):
                events.say(f"{folder} is complete already: nothing was downloaded")
                return folder
            files = wanted_files(config, sources)
            _bring(config, sources, settings, files, folder / DOWNLOADS)
            made = _make(config, files, folder)
            write_atomic(folder / RECORD, json.dumps({"asked": asked, "made": made}, indent=1, sort_keys=True).encode())
    except OSError as error:
        kind = DiskFull if is_full(error) else RunError
        raise kind(f"cannot write {error.filename or folder}: {error.strerror}") from error
    return folder


def wanted_files(config: DownloadConfig, sources: Sources) -> list[Wanted]:
    """Return every file that has to be downloaded."""
    md5 = Checksum("md5", sources.photos_md5) if sources.photos_md5 else None
    weights = urlsplit(sources.weights_url).path.rpartition("/")[2]
    sha256 = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", weights)  # as torch.hub reads it
    first = config.drawings_per_class * drawings.BYTES_PER_DRAWING
    files = [
        Wanted("photos of Caltech-101", sources.photos_url, ARCHIVE, MOST_ARCHIVE_BYTES, None, md5),
        Wanted(
            "weights of ResNet18",
            sources.weights_url,
            f"resnet18-{sha256[1]}.pth" if sha256 else WEIGHTS,
            MOST_WEIGHTS_BYTES,
            None,
            Checksum("sha256", sha256[1]) if sha256 else None,
        ),
    ]
    for name in config.chosen:
        url = f"{sources.drawings_url.rstrip('/')}/{quote(CLASSES[name].word)}.ndjson"
        files.append(Wanted("first drawings of Quick, Draw!", url, f"{name}.ndjson", MOST_DRAWINGS_BYTES, first))
    return files


def _bring(config: DownloadConfig, sources: Sources, settings: Settings, files: list[Wanted], folder: Path) -> None:
    """Download what is not in the folder, and check all of it."""
    events.say_lines(licences.TERMS)
    patience = Patience(settings.tries, settings.pause_s)
    to_do = missing(files, folder)
    check_all([file for file in files if file not in to_do], folder)
    if not to_do:
        return
    try:
        with Web(sources.origins, silence_s=settings.silence_s) as web:
            sized = ask_sizes(web, to_do, Patience(min(settings.tries, 3), settings.pause_s))
            say_sizes(sized, folder)
            check_room(sized, folder, _made_bytes(config))
            download_all(web, sized, folder, patience)
    except Unreachable as error:
        to_do = missing(to_do, folder)
        write_atomic(folder / FETCH, _fetch_script(to_do).encode())
        raise Unreachable(f"{error}; {_by_hand(to_do, folder)}") from error


def _made_bytes(config: DownloadConfig) -> int:
    return len(config.chosen) * (config.photos_per_class * PHOTO_BYTES + config.drawings_per_class * SKETCH_BYTES)


def _by_hand(files: list[Wanted], folder: Path) -> str:
    """Return what to fetch without internet, and where to put it, for one line."""
    whole = [file.url for file in files if file.first_bytes is None]
    parts = len(files) - len(whole)
    names = [*whole, f"{count_text(parts, 'file')} of drawings"] if parts else whole
    return (
        f"give the command again later, and it goes on where it stopped; or fetch by hand {', '.join(names)}"
        f" ({folder / FETCH} has the commands), and put all into {folder}"
    )


def _fetch_script(files: list[Wanted]) -> str:
    """Return a shell script that fetches files into the folder in which it is run."""
    lines = ["#!/bin/sh", "# Fetches what zsbir.download could not, into the folder in which it is run.", "set -eu"]
    for file in files:
        part = f"-r 0-{file.first_bytes - 1}" if file.first_bytes else "-C -"
        name, half = shlex.quote(file.name), shlex.quote(f"{file.name}.half")
        lines.append(f"test -f {name} || {{ curl -fL --retry 5 {part} -o {half} {shlex.quote(file.url)} && mv {half} {name}; }}")
    return "\n".join([*lines, ""])


def _make(config: DownloadConfig, files: list[Wanted], folder: Path) -> dict[str, int]:
    """Make photos, sketches, the weights' file and the terms of use. Returns the size of each file by its path below the folder."""
    source = folder / DOWNLOADS
    made: dict[str, int] = {}
    wanted = {name: CLASSES[name].folders for name in config.chosen}
    for name, photo, data in events.track(
        archive.photos(source / ARCHIVE, wanted, config.photos_per_class), "unpack", unit="photo"
    ):
        _put(folder, f"photo/{name}/{photo.folder}_{photo.number:04d}.jpg", data, made)
    first = config.drawings_per_class * drawings.BYTES_PER_DRAWING
    for name in events.track(config.chosen, "draw", total=len(config.chosen), unit="word"):
        for drawing in drawings.drawings(source / f"{name}.ndjson", CLASSES[name].word, config.drawings_per_class, first):
            _put(folder, f"sketch/{name}/quickdraw_{drawing.name}.png", drawing.png, made)
    _remove_others(folder, made)
    _put_weights(source / files[1].name, folder / WEIGHTS)
    made[WEIGHTS] = (folder / WEIGHTS).stat().st_size
    _put(folder, "LICENCES.md", licences.DOCUMENT.encode(), made)
    _put(folder, UNSEEN, "".join(f"{name}\n" for name in config.chosen if CLASSES[name].new).encode(), made)
    kinds = [sum(path.startswith(f"{kind}/") for path in made) for kind in ("photo", "sketch")]
    events.say(
        f"{folder}: {kinds[0]:,} photos and {kinds[1]:,} sketches of {len(config.chosen)} classes; terms of use: LICENCES.md"
    )
    return made


def _put(folder: Path, name: str, data: bytes, made: dict[str, int]) -> None:
    """Write a file unless it is there: its time of change, by which ingest knows it, stays as it is."""
    path = folder / name
    made[name] = len(data)
    if not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _remove_others(folder: Path, made: dict[str, int]) -> None:
    """Remove what an earlier download with other numbers has made, and nothing that somebody else has put there."""
    own = {"photo": re.compile(r"[A-Za-z0-9_-]+_\d{4}\.jpg"), "sketch": re.compile(r"quickdraw_\d+\.png")}
    for kind, pattern in own.items():
        for name, shared in CLASSES.items():
            for path in sorted((folder / kind / name).glob("*")):
                is_own = pattern.fullmatch(path.name) and (kind == "sketch" or path.name.rpartition("_")[0] in shared.folders)
                if is_own and path.relative_to(folder).as_posix() not in made:
                    path.unlink()
            if (folder / kind / name).is_dir() and not any((folder / kind / name).iterdir()):
                (folder / kind / name).rmdir()


def _put_weights(source: Path, target: Path) -> None:
    """Give the weights a name that does not change: as a second name of the file where the disk can, else as a copy."""
    if target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _is_complete(folder: Path, asked: dict[str, Any]) -> bool:
    """Return whether everything that is asked for was made, and is still there."""
    try:
        record = parse_json((folder / RECORD).read_bytes())
        if record["asked"] != json.loads(json.dumps(asked)):
            return False
        return all((folder / name).stat().st_size == size for name, size in record["made"].items())
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from making the same folder. Raises Busy where one does."""
    try:
        with FileLock(folder / DOWNLOADS / ".lock", timeout=0):
            yield
    except Timeout:
        raise Busy(f"another process downloads to {folder}") from None
