"""Routes that check who asks before a request's body is read: 401 for an unknown user, 403 for a role that is too low."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of AtLeast.__call__, and could not resolve texts.
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from services.common.auth import Role, User, UserSource, is_loopback
from services.common.limits import LimitedRequest
from services.common.server import Repeats
from zsbir.base import events

REFUSED = Repeats()
BEARER = HTTPBearer(auto_error=False, description="an API token; the service's operator makes one")


@dataclass(frozen=True)
class AtLeast:
    """A dependency: the user who asks, whose role is at least this one. GuardedRoute has authenticated them by then."""

    role: Role

    def __call__(self, request: Request, _token: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> User:
        """Return the user. The token is only named here so that OpenAPI says that the route needs one."""
        user: User = request.state.user
        return user


Searcher = Annotated[User, Depends(AtLeast("searcher"))]
Viewer = Annotated[User, Depends(AtLeast("viewer"))]
Submitter = Annotated[User, Depends(AtLeast("submitter"))]
Operator = Annotated[User, Depends(AtLeast("operator"))]


class GuardedRoute(APIRoute):
    """A route that authenticates its user, then reads the body within the limits, then lets FastAPI validate the request.

    FastAPI reads the body before it calls dependencies, so these cannot keep an unknown user's bytes out; middleware in front of
    the application could, but does not know which role the route needs. The application's `state.users` is a UserSource;
    `state.further_cookies`, if it has them, are the names of cookies with sessions that another service of this host has opened.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with these steps in front of FastAPI's."""
        handle = super().get_route_handler()
        roles = [dependency.call.role for dependency in self.dependant.dependencies if isinstance(dependency.call, AtLeast)]

        async def guarded(request: Request) -> Response:
            for role in roles:
                request.state.user = await _authenticate(request, role)
            async with self.admitted(request):
                return await handle(self.limited(request))

        return guarded

    def admitted(self, request: Request) -> AbstractAsyncContextManager[None]:  # noqa: ARG002 - for services with limits of their own
        """Return what surrounds the reading and answering of a request whose user is known. It may raise to refuse it."""
        return nullcontext()

    def limited(self, request: Request) -> LimitedRequest:
        """Return the request with the limits on its body."""
        return LimitedRequest(request.scope, request.receive)


def session_cookie(request: Request) -> str:
    """Return the name of the cookie with a session's secret. Browsers send cookies to every port of a host: it names its own."""
    return cookie_of_port(request.url.port or 0)


def cookie_of_port(port: int) -> str:
    """Return the name of the session's cookie of the service on a port."""
    return f"zsbir_session_{port}"


def as_seen_from(request: Request, url: str) -> str:
    """Return the address of another service of this machine under the name by which the request's sender knows this machine."""
    parts = urlsplit(url)
    if not parts.hostname or not is_loopback(parts.hostname) or not request.url.hostname:
        return url
    host = f"[{request.url.hostname}]" if ":" in request.url.hostname else request.url.hostname
    return parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host).geturl()


async def _authenticate(request: Request, role: Role) -> User:
    """Return the user of the request's token, else of its session. The answer is the same whatever is wrong with a token."""
    users: UserSource = request.app.state.users
    sent = await BEARER(request)
    names = (session_cookie(request), *getattr(request.app.state, "further_cookies", ()))
    session = next((request.cookies[name] for name in names if name in request.cookies), "")
    if sent is None and session:
        user = await run_in_threadpool(users.user_of_session, session)
    else:
        user = await run_in_threadpool(users.user_of, sent.credentials if sent else None)
    if user is None:
        if sent or session:
            log_refusal(request, "an unknown token" if sent else "an unknown session")
        headers = {"WWW-Authenticate": "Bearer"}
        raise HTTPException(401, "this needs a valid token; ask the service's operator for one", headers)
    user.require_role(role)
    return user


def log_refusal(request: Request, what: str) -> None:
    """Log that somebody was not let in: one line a minute for each address, so that nobody fills the log."""
    address = request.client.host if request.client else "an unknown address"
    remark = REFUSED.remark(f"{what} {address}")
    if remark is not None:
        events.warn(f"refused {what} from {address}{remark}")
