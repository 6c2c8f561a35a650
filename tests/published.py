"""Archives and files of drawings laid out as their publishers have them, made of small pictures or of the shared real ones.

`python -m published FOLDER` makes them of the shared data, and prints the flags with which `zsbir.download` takes them from a
`servers.file_host`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pictures import encoded, picture

from zsbir.downloads.classes import CLASSES

ARCHIVE = "/photos/caltech-101.zip"
DRAWINGS = "/drawings/"


def tar_of(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Return a compressed tar file, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


def zip_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, (2004, 4, 5, 0, 0, 0)), data)
    return buffer.getvalue()


def caltech(photos: Iterable[tuple[str, bytes]], annotations: int = 100) -> bytes:
    """Return the archive with photos by their path, such as `101_ObjectCategories/ant/image_0001.jpg`.

    annotations: bytes of what else the archive holds.
    """
    inner = tar_of((tarfile.TarInfo(name), data) for name, data in photos)
    return zip_of(
        [
            ("caltech-101/", b""),
            ("caltech-101/101_ObjectCategories.tar.gz", inner),
            ("caltech-101/Annotations.tar", bytes(annotations)),
        ]
    )


def made_up_photos(classes: Iterable[str], count: int) -> list[tuple[str, bytes]]:
    """Return `count` small photos of each folder of these classes, no two alike, and some of a class that nobody draws."""
    folders = [folder for name in classes for folder in CLASSES[name].folders] + ["BACKGROUND_Google"]
    return [
        (f"101_ObjectCategories/{folder}/image_{number:04d}.jpg", encoded(picture(30 + number, 20 + len(folder)), "JPEG"))
        for folder in folders
        for number in range(1, count + 1)
    ]


def made_up_drawings(word: str, count: int) -> bytes:
    """Return lines of an .ndjson file: every fourth was not recognised by the game."""
    rng = np.random.default_rng(len(word))
    lines = []
    for number in range(count):
        strokes = [rng.integers(0, 256, (2, 12)).tolist() for _ in range(3)]
        facts = {"word": word, "countrycode": "DE", "recognized": number % 4 != 3, "key_id": str(10**15 + number)}
        lines.append(json.dumps({**facts, "drawing": strokes}, separators=(",", ":")))
    return ("\n".join(lines) + "\n").encode()


def made_up(classes: Iterable[str], count: int = 6, annotations: int = 100) -> dict[str, bytes]:
    """Return everything that `zsbir.download` asks for, by its path on the host."""
    classes = list(classes)
    weights = np.random.default_rng(0).bytes(100_000)
    return {
        ARCHIVE: caltech(made_up_photos(classes, count), annotations),
        weights_path(weights): weights,
        **{f"{DRAWINGS}{CLASSES[name].word}.ndjson": made_up_drawings(CLASSES[name].word, 4 * count) for name in classes},
    }


def weights_path(weights: bytes) -> str:
    return f"/models/resnet18-{hashlib.sha256(weights).hexdigest()[:8]}.pth"


def flags(url: str, files: dict[str, bytes]) -> dict[str, str]:
    """Return the fields of `Sources` for a host of these files."""
    weights = next(path for path in files if path.startswith("/models/"))
    return {
        "photos_url": url + ARCHIVE,
        "photos_md5": hashlib.md5(files[ARCHIVE], usedforsecurity=False).hexdigest(),
        "drawings_url": url + DRAWINGS,
        "weights_url": url + weights,
    }


def real(shared: Path) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Return the same of the shared photos of Caltech-101 and strokes of Quick, Draw!, and the classes of which there are both."""
    data = shared / "data"
    with (data / "caltech_qd60/manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source_path"].startswith("101_ObjectCategories/")]
    photos = [(row["source_path"], (data / "caltech_qd60/photo" / row["class"] / row["file"]).read_bytes()) for row in rows]
    folders = {name.split("/")[1] for name, _ in photos}
    strokes = {name: data / "strokes" / f"{name}.ndjson" for name in CLASSES}
    classes = tuple(name for name, shared_by in CLASSES.items() if strokes[name].is_file() and folders & set(shared_by.folders))
    weights = (shared / "weights/resnet18_pqf_fp16.pth").read_bytes()
    files = {ARCHIVE: caltech(photos), weights_path(weights): weights}
    return files | {f"{DRAWINGS}{CLASSES[name].word}.ndjson": strokes[name].read_bytes() for name in classes}, classes


def main() -> None:
    """Write the files of `real` below a folder, and print the flags, with HOST in place of the host's address."""
    files, classes = real(Path(os.environ.get("ZSBIR_SHARED", "shared")))
    for path, content in files.items():
        target = Path(sys.argv[1], path.lstrip("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    words = [f"--{name.replace('_', '-')} {value}" for name, value in flags("HOST", files).items()]
    print(" ".join([*words, f"--classes {','.join(classes)}"]))


if __name__ == "__main__":
    main()
