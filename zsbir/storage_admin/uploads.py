"""Parts of object storage that disks do not have: unfinished multipart uploads, and checksums in the metadata of files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from zsbir.base.files import sha256_file
from zsbir.base.storage import Folder, is_remote

if TYPE_CHECKING:
    from zsbir.base.s3 import S3Folder


class Upload(NamedTuple):
    """An unfinished multipart upload: its key below the folder, when it began (seconds since 1970), its id, its bytes so far."""

    key: str
    begun_s: float
    upload_id: str
    size: int


def pending_uploads(folder: Folder) -> list[Upload]:
    """Return the unfinished multipart uploads below a folder. A store keeps, and charges for, their parts."""
    if not is_remote(folder.uri):
        return []
    store = _store(folder)
    base = len(f"{store.prefix}/") if store.prefix else 0
    found = []
    with _explained_errors(folder.uri):
        pages = _client().get_paginator("list_multipart_uploads").paginate(Bucket=store.bucket, Prefix=_key(store, ""))
        for page in pages:
            for upload in page.get("Uploads", ()):
                at = {"Bucket": store.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                begun_s = upload["Initiated"].timestamp()
                found.append(Upload(upload["Key"][base:], begun_s, upload["UploadId"], _size(at)))
    return found


def abort_upload(folder: Folder, upload: Upload) -> None:
    """Abort an upload: the store removes its parts. One that has ended already is ignored."""
    store = _store(folder)
    with _explained_errors(folder.uri), _unless_ended():
        _client().abort_multipart_upload(Bucket=store.bucket, Key=_key(store, upload.key), UploadId=upload.upload_id)


def noted_sha256(folder: Folder, key: str) -> str:
    """Return the sha256 of a file: on disk from its bytes, in object storage from its metadata ("" when it has none)."""
    path = folder.local(key)
    if path is not None:
        return sha256_file(path)
    store = _store(folder)
    with _explained_errors(f"{folder.uri}/{key}"):
        head: dict[str, Any] = _client().head_object(Bucket=store.bucket, Key=_key(store, key))
    return str(head.get("Metadata", {}).get("sha256", ""))


def _size(at: dict[str, str]) -> int:
    parts: list[dict[str, Any]] = []
    with _unless_ended():
        for page in _client().get_paginator("list_parts").paginate(**at):
            parts += page.get("Parts", ())
    return sum(int(part["Size"]) for part in parts)


def _store(folder: Folder) -> S3Folder:
    from zsbir.base.s3 import S3Folder  # boto3 is slow to import, and most commands do without it

    assert isinstance(folder, S3Folder)
    return folder


def _client() -> Any:
    from zsbir.base.s3 import client

    return client()


def _key(store: S3Folder, key: str) -> str:
    return f"{store.prefix}/{key}" if store.prefix else key


@contextmanager
def _explained_errors(where: str) -> Iterator[None]:
    from zsbir.base.s3_errors import STORE_ERRORS, explain

    try:
        yield
    except STORE_ERRORS as error:
        raise explain(error, where) from None


@contextmanager
def _unless_ended() -> Iterator[None]:
    from botocore.exceptions import ClientError

    from zsbir.base.s3_errors import code_of

    try:
        yield
    except ClientError as error:
        if code_of(error) != "NoSuchUpload":
            raise
