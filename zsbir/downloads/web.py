"""HTTPS requests to a few hosts: redirects stay on a list, bytes come as they are stored, failures that pass are told from others.

Proxies and certificates are those of the environment (`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`), as httpx reads them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self
from urllib.parse import urlsplit

import httpx

from zsbir.base.errors import InputError, RunError, Unreachable
from zsbir.base.outages import is_passing_status
from zsbir.base.urls import redacted

CONNECT_S = 10.0
"""Seconds in which a host must accept a connection."""

SILENCE_S = 30.0
"""Seconds without a byte after which a connection counts as lost."""

MOST_REDIRECTS = 5
LONGEST_PAUSE_S = 60.0
"""The longest pause that a server may ask for (Retry-After) before the next try."""

_PORTS = {"https": 443, "http": 80}


class Lost(Unreachable):
    """One request failed in a way that may pass. pause_s: how long the server asks to wait, 0 where it does not say."""

    def __init__(self, reason: str, pause_s: float = 0.0):
        super().__init__(reason)
        self.pause_s = pause_s


def checked_address(url: str) -> str:
    """Return an address that a user gave. Raises ValueError unless it is https, or plain http to this machine."""
    parts = urlsplit(url)
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(parts.hostname))):
        raise ValueError("an address must begin with https:// and name a host; http:// is for this machine alone (127.0.0.1)")
    return url


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def origin_of(url: str) -> str:
    """Return scheme, host and port of an address, as `https://host:443`. Raises ValueError for what is no address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{parts.port or _PORTS.get(parts.scheme, 0)}"


class Web:
    """A client that talks to the given origins alone. To be closed, or used in a `with`."""

    def __init__(self, origins: Iterable[str], *, silence_s: float = SILENCE_S):
        self._origins = frozenset(origins)
        timeout = httpx.Timeout(silence_s, connect=min(CONNECT_S, silence_s))
        # Compressed answers would make sizes and ranges meaningless.
        headers = {"Accept-Encoding": "identity", "User-Agent": "zsbir-download/0.1"}
        try:
            self._client = httpx.Client(timeout=timeout, headers=headers, follow_redirects=False)
        except (ValueError, ImportError, OSError) as error:  # a proxy or a file of certificates that the environment names
            raise InputError(f"the environment's settings for HTTPS cannot be used: {redacted(error)}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Open the answer to a GET request: its status is 200, 206 or 416, and its body is read by the caller.

        Raises Lost for failures that may pass, also while the body is read; InputError for an address that is not there or is
        refused; RunError for a redirect to a host that is not on the list, and for a compressed answer.
        """
        with _failures_as_lost(url), self._following(url, headers) as response:
            _check_status(response, url)
            coding = response.headers.get("Content-Encoding", "identity")
            if coding != "identity":
                raise RunError(
                    f"{_host(url)} answers with {coding!r} bytes though plain ones were asked for, so their size means nothing:"
                    " a proxy on the way does that; go round it with NO_PROXY"
                )
            yield response

    @contextmanager
    def _following(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Send a request, and send it again where a redirect leads, as long as that is allowed."""
        start = url
        for _ in range(MOST_REDIRECTS + 1):
            response = self._client.send(self._client.build_request("GET", url, headers=dict(headers)), stream=True)
            try:
                if not response.has_redirect_location:
                    yield response
                    return
                url = self._target(response)
            finally:
                response.close()
        raise RunError(f"{redacted(start)} redirects more than {MOST_REDIRECTS} times")

    def _target(self, response: httpx.Response) -> str:
        """Return where a redirect leads. Raises RunError unless that is on the list."""
        try:
            target = str(response.url.join(response.headers["Location"]))
            origin = origin_of(target)
        except (httpx.InvalidURL, ValueError):
            raise RunError(f"{response.url.host} redirects to something that is no address") from None
        if origin not in self._origins:
            raise RunError(
                f"{response.url.host} redirects to {origin}, which is not on the list of hosts: if you trust it, and it begins with"
                " https, pass --redirect-hosts HOST"
            )
        return target


@contextmanager
def _failures_as_lost(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise Lost(f"{_host(url)}: {_reason(error)}") from error
    except httpx.InvalidURL as error:
        raise InputError(f"{redacted(url)} is no address: {error}") from None


def _check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT, httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE):
        return
    if is_passing_status(status):
        raise Lost(f"{_host(url)} answers {status} {response.reason_phrase}", _retry_after_s(response))
    raise InputError(
        f"{redacted(url)}: the server answers {status} {response.reason_phrase}; if the file has moved, give its new address"
        " (see --help), or fetch it by hand"
    )


def _retry_after_s(response: httpx.Response) -> float:
    """Return how many seconds an answer asks to wait, within bounds; 0 where it names a date or nothing."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_PAUSE_S) if text.isascii() and text.isdigit() else 0.0


def _host(url: str) -> str:
    return urlsplit(url).hostname or redacted(url)


def _reason(error: httpx.TransportError) -> str:
    text = redacted(error).strip().splitlines()
    return text[0][:160] if text else {"ReadTimeout": "no byte for too long"}.get(type(error).__name__, type(error).__name__)
