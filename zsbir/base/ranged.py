"""A file of a folder, open for reading; only the ranges that are read are fetched."""

from __future__ import annotations

import io

from zsbir.base.folder import Folder


class RangedFile(io.RawIOBase):
    """A read-only binary file; each read asks the store for that range alone."""

    def __init__(self, folder: Folder, key: str, size: int):
        super().__init__()
        self._folder, self._key, self._size, self._at = folder, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        length = self._size - self._at if size < 0 else min(size, self._size - self._at)
        data = self._folder.read_range(self._key, self._at, length)
        self._at += len(data)
        return data
