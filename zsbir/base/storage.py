"""Where bytes live. Artifacts are directories on disk; single files (weights) may also come from `s3://`.

Environment: `ZSBIR_ROOT` (storage root, default `artifacts` in the working directory), `ZSBIR_CACHE` (default
`~/.cache/zsbir`); for S3 the usual `AWS_*` variables, `AWS_ENDPOINT_URL` among them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from zsbir.base.errors import InputError


def default_root() -> str:
    """The storage root where none was named: `ZSBIR_ROOT`, else `artifacts`."""
    return os.environ.get("ZSBIR_ROOT", "artifacts")


def cache_dir() -> Path:
    """The folder of files that can be made again: `ZSBIR_CACHE`, else `~/.cache/zsbir`."""
    return Path(os.environ.get("ZSBIR_CACHE") or Path.home() / ".cache" / "zsbir")


def local_path(uri: str) -> Path:
    """The local folder or file behind `uri` (a path or a `file://` URI). InputError for other schemes."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    if "://" in uri:
        raise InputError(f"{uri!r}: artifacts are read from local disk (a path or file://); copy it there first")
    return Path(uri)


def fetch(uri: str) -> Path:
    """A local copy of the single file at `uri`: itself for a path, downloaded once to the cache for `s3://bucket/key`.

    Raises InputError when there is no such file, or the store says no.
    """
    if uri.startswith("s3://"):
        return _fetch_s3(uri)
    path = local_path(uri)
    if not path.is_file():
        raise InputError(f"no file at {str(path)!r}")
    return path


def _fetch_s3(uri: str) -> Path:
    import boto3  # slow to import, and needed by few
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    config = Config(connect_timeout=5, read_timeout=60, retries={"max_attempts": 3, "mode": "standard"})
    try:
        client = boto3.Session().client("s3", config=config)
        etag = client.head_object(Bucket=bucket, Key=key)["ETag"].strip('"')
        name = hashlib.sha256(f"{client.meta.endpoint_url}|{uri}|{etag}".encode()).hexdigest()
        target = cache_dir() / "files" / f"{name}{Path(key).suffix}"
        if not target.exists():
            _download(client, bucket, key, target)
    except (BotoCoreError, ClientError, ValueError) as error:  # ValueError: AWS_ENDPOINT_URL is no address
        raise InputError(f"cannot read {uri}: {' '.join(str(error).split())}") from None
    return target


def _download(client: Any, bucket: str, key: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part:
        try:
            client.download_fileobj(bucket, key, part)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise
    Path(part.name).replace(target)


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: a reader sees the old bytes or the new ones, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as part:
        try:
            part.write(data)
            part.flush()
            os.fsync(part.fileno())
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise
