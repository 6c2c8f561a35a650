"""Photos out of the Caltech-101 archive: a zip file that holds a compressed tar file that holds the photos.

Nothing is unpacked under a name from the archive. What is read is bounded, whatever the archive says of its sizes; a link, a name
that leads elsewhere, or a name that stands there twice ends the reading.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from zsbir.base.errors import InputError
from zsbir.base.limits import MIB

INNER = "101_ObjectCategories.tar.gz"
MOST_TAR_BYTES = 320 * MIB
"""Bytes of the inner archive, compressed or not. The published one has about 130 MiB."""

MOST_MEMBERS = 30_000
"""Files and folders in the inner archive; the published one has about 9,250."""

MOST_PHOTO_BYTES = 4 * MIB
_PHOTO = re.compile(r"(?:\./)?101_ObjectCategories/(?P<folder>[A-Za-z0-9_-]{1,64})/image_(?P<number>\d{4})\.jpg")
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, OSError, ValueError, RuntimeError, NotImplementedError)
"""What the readers of zip, gzip and tar raise for archives that are damaged, encrypted or of another kind."""


class Photo(NamedTuple):
    """A photo of the archive: its folder, and the number in its name."""

    folder: str
    number: int


def photos(archive: Path, wanted: Mapping[str, Sequence[str]], per_class: int) -> Iterator[tuple[str, Photo, bytes]]:
    """Yield (class, photo, its bytes) for the first photos of each class, by number; of several folders in turn.

    wanted: the archive's folders of each class. Raises InputError for an archive that is damaged, hostile or lacks a class.
    """
    with _open(archive) as members:
        found = {photo for photo, _, _ in members}
    chosen: dict[Photo, str] = {}
    for name, folders in wanted.items():
        mine = sorted((photo for photo in found if photo.folder in folders), key=lambda photo: (photo.number, photo.folder))
        if not mine:
            raise InputError(f"{archive} holds no photos in {' or '.join(folders)}: is it the Caltech-101 archive?")
        chosen |= dict.fromkeys(mine[:per_class], name)
    with _open(archive) as members:
        for photo, member, tar in members:
            if photo in chosen:
                file = tar.extractfile(member)
                assert file is not None  # a regular file
                yield chosen[photo], photo, file.read()


@contextmanager
def _open(archive: Path) -> Iterator[Iterator[tuple[Photo, tarfile.TarInfo, tarfile.TarFile]]]:
    """Open the inner archive and give its photos, one after the other."""
    try:
        with zipfile.ZipFile(archive) as outer:
            inner = [entry for entry in outer.infolist() if PurePosixPath(entry.filename).name == INNER]
            if len(inner) != 1:
                raise InputError(f"{archive} holds {len(inner)} files {INNER}, not one: is it the Caltech-101 archive?")
            with (
                outer.open(inner[0]) as packed,
                gzip.GzipFile(fileobj=_Bounded(packed, archive)) as plain,
                tarfile.open(fileobj=_Bounded(plain, archive), mode="r|") as tar,
            ):
                yield _photos(tar, archive)
    except _DAMAGED as error:
        raise InputError(
            f"{archive} cannot be read ({error or type(error).__name__}): remove it, and give the command again"
        ) from None


def _photos(tar: tarfile.TarFile, archive: Path) -> Iterator[tuple[Photo, tarfile.TarInfo, tarfile.TarFile]]:
    count: dict[Photo, int] = defaultdict(int)
    for number, member in enumerate(tar, 1):
        if number > MOST_MEMBERS:
            raise InputError(f"{archive} holds more than {MOST_MEMBERS:,} files: it is not the Caltech-101 archive")
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{archive} holds a file that leads out of its folder, {member.name!r}: nothing of it is used")
        found = _PHOTO.fullmatch(member.name)
        if found is None:
            continue
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
            raise InputError(f"{archive}: {member.name!r} is a link or a device, not a photo: nothing of the archive is used")
        if member.size > MOST_PHOTO_BYTES:
            raise InputError(f"{archive}: {member.name!r} has {member.size:,} bytes, too many for a photo")
        photo = Photo(found["folder"], int(found["number"]))
        count[photo] += 1
        if count[photo] > 1:
            raise InputError(f"{archive} holds {member.name!r} twice: nothing of it is used")
        yield photo, member, tar


class _Bounded(io.BufferedIOBase):
    """A file of which no more than MOST_TAR_BYTES are read: archives say little of how large they become."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, archive: Path):
        super().__init__()
        self._file, self._archive, self._left = file, archive, MOST_TAR_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes. Raises InputError beyond the bound."""
        data = self._file.read(self._left + 1 if size is None or size < 0 else min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise InputError(f"{self._archive} becomes larger than {MOST_TAR_BYTES // MIB} MiB: it is not the Caltech-101 archive")
        return data
