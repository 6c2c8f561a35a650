"""Folders in S3-compatible object storage, through boto3.

Files are put with `If-None-Match: *`, so that the store itself lets one writer win. Whether a store honours the condition is
tested when a writer starts; where it does not, the user is warned, every file gets a key of its own, and the manifest names it.

Environment: the usual `AWS_*` variables (endpoint, region, keys, profile, `AWS_CA_BUNDLE`); `ZSBIR_S3_ADDRESSING` path, virtual or
auto (path for a custom endpoint); `ZSBIR_S3_ATTEMPTS` attempts at a request (5, with jittered back-off); `ZSBIR_S3_TIMEOUT_S`
seconds without a byte after which an attempt is given up (60).
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import boto3
import botocore.loaders
import botocore.session
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp

from zsbir.base.cache import drafts_dir
from zsbir.base.errors import InputError, RunError
from zsbir.base.events import warn
from zsbir.base.folder import NO_NAMES, S3_SCHEME, WORKSPACE, Entry, TooLarge, checked_key, variation
from zsbir.base.s3_errors import STORE_ERRORS, DamagedError, code_of, explain

logging.getLogger("botocore").setLevel(logging.WARNING)  # in Ray's workers it would log where it found each credential

Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 5
PROBE_TIMEOUT_S = 4
SINGLE_PUT_BYTES = 512 * 2**20
"""Above this size a file is uploaded in parts. Some stores join parts without a condition, so its key is always unique."""

PIECE_BYTES = 32 * 2**20
"""Bytes of a file that are downloaded in one request."""

_PIECES = 8
_TRANSFERS = TransferConfig(multipart_threshold=32 * 2**20, multipart_chunksize=32 * 2**20, max_concurrency=_PIECES)
_CONFLICT_TRIES = 5

_clients: dict[tuple[Any, ...], Any] = {}
_conditional: dict[tuple[str, str], bool] = {}
_known: set[tuple[Any, ...]] = set()
_lock = threading.Lock()


def client(*, patient: bool = True) -> Any:
    """Return the S3 client of this process and environment; it is thread-safe.

    patient: with the usual attempts and time-outs; else with few and short ones, to see whether the store is there. Raises
    InputError when the environment variables are wrong.
    """
    settings = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "ZSBIR_S3_"))}
    key = (patient, os.getpid(), *sorted(settings.items()))
    with _lock:
        if key not in _clients:
            _clients[key] = _new_client(patient=patient)
        return _clients[key]


def _new_client(*, patient: bool) -> Any:
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle and not Path(bundle).exists():
        raise InputError(f"AWS_CA_BUNDLE names no file: {bundle!r}")
    try:
        session = _session()
        region = os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
        addressing = os.environ.get("ZSBIR_S3_ADDRESSING", "auto")
        made = session.client("s3", region_name=region, config=_config(addressing, patient=patient))
        if addressing == "auto" and "amazonaws.com" not in made.meta.endpoint_url:
            made = session.client("s3", region_name=region, config=_config("path", patient=patient))
    except (BotoCoreError, ValueError, OSError) as error:  # ValueError: AWS_ENDPOINT_URL is no address
        raise explain(error, "the S3 settings of the environment") from None
    return made


def _session() -> boto3.Session:
    """Return a session that reads listings four times as fast: botocore spends most of that time guessing the format of dates."""
    core = botocore.session.Session()
    core.register_component("data_loader", _data_loader(core.get_config_variable("data_path")))
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_date)
    return boto3.Session(botocore_session=core)


@cache
def _data_loader(data_path: str | None) -> Any:
    """Return botocore's loader of service models, shared by all sessions: reading them anew takes a tenth of a second each time."""
    return botocore.loaders.create_loader(data_path)


def _date(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        parsed: datetime = parse_timestamp(text)
        return parsed


def _config(addressing: str, *, patient: bool) -> Config:
    if addressing not in ("auto", "path", "virtual"):
        raise InputError(f"ZSBIR_S3_ADDRESSING must be auto, path or virtual, got {addressing!r}")
    timeout_s = _number("ZSBIR_S3_TIMEOUT_S", 60.0)
    return Config(
        connect_timeout=CONNECT_TIMEOUT_S if patient else PROBE_TIMEOUT_S,
        read_timeout=timeout_s if patient else min(timeout_s, PROBE_TIMEOUT_S),
        retries={"mode": "standard", "total_max_attempts": _attempts() if patient else min(_attempts(), 2)},
        s3={"addressing_style": cast(Any, addressing)},
        max_pool_connections=32,
        tcp_keepalive=True,
        # Stores other than Amazon's often lack its newer trailing checksums; manifests hold our own, and each put an MD5.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def _attempts() -> int:
    return max(1, int(_number("ZSBIR_S3_ATTEMPTS", 5)))


def _check_reachable(patient: Any, bucket: str, uri: str) -> None:
    """Send one short request the first time this process uses a bucket, so that a missing store is reported within seconds.

    Other errors are left to the request that needs the bucket: an answer to HEAD has no text.
    """
    store = (os.getpid(), patient.meta.endpoint_url, bucket)
    if store in _known:
        return
    try:
        client(patient=False).head_bucket(Bucket=bucket)
    except ClientError as error:
        if code_of(error) in ("404", "NoSuchBucket"):
            raise InputError(f"{uri}: there is no bucket {bucket!r}: create it, or correct the URI") from None
    except STORE_ERRORS as error:
        raise explain(error, uri) from None
    _known.add(store)


def _number(name: str, default: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name} must be a number, got {text!r}") from None


class S3Folder:
    """A prefix of a bucket; its methods are documented in `zsbir.base.folder.Folder`."""

    def __init__(self, uri: str):
        self.bucket, _, self.prefix = uri.removeprefix(S3_SCHEME).rstrip("/").partition("/")
        self.uri = f"{S3_SCHEME}{self.bucket}/{self.prefix}".rstrip("/")
        if not self.bucket or (self.prefix and not NO_NAMES.isdisjoint(self.prefix.split("/"))):
            raise InputError(f"{uri!r} is not an address in object storage: it should read s3://bucket/prefix")
        self._client = client()
        _check_reachable(self._client, self.bucket, self.uri)

    def __reduce__(self) -> tuple[type[S3Folder], tuple[str]]:
        return S3Folder, (self.uri,)

    def sub(self, key: str) -> S3Folder:
        return S3Folder(f"{self.uri}/{checked_key(key)}")

    def read(self, key: str, limit: int | None = None) -> bytes:
        def take(answer: dict[str, Any]) -> bytes:
            if limit is not None and answer["ContentLength"] > limit:
                answer["Body"].close()
                raise TooLarge(self.uri, key, limit)
            return _whole(answer)

        return self._answer(key, take)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if length <= 0:
            return b""
        try:
            return self._answer(key, _whole, Range=f"bytes={start}-{start + length - 1}")
        except InputError:
            if start >= (self.size(key) or 0):
                return b""
            raise

    def size(self, key: str) -> int | None:
        try:
            return int(self._head(key)["ContentLength"])
        except FileNotFoundError:
            return None

    def version(self, key: str) -> str | None:
        try:
            return f"{self._client.meta.endpoint_url}-{self._head(key)['ETag']}"
        except FileNotFoundError:
            return None

    def create(self, key: str, data: bytes) -> bool:
        mine = {**_checksum(data), "writer": uuid.uuid4().hex}
        if self._honours_conditions():
            # A put whose answer was lost is tried again and refused: then the file there carries this writer's mark.
            return self._put_if_absent(key, data, mine) or self._noted(key, "writer") == mine["writer"]
        if self.size(key) is not None:
            return False
        with self._errors(key):
            self._put(key, data, mine)
        return self._noted(key, "writer") == mine["writer"]

    def replace(self, key: str, data: bytes) -> None:
        with self._errors(key):
            self._put(key, data, _checksum(data))

    def publish(self, key: str, file: Path, sha256: str) -> str:
        if file.stat().st_size > SINGLE_PUT_BYTES or not self._honours_conditions():
            key = variation(checked_key(key))
            self._upload(key, file, sha256)
        elif not self._put_if_absent(key, file, {"sha256": sha256}) and self._noted(key, "sha256") != sha256:
            return self.publish(variation(key), file, sha256)
        file.unlink(missing_ok=True)
        return key

    def download(self, key: str, file: Path, limit: int | None = None) -> None:
        file.write_bytes(b"")
        try:
            first = self._piece(key, file, 0)
        except InputError:
            if self.size(key) == 0:  # an empty file has no ranges
                return
            raise
        total = int(first.get("ContentRange", "/0").rpartition("/")[2])
        if limit is not None and total > limit:
            raise TooLarge(self.uri, key, limit)
        starts = range(PIECE_BYTES, total, PIECE_BYTES)
        with ThreadPoolExecutor(_PIECES) as pool:
            for piece in pool.map(lambda start: self._piece(key, file, start), starts):
                if piece["ETag"] != first["ETag"]:
                    raise RunError(f"{self.uri}/{key} was replaced while it was read; run the same command again")

    def _piece(self, key: str, file: Path, start: int) -> dict[str, Any]:
        """Download a piece of a file into the same position of `file`, and return the answer's head."""

        def take(answer: dict[str, Any]) -> dict[str, Any]:
            with file.open("r+b") as target:
                target.seek(start)
                shutil.copyfileobj(answer["Body"], target, 2**20)
            return answer

        return self._answer(key, take, Range=f"bytes={start}-{start + PIECE_BYTES - 1}")

    def walk(self) -> Iterator[Entry]:
        base = len(self._key(""))
        for item in self._objects():
            if not item["Key"].endswith("/"):  # an empty object by which other tools show a folder
                yield Entry(item["Key"][base:], int(item["Size"]), item["LastModified"].timestamp())

    def names(self) -> list[str]:
        base, found = len(self._key("")), set()
        for page in self._pages(Delimiter="/"):
            found |= {item["Prefix"][base:].rstrip("/") for item in page.get("CommonPrefixes", ())}
            found |= {item["Key"][base:] for item in page.get("Contents", ())}
        return sorted(found - {""})

    def delete(self, keys: Iterable[str]) -> None:
        self._remove(self._at(key)["Key"] for key in keys)

    def clear(self) -> None:
        self._remove(item["Key"] for item in self._objects())

    def _remove(self, keys: Iterable[str]) -> None:
        # One by one: stores differ in the checksum they want with a list of keys, and deleting is rare.
        def remove(key: str) -> None:
            with self._errors(key.removeprefix(self._key(""))):
                self._client.delete_object(Bucket=self.bucket, Key=key)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(remove, keys))

    def _objects(self) -> Iterator[dict[str, Any]]:
        for page in self._pages():
            yield from page.get("Contents", ())

    def leads_out(self, key: str) -> bool:  # noqa: ARG002 - the interface's signature
        return False

    def local(self, key: str = "") -> Path | None:  # noqa: ARG002 - the interface's signature
        return None

    def check_writable(self) -> None:
        with self.workspace():
            pass

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        mark = f"{WORKSPACE}{uuid.uuid4().hex[:12]}"
        self._probe(mark)
        try:
            with tempfile.TemporaryDirectory(dir=drafts_dir(), ignore_cleanup_errors=True) as work:
                yield Path(work)
        finally:
            try:
                self.delete([mark])
            except (InputError, RunError) as error:
                warn(f"left {self.uri}/{mark} behind ({error}); `python -m zsbir.artifacts gc` removes it")

    def _probe(self, mark: str) -> None:
        """Write a mark, and find out whether the store refuses to overwrite it: errors show before there is work to lose."""
        known = _conditional.get(self._store())
        if known is False:
            self.replace(mark, b"")
            return
        if known is None:
            honoured = self._first_probe(mark)
            _conditional[self._store()] = honoured
            if not honoured:
                warn(
                    f"the store of {self.uri} ignores If-None-Match: files get keys of their own; two writers of one artifact are "
                    "not told apart, the last manifest stands"
                )
            return
        self._put_if_absent(mark, b"", {})

    def _first_probe(self, mark: str) -> bool:
        try:
            self._put_if_absent(mark, b"", {})
            return not self._put_if_absent(mark, b"", {})
        except _Unsupported:
            self.replace(mark, b"")
            return False

    def _honours_conditions(self) -> bool:
        if self._store() not in _conditional:
            with self.workspace():
                pass
        return _conditional[self._store()]

    def _store(self) -> tuple[str, str]:
        return self._client.meta.endpoint_url, self.bucket

    def _put_if_absent(self, key: str, content: bytes | Path, notes: dict[str, str]) -> bool:
        """Put a file with `If-None-Match: *`. Return False when there is one already."""
        for number in range(_CONFLICT_TRIES):
            try:
                self._put(key, content, notes, IfNoneMatch="*")
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status == 412:
                    return False
                if status == 501:
                    raise _Unsupported from None
                if status == 409 and number + 1 < _CONFLICT_TRIES:  # another writer put the same key at the same moment
                    time.sleep(0.2 * 2**number)
                    continue
                raise explain(error, f"{self.uri}/{key}") from None
            else:
                return True
        raise AssertionError("unreachable")

    def _put(self, key: str, content: bytes | Path, notes: dict[str, str], **more: Any) -> None:
        """Put a file. notes: the metadata that the store keeps with it."""
        at = self._at(key)
        try:
            if isinstance(content, Path):
                with content.open("rb") as body:
                    md5 = base64.b64encode(hashlib.file_digest(body, "md5").digest()).decode()
                    body.seek(0)
                    self._client.put_object(**at, Body=body, ContentMD5=md5, Metadata=notes, **more)
            else:
                self._client.put_object(**at, Body=content, ContentMD5=_md5(content), Metadata=notes, **more)
        except ClientError:
            raise
        except STORE_ERRORS as error:
            raise explain(error, f"{self.uri}/{key}") from None

    def _upload(self, key: str, file: Path, sha256: str) -> None:
        more = {"Metadata": {"sha256": sha256}}
        try:
            self._client.upload_file(str(file), self.bucket, self._key(key), ExtraArgs=more, Config=_TRANSFERS)
        except STORE_ERRORS as error:
            # When the answer to joining the parts was lost, the second try may find no such upload: then the size decides.
            if code_of(error) != "NoSuchUpload":
                raise explain(error, f"{self.uri}/{key}") from None
        if self.size(key) != file.stat().st_size:
            raise RunError(f"{self.uri}/{key} did not arrive whole; run the same command again")

    def _noted(self, key: str, name: str) -> str | None:
        """Return a value of the metadata that the file was put with; None where it has none, or the file is gone."""
        try:
            note: str | None = self._head(key).get("Metadata", {}).get(name)
        except FileNotFoundError:
            return None
        return note

    def _head(self, key: str) -> dict[str, Any]:
        with self._errors(key):
            try:
                head: dict[str, Any] = self._client.head_object(**self._at(key))
            except ClientError as error:
                if code_of(error) in ("301", "400", "403"):  # an answer to HEAD has no text: a GET says why
                    self._client.get_object(**self._at(key), Range="bytes=0-0")["Body"].close()
                raise
        return head

    def _answer(self, key: str, take: Callable[[dict[str, Any]], Result], **more: Any) -> Result:
        """Return `take` of the answer to GET. boto3 repeats failed requests itself, but not one whose body breaks off."""
        for tries_left in reversed(range(_attempts())):
            with self._errors(key):
                answer: dict[str, Any] = self._client.get_object(**self._at(key), **more)
            try:
                return take(answer)
            except STORE_ERRORS as error:
                if not tries_left:
                    raise explain(error, f"{self.uri}/{key}") from None
            time.sleep(0.05 * 2 ** min(5, _attempts() - tries_left))
        raise AssertionError("unreachable")

    def _pages(self, **more: Any) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(""), **more)
        with self._errors(""):
            try:
                yield from pages
            except ValueError as error:  # boto3 found something else where a number or a date belongs
                raise ResponseParserError(error) from None

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except STORE_ERRORS as error:
            raise explain(error, f"{self.uri}/{key}" if key else self.uri) from None

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._key(checked_key(key))}

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key


class _Unsupported(Exception):  # noqa: N818 - an answer, not an error
    """The store does not know conditional puts."""


def _whole(answer: dict[str, Any]) -> bytes:
    """Return all bytes of an answer. Raises DamagedError when their checksum differs from the one they were put with."""
    data: bytes = answer["Body"].read()
    noted = {name: value for name, value in answer.get("Metadata", {}).items() if name == "sha256"}
    if noted and "ContentRange" not in answer and noted != _checksum(data):
        raise DamagedError
    return data


def _checksum(data: bytes) -> dict[str, str]:
    """Return the metadata by which a reader checks a file: nothing else holds the checksum of a manifest."""
    return {"sha256": hashlib.sha256(data).hexdigest()}


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
