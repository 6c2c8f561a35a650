"""Single files, by path or URI, as local files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from zsbir.base.artifact import Artifact, exists
from zsbir.base.cache import cache_name, cached
from zsbir.base.errors import InputError
from zsbir.base.storage import is_remote, local_path, split_file


def fetch(uri: str) -> Path:
    """Return a local path of the single file at `uri`: the file itself for a path, a copy in the cache for `s3://bucket/key`.

    A file that an artifact's manifest names is checked. Raises InputError when there is no such file, or the store refuses it.
    """
    if not is_remote(uri):
        path = local_path(uri)
        if not path.is_file():
            raise InputError(f"no file at {str(path)!r}")
        return path
    folder, key = split_file(uri)
    if exists(folder.uri):
        artifact = Artifact(folder.uri)
        if key in artifact.manifest.files:
            return artifact.file(key)
    entry = folder.version(key)
    if entry is None:
        raise InputError(f"no file at {uri!r}")
    name = hashlib.sha256(f"{uri}|{entry}".encode()).hexdigest()
    return cached(cache_name(name, key), lambda file: folder.download(key, file))
