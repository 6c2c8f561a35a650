"""The errors of S3 stores as one line for the user, with the way out."""

from __future__ import annotations

import re

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError
from urllib3.exceptions import HTTPError

from zsbir.base.errors import DiskFull, InputError, RunError, Unreachable
from zsbir.base.outages import is_passing_status


class DamagedError(BotoCoreError):  # type: ignore[misc, unused-ignore]  # botocore has no types
    """The bytes that arrive differ from those that were put."""

    fmt = "other bytes arrive than were put"


STORE_ERRORS = (BotoCoreError, ClientError, Boto3Error, RetriesExceededError, HTTPError, ResponseParserError)
"""Everything that boto3 raises about a request."""

_MISSING = ("NoSuchKey", "NotFound", "404")

_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"

_USERS = {
    "NoSuchBucket": "there is no such bucket: create it, or correct the URI",
    "InvalidAccessKeyId": f"the store does not know this access key: {_KEYS}",
    "SignatureDoesNotMatch": f"the secret key is wrong: {_KEYS}",
    "AccessDenied": "the keys are not allowed to do this: ask for the right to list, read and write below this address",
    "Forbidden": "the keys are wrong, expired, or not allowed to do this",
    "403": "the keys are wrong, expired, or not allowed to do this",
    "ExpiredToken": "the session token has expired: sign in again",
    "TokenRefreshRequired": "the session token has expired: sign in again",
    "InvalidToken": "the session token is not valid: sign in again",
    "RequestTimeTooSkewed": "the clock of this machine and the store's differ by too much: set the clock (NTP)",
    "RequestExpired": "the clock of this machine and the store's differ by too much: set the clock (NTP)",
    "PermanentRedirect": "the bucket lies in another region: set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket lies in another region: set AWS_REGION",
    "InvalidRange": "the file ends before",
    "416": "the file ends before",
    "IllegalLocationConstraintException": "the bucket lies in another region: set AWS_REGION",
}
"""What the user can correct, by the store's error code."""

_FULL = (
    "QuotaExceeded",
    "ServiceQuotaExceeded",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
    "InsufficientStorage",
    "507",
)


def explain(error: Exception, where: str) -> Exception:
    """Return the error to raise instead: FileNotFoundError, InputError for what the user can correct, RunError for the rest.

    Of the latter, Unreachable says that the store does not answer, and DiskFull that it has no room.
    """
    error = _root(error)
    code = code_of(error)
    if code in _MISSING:
        return FileNotFoundError(2, "no such file", where)
    if code in _USERS:
        return InputError(f"{where}: {_USERS[code]} ({code})")
    if code in _FULL:
        return DiskFull(f"{where}: the store is full, or its quota used up ({code}): make room and run the same command again")
    line = _line(error)
    if isinstance(error, SSLError) and "CERTIFICATE" not in line:
        return InputError(f"{where}: no TLS with the store ({line}): check AWS_ENDPOINT_URL: https:// or http://?")
    kind, text = next((kind, text) for types, kind, text in _BY_TYPE if isinstance(error, types))
    if isinstance(error, ClientError) and is_passing_status(_status_of(error)):
        kind = Unreachable
    return kind(f"{where}: {text.format(line=line, code=code)}")


_BY_TYPE: tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[Exception], str], ...] = (
    ((NoCredentialsError, PartialCredentialsError), InputError, f"no credentials for object storage: {_KEYS}"),
    (ProfileNotFound, InputError, "{line}: correct AWS_PROFILE"),
    (SSLError, InputError, "the certificate is not trusted ({line}): give your CA's file as AWS_CA_BUNDLE"),
    (
        (EndpointConnectionError, ConnectTimeoutError, ReadTimeoutError),
        Unreachable,
        "the store does not answer ({line}): check AWS_ENDPOINT_URL and the network",
    ),
    (
        DamagedError,
        RunError,
        "{line}, each time it was asked: on their way or in the store they are damaged; run the same command again, and if it "
        "stays so, remove the artifact and make it anew",
    ),
    (ResponseParserError, RunError, "this is not the answer of an S3 store ({line}): check AWS_ENDPOINT_URL"),
    (ClientError, RunError, "the store answered {code} each time it was asked ({line}): try again later"),
    (
        (HTTPClientError, HTTPError, RetriesExceededError),
        Unreachable,
        "the connection to the store broke off ({line}): run the same command again",
    ),
    (Exception, InputError, "{line}"),
)


def code_of(error: Exception) -> str:
    """Return the store's error code ("NoSuchKey"), or the HTTP status where the answer had no body; "" for other errors."""
    error = _root(error)
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _status_of(error: ClientError) -> int:
    """Return the HTTP status of the store's answer; 0 where it is not known."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)


def _root(error: Exception) -> Exception:
    """Return the error that boto3's transfers have wrapped."""
    inner = getattr(error, "last_exception", None) or (error.__context__ if isinstance(error, Boto3Error) else None)
    return inner if isinstance(inner, Exception) else error


def _line(error: Exception) -> str:
    """Return the error's text in one line, without passwords in addresses."""
    return re.sub(r"//[^/@\s]+@", "//", " ".join(str(error).split()))[:200] or type(error).__name__
