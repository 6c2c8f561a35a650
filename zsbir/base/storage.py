"""Addresses of files and folders, and what is behind them: local disk (`zsbir.base.disk`) or object storage (`zsbir.base.s3`).

A `Folder` is a directory, or a prefix of a bucket. Its files are write-once: `publish` never puts other bytes where some are, and
`create` has one winner. On these two, artifacts are built (see `zsbir.base.draft`); nothing else is asked of a store.

Environment: `ZSBIR_ROOT` (storage root, a path or `s3://bucket/prefix`; default `artifacts` in the working directory); for S3 the
usual `AWS_*` variables (see docs/storage.md).
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from zsbir.base.errors import InputError
from zsbir.base.folder import S3_SCHEME, WORKSPACE, Entry, Folder, checked_key, variation
from zsbir.base.text import clean

__all__ = [
    "S3_SCHEME",
    "WORKSPACE",
    "Entry",
    "Folder",
    "checked_key",
    "default_root",
    "folder_name",
    "is_remote",
    "join",
    "local_path",
    "open_folder",
    "split_file",
    "variation",
]


_FILE_SCHEME = "file:/"


def open_folder(uri: str | Path) -> Folder:
    """Return the folder at a path, a `file://` or an `s3://` URI. Raises InputError for other schemes and malformed URIs."""
    text = str(uri)
    if text.startswith(S3_SCHEME):
        from zsbir.base.s3 import S3Folder  # boto3 is slow to import, and most commands do without it

        return S3Folder(text)
    from zsbir.base.disk import DiskFolder

    return DiskFolder(local_path(text))


def join(uri: str | Path, *parts: str) -> str:
    """Return the address of something below a folder."""
    text = str(uri)
    if text.startswith(S3_SCHEME):
        return "/".join([text.rstrip("/"), *parts])
    return str(local_path(text).joinpath(*parts))


def folder_name(uri: str) -> str:
    """Return the last part of an address."""
    return uri.rstrip("/").rpartition("/")[2]


def split_file(uri: str | Path) -> tuple[Folder, str]:
    """Return the folder and the key of the single file at `uri`."""
    text = str(uri)
    if text.startswith(S3_SCHEME):
        bucket, _, key = text.removeprefix(S3_SCHEME).partition("/")
        parent, _, name = key.rstrip("/").rpartition("/")
        if not name:
            raise InputError(f"{text!r} is not a file in object storage: it should read s3://bucket/key")
        return open_folder(f"{S3_SCHEME}{bucket}/{parent}"), name
    path = local_path(text)
    return open_folder(path.parent), path.name


def is_remote(uri: str | Path) -> bool:
    """Return whether `uri` lies in object storage."""
    return str(uri).startswith(S3_SCHEME)


def default_root() -> str:
    """Return the storage root to use where none is named: `ZSBIR_ROOT`, else `artifacts`."""
    return os.environ.get("ZSBIR_ROOT") or "artifacts"


def local_path(uri: str) -> Path:
    """Return the local path that `uri` (a path or a `file:` URI, RFC 8089) means.

    Raises InputError for other schemes, for another host, and for names that are not UTF-8, which no manifest could hold.
    """
    path = _path_of_file_uri(uri) if uri[: len(_FILE_SCHEME)].lower() == _FILE_SCHEME else uri
    if "://" in uri and path is uri:
        raise InputError(f"{uri!r} has a scheme that is not known here: give a path, file:// or s3://bucket/prefix")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"the path '{clean(path)}' is not UTF-8: rename the file or folder") from None
    if "\0" in path:
        raise InputError(f"the path {path!r} holds a zero byte")
    return Path(path)


def _path_of_file_uri(uri: str) -> str:
    """Return the decoded path of `file:///path`, `file://localhost/path` or `file:/path`."""
    rest = uri[len(_FILE_SCHEME) - 1 :]
    host, slash, path = rest[2:].partition("/") if rest.startswith("//") else ("", "/", rest[1:])
    if host.lower() not in ("", "localhost") or not slash:
        raise InputError(f"{uri!r} names another machine, {host!r}: for a path of this one write file:///path, with three slashes")
    return unquote(f"/{path}", errors="surrogateescape")
