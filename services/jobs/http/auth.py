"""The service's door: by which names it is called, from whose pages, and who asks. Everything is counted here."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.jobs.http.errors import refusal
from services.jobs.http.metrics import Metrics, Watch
from services.jobs.http.service import JobService, User
from services.jobs.queue.states import Role
from services.jobs.queue.tokens import Tokens
from zsbir.base.config import Config

SAFE = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class ApiSettings(Config):
    """Where the service stands, and whom it lets in."""

    store: str = Field(description="the job store, sqlite:///path or postgresql://user@host/name")
    root: str = Field(description="the storage root")
    places: tuple[str, ...] = Field((), description="what jobs may read besides the storage root")
    auth: Literal["tokens", "off"] = Field("tokens", description="off: everybody is operator, on a loopback host only")
    host: str = Field("127.0.0.1", description="the address that it listens on")
    hosts: tuple[str, ...] = Field((), description="names that browsers know it by, besides that one and this machine's own")
    mlflow_url: str = Field("", description="where people see MLflow's pages")


@dataclass(frozen=True)
class Service:
    """What the routes work with."""

    settings: ApiSettings
    service: JobService
    tokens: Tokens
    watch: Watch
    metrics: Metrics
    pages: Mapping[str, bytes]


class RequestGuard:
    """Everything passes here: names that are not this service's, and other sites' pages, come no further; all is counted."""

    def __init__(self, app: ASGIApp, service: Service):
        self._app, self._metrics = app, service.metrics
        names = ("localhost", "127.0.0.1", "::1", service.settings.host, *service.settings.hosts)
        self._names = frozenset(name.lower().strip("[]") for name in names if name)  # what is no host has no name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began_s, status = time.perf_counter(), 500

        async def safe_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await (self._refusal(scope) or self._app)(scope, receive, safe_send)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.served(route, scope["method"], status, time.perf_counter() - began_s)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if _hostname(host) not in self._names:
            return refusal(421, f"this service is not known as {host!r}; its operator can add that name to its hosts")
        changes = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if changes and origin is not None and origin.lower().partition("://")[2] != host:
            return refusal(403, f"a page of {origin!r} cannot do that here; use this service's own page")
        return None


def _hostname(host: str) -> str:
    """Without its port; empty for what is no host."""
    found = re.fullmatch(r"\[([0-9a-f:.]+)\](?::\d+)?|([a-z0-9._-]+)(?::\d+)?", host)
    return (found[1] or found[2]) if found else ""


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Parts = Annotated[Service, Depends(_service)]
BEARER = HTTPBearer(auto_error=False, description="python -m services.jobs tokens makes one")


def _at_least(role: Role) -> Any:
    """Who asks: 401 for nobody known, the same words whatever is wrong with a token; 403 for a lower role."""

    def person(parts: Parts, said: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> User:
        if parts.settings.auth == "off":
            return User("local", "operator")
        token = parts.tokens.bearer(said.credentials) if said else None
        if token is None:
            headers = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(401, "this needs a valid token; ask the service's operator for one", headers)
        found = User(token.name, token.role)
        found.require_role(role)
        return found

    return Depends(person)


Viewer = Annotated[User, _at_least("viewer")]
Submitter = Annotated[User, _at_least("submitter")]
Operator = Annotated[User, _at_least("operator")]
