"""Secrets with values that are found again wherever they turn up: in files, databases, archives, images, answers, command lines.

    canaries = Canaries({"S3 secret key": "canary-..."})
    canaries.in_folder(path)      {"where": {"S3 secret key"}}: of a service, of an unpacked image
    canaries.in_data(text)        {"S3 secret key"}

A value is looked for as it is, quoted for an address, and in base64 at each of the three offsets that it may have there. Compressed
files are read as what they are: gzip, tar (the layers of an image), zip (wheels), Parquet, SQLite. Hashes of secrets are none.
"""

from __future__ import annotations

import base64
import gzip
import io
import sqlite3
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet

SHORTEST = 12
"""Letters that a value must have: shorter ones turn up by chance."""

DEEPEST = 4
"""Archives in archives that are opened: a layer in an image in a folder has two."""


class Canaries:
    """Values by the name of the secret that each is."""

    def __init__(self, values: Mapping[str, str]):
        short = [name for name, value in values.items() if len(value) < SHORTEST]
        assert not short, f"too short to be found for certain: {short}"
        self._forms = {name: set(_forms(value)) for name, value in values.items()}

    def in_data(self, data: bytes | str) -> set[str]:
        """The names of the secrets that stand in this."""
        searched = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        return {name for name, forms in self._forms.items() if any(form in searched for form in forms)}

    def in_folder(self, folder: Path) -> dict[str, set[str]]:
        """The secrets in each regular file below a folder, by its path there. A file's own name counts as well."""
        found = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            with suppress(FileNotFoundError):  # what a running program has removed meanwhile
                if stat.S_ISREG(path.lstat().st_mode):
                    found[name] = self.in_data(name) | self.in_file(path)
        return {name: secrets for name, secrets in found.items() if secrets}

    def in_file(self, path: Path) -> set[str]:
        """The names of the secrets in a file, and in what is packed into it."""
        data = path.read_bytes()
        found = self.in_data(data) | self._in_packed(data, DEEPEST)
        if data.startswith(b"SQLite format 3\0"):
            for line in _rows_of_sqlite(path):
                found |= self.in_data(line)
        return found

    def _in_packed(self, data: bytes, depth: int) -> set[str]:
        found: set[str] = set()
        for start, unpack in UNPACK.items():
            if depth and (data.startswith(start) if start else _is_tar(data)):
                try:
                    for name, content in unpack(data):
                        found |= self.in_data(name) | self.in_data(content) | self._in_packed(content, depth - 1)
                except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, pyarrow.ArrowException):
                    continue  # it only begins like one
        return found


def _forms(value: str) -> Iterator[bytes]:
    """The ways in which a value is commonly written down."""
    yield value.encode()
    yield quote(value, safe="").encode()
    for offset in range(3):
        # What stands before and behind it changes the first and the last letters of base64.
        coded = base64.b64encode(b"\0" * offset + value.encode())
        yield coded[(0, 2, 3)[offset] : len(coded) // 4 * 4 - 4]


def _rows_of_sqlite(path: Path) -> Iterator[str]:
    """All rows as text: a long value is spread over several places of the file."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        yield from database.iterdump()


def _is_tar(data: bytes) -> bool:
    return data[257:262] == b"ustar"


def _gunzipped(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "", gzip.decompress(data)


def _of_tar(data: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            yield f"{member.name} {member.linkname}", file.read() if file else b""


def _of_zip(data: bytes) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            yield name, archive.read(name)


def _of_parquet(data: bytes) -> Iterator[tuple[str, bytes]]:
    file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
    yield str(file.schema_arrow.metadata), b""
    for batch in file.iter_batches():
        for column in batch.columns:
            for value in column.to_pylist():
                yield "", value if isinstance(value, bytes) else str(value).encode()


UNPACK: dict[bytes, Callable[[bytes], Iterator[tuple[str, bytes]]]] = {
    b"\x1f\x8b": _gunzipped,
    b"PK\x03\x04": _of_zip,
    b"PAR1": _of_parquet,
    b"": _of_tar,
}
"""What is read as what it is, by its first bytes; a tar file has its mark further behind."""
