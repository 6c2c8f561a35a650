"""The routes by which users are let in: who asks, and sessions for browsers that open a login link."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, HTTPException, Request, Response

from services.common.answers import error_responses
from services.common.routes import Searcher, as_seen_from, log_refusal, session_cookie
from services.common.tokens import SESSION_S
from services.common.users import OwnerToken, TokenUsers
from services.search.http import models
from services.search.http.admission import SearchRoute
from services.search.http.requests import LoginCode
from services.search.http.state import App

ACCESS = APIRouter(route_class=SearchRoute)


@ACCESS.get("/api/me", responses=error_responses(401, 403, 503))
def me(app: App, user: Searcher, request: Request) -> models.Me:
    """Return the user who asks, as the service knows them."""
    has_session = app.settings.auth == "tokens" and session_cookie(request) in request.cookies
    jobs_url = as_seen_from(request, app.settings.jobs_url)
    return models.Me(name=user.name, role=user.role, auth=app.settings.auth, session=has_session, jobs_url=jobs_url)


@ACCESS.post("/api/session", status_code=201, responses=error_responses(400, 401, 403, 413, 422, 503))
def open_session(
    request: Request, response: Response, login: Annotated[LoginCode, Body(examples=[{"code": "..."}])]
) -> models.Opened:
    """Open a session for the browser that sends a login code, and set its cookie."""
    users = request.app.state.users
    secret = users.open_session(login.code) if isinstance(users, TokenUsers | OwnerToken) else None
    if secret is None:
        log_refusal(request, "an unknown login code")
        used = "this login link was used before, or is too old: ask for a new one"
        raise HTTPException(401, used, {"WWW-Authenticate": "Bearer"})
    is_secure = request.url.scheme == "https"
    name, lasts_s = session_cookie(request), int(SESSION_S)
    response.set_cookie(name, secret, max_age=lasts_s, httponly=True, samesite="strict", secure=is_secure)
    return models.Opened(lasts_s=SESSION_S)


@ACCESS.delete("/api/session", responses=error_responses(503))
def end_session(request: Request, response: Response) -> models.Health:
    """End the browser's session, and have it forget the cookie."""
    name, users = session_cookie(request), request.app.state.users
    if name in request.cookies and isinstance(users, TokenUsers | OwnerToken):
        users.end_session(request.cookies[name])
    response.delete_cookie(name, httponly=True, samesite="strict")
    return models.Health()
