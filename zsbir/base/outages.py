"""Which errors pass by themselves, by their class and number, never by their words: no room, or somebody who does not answer.

The job queue tries again what ended by one of them; every error of a command is named for it here.
"""

from __future__ import annotations

import errno
import http.client
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from urllib.error import HTTPError, URLError

from zsbir.base.errors import Busy, ClusterError, DiskFull, InputError, Interrupted, PermanentError, RunError, Unreachable
from zsbir.base.files import FULL

_AWAY = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ETIMEDOUT,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
    }
)
"""Error numbers of connections that somebody else, or the network, has refused or lost."""

_DECIDED = (InputError, Busy, ClusterError, PermanentError, Interrupted, KeyboardInterrupt)
"""Errors whose class says all that there is to say, whatever they were raised from."""


def outage_of(error: BaseException) -> type[RunError] | None:
    """Return Unreachable or DiskFull where an error, or one that it was raised from, says so; None for any other error."""
    return next((found for each in _raised_from(error) if (found := _outage(each))), None)


def reported_name(error: BaseException) -> str:
    """Return the name by which a command reports its error to those who started it: of its class, or of the outage behind it."""
    found = None if isinstance(error, _DECIDED) else outage_of(error)
    return (found or type(error)).__name__


def is_passing_status(status: int) -> bool:
    """Return whether an HTTP status says that the same request may succeed later."""
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _outage(error: BaseException) -> type[RunError] | None:
    if isinstance(error, DiskFull | Unreachable):
        return DiskFull if isinstance(error, DiskFull) else Unreachable
    if _says_full(error):
        return DiskFull
    return Unreachable if _is_away(error) else None


def _says_full(error: BaseException) -> bool:
    number = error.errno if isinstance(error, OSError) else None
    return number in FULL or (isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL)


def _is_away(error: BaseException) -> bool:
    if isinstance(error, HTTPError):
        return is_passing_status(error.code)
    if isinstance(status := getattr(getattr(error, "response", None), "status_code", None), int):  # of requests and httpx
        return is_passing_status(status)
    if isinstance(error, socket.gaierror | ssl.SSLError | http.client.IncompleteRead | http.client.RemoteDisconnected):
        return True
    # Subclasses of TimeoutError are other programs' own, such as a file lock that is held for long.
    return type(error) is TimeoutError or (isinstance(error, OSError) and error.errno in _AWAY)


def _raised_from(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the chain of those that it was raised from, also where urllib keeps the cause in a field of its own."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = current.reason if isinstance(current, URLError) and not isinstance(current, HTTPError) else None
        shown = None if current.__suppress_context__ else current.__context__
        current = inner if isinstance(inner, BaseException) else current.__cause__ or shown
