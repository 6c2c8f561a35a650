"""The outermost layer of a service: it rejects foreign host names and other sites' pages, and adds security headers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable

from fastapi import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common.answers import error_answer

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

OnServed = Callable[[str, str, int, float], None]
"""Called after each request with the route's template, the method, the status and the seconds it took."""


class RequestGuard:
    """ASGI middleware around a whole service: 421 for a host name that is not its own, 403 for changes from another site's page.

    hosts: names that the service is known by, besides this machine's own.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], on_served: OnServed):
        self._app, self._on_served = app, on_served
        names = ("localhost", "127.0.0.1", "::1", *hosts)
        self._names = frozenset(name.lower().strip("[]") for name in names if name)  # an invalid Host header has an empty name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI has it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started_s, status = time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await (self._rejection(scope) or self._app)(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._on_served(route, scope["method"], status, time.perf_counter() - started_s)

    def _rejection(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if _hostname(host) not in self._names:
            return error_answer(421, f"this service is not known as {host!r}; its operator can add that name to its hosts")
        changes = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if changes and origin is not None and origin.lower().partition("://")[2] != host:
            return error_answer(403, f"a page of {origin!r} cannot do that here; use this service's own page")
        return None


def _hostname(host: str) -> str:
    """Return a Host header's name without the port; empty for an invalid header."""
    found = re.fullmatch(r"\[([0-9a-f:.]+)\](?::\d+)?|([a-z0-9._-]+)(?::\d+)?", host)
    return (found[1] or found[2]) if found else ""
