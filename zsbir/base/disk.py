"""Folders on a local or shared disk. Files are published by hard links, so the file system itself lets one writer win."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zsbir.base.files import in_folder, make_shared, open_regular, sha256_file, write_atomic
from zsbir.base.folder import WORKSPACE, Entry, TooLarge, checked_key, variation

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class DiskFolder:
    """A folder on a disk; its methods are documented in `zsbir.base.folder.Folder`."""

    def __init__(self, path: Path):
        self.path = path.resolve()
        self.uri = str(self.path)

    def sub(self, key: str) -> DiskFolder:
        return DiskFolder(self.path / checked_key(key))

    def read(self, key: str, limit: int | None = None) -> bytes:
        with open_regular(f"{self.uri}/{checked_key(key)}") as file:  # text, since this is called a million times
            data = file.read() if limit is None else file.read(limit + 1)
        if limit is not None and len(data) > limit:
            raise TooLarge(self.uri, key, limit)
        return data

    def read_range(self, key: str, start: int, length: int) -> bytes:
        with open_regular(self._file(key)) as file:
            file.seek(start)
            return file.read(length)

    def size(self, key: str) -> int | None:
        found = _regular(self._file(key))
        return None if found is None else found.st_size

    def version(self, key: str) -> str | None:
        found = _regular(self._file(key))
        return None if found is None else f"{found.st_size}-{found.st_mtime_ns}"

    def create(self, key: str, data: bytes) -> bool:
        target = self._file(key)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            write_atomic(part, data)
            return _link(part, target)
        finally:
            part.unlink(missing_ok=True)

    def replace(self, key: str, data: bytes) -> None:
        write_atomic(self._file(key), data)

    def publish(self, key: str, file: Path, sha256: str) -> str:
        target = self._file(key)
        make_shared(file)  # safetensors and temporary files are their owner's alone; artifacts are read by colleagues
        _flush(file)
        if not in_folder(target.parent, lambda: _link(file, target)) and _checksum(target) != sha256:
            return self.publish(variation(key), file, sha256)
        file.unlink(missing_ok=True)
        return key

    def download(self, key: str, file: Path, limit: int | None = None) -> None:
        with open_regular(self._file(key)) as source, file.open("wb") as target:
            size = os.fstat(source.fileno()).st_size
            if limit is not None and size > limit:
                raise TooLarge(self.uri, key, limit)
            shutil.copyfileobj(source, target, 2**20)

    def leads_out(self, key: str) -> bool:
        return not self._file(key).resolve().is_relative_to(self.path)

    def walk(self) -> Iterator[Entry]:
        found = []
        for directory, _, files in os.walk(self.path, onerror=_raise_unless_gone):
            for name in files:
                path = Path(directory, name)
                with suppress(FileNotFoundError):
                    at = path.stat()
                    found.append(Entry(path.relative_to(self.path).as_posix(), at.st_size, at.st_mtime))
        yield from sorted(found)

    def names(self) -> list[str]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return sorted(path.name for path in self.path.iterdir())
        return []

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._file(key)
            path.unlink(missing_ok=True)
            self._remove_empty(path.parent)

    def clear(self) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path)

    def local(self, key: str = "") -> Path | None:
        return self._file(key) if key else self.path

    def check_writable(self) -> None:
        with self.workspace():
            pass

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        work = in_folder(self.path, lambda: Path(tempfile.mkdtemp(prefix=WORKSPACE, dir=self.path)))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            self._remove_empty(self.path)

    def _file(self, key: str) -> Path:
        return self.path / checked_key(key)

    def _remove_empty(self, path: Path) -> None:
        """Remove `path` and its parents up to this folder, as long as they are empty: object storage has none either."""
        while path.is_relative_to(self.path):
            try:
                path.rmdir()
            except OSError:
                return
            path = path.parent


def _link(file: Path, target: Path) -> bool:
    """Link `file` as `target` and return True, or False where `target` exists. Without hard links, a check and a rename."""
    try:
        os.link(file, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            return False
        file.rename(target)
    return True


def _raise_unless_gone(error: OSError) -> None:
    """Raise the error of a folder that cannot be listed, instead of showing it as empty; other processes may remove one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _regular(path: Path) -> os.stat_result | None:
    """Return what the disk knows of a regular file, None where there is none. Other processes may remove it at any moment."""
    with suppress(FileNotFoundError, NotADirectoryError):
        found = path.stat()
        return found if stat.S_ISREG(found.st_mode) else None
    return None


def _checksum(path: Path) -> str | None:
    """Return the sha256 of a regular file, None where there is none."""
    if _regular(path) is not None:
        with suppress(FileNotFoundError):
            return sha256_file(path)
    return None


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
