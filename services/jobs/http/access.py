"""The routes by which users are let in: tokens for programs, made by operators, and sessions for browsers.

A browser is not given a token in an address, where histories and logs would keep it: a code that works once opens a session, whose
secret is a cookie that scripts cannot read, and that other sites' pages do not send.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi.security import HTTPAuthorizationCredentials

from services.common.answers import error_responses
from services.common.errors import Conflict
from services.common.routes import BEARER, GuardedRoute, Operator, Viewer, as_seen_from, log_refusal, session_cookie
from services.common.tokens import LOGIN_S, SESSION_S
from services.jobs.http import models
from services.jobs.http.requests import LARGEST_ID, LoginCode, NewToken
from services.jobs.http.state import App

ACCESS = APIRouter(route_class=GuardedRoute)
TokenId = Annotated[int, InPath(ge=1, le=LARGEST_ID, description="a token's number")]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
CHANGE = error_responses(400, 401, 403, 413, 422, 503)


@ACCESS.get("/api/me", responses=error_responses(401, 403, 503))
def me(app: App, user: Viewer, request: Request) -> models.Me:
    """Return the user who asks, as the service knows them."""
    has_session = app.settings.auth == "tokens" and session_cookie(request) in request.cookies
    search_url = as_seen_from(request, app.settings.search_url)
    return models.Me(name=user.name, role=user.role, auth=app.settings.auth, session=has_session, search_url=search_url)


@ACCESS.post("/api/login-codes", status_code=201, responses=error_responses(401, 403, 409, 503))
def make_login_code(app: App, _user: Viewer, token: Bearer) -> models.LoginCode:
    """Return a code that lets one browser in as the bearer of the request's token, once, within minutes."""
    found = app.tokens.bearer(token.credentials) if token and app.settings.auth == "tokens" else None
    if found is None:
        raise Conflict("a login code is made for a token, and this request has none that the service knows")
    return models.LoginCode(code=app.tokens.make_login(found), lasts_s=LOGIN_S)


@ACCESS.post("/api/session", status_code=201, responses=CHANGE)
def open_session(
    app: App, request: Request, response: Response, login: Annotated[LoginCode, Body(examples=[{"code": "..."}])]
) -> models.Opened:
    """Open a session for the browser that sends a login code, and set its cookie."""
    secret = app.tokens.open_session(login.code)
    if secret is None:
        log_refusal(request, "an unknown login code")
        raise HTTPException(
            401, "this login link was used before, or is too old: ask for a new one", {"WWW-Authenticate": "Bearer"}
        )
    response.set_cookie(
        session_cookie(request),
        secret,
        max_age=int(SESSION_S),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return models.Opened(lasts_s=SESSION_S)


@ACCESS.delete("/api/session", responses=error_responses(503))
def end_session(app: App, request: Request, response: Response) -> models.Health:
    """End the browser's session, and have it forget the cookie."""
    name = session_cookie(request)
    if name in request.cookies:
        app.tokens.end_session(request.cookies[name])
    response.delete_cookie(name, httponly=True, samesite="strict")
    return models.Health()


@ACCESS.get("/api/tokens", responses=error_responses(401, 403, 503))
def tokens(app: App, _user: Operator) -> models.Tokens:
    """Return whose tokens there are, also revoked ones, the oldest first."""
    return models.Tokens(tokens=[models.Token(**vars(token)) for token in app.tokens.all()])


@ACCESS.post("/api/tokens", status_code=201, responses=CHANGE)
def make_token(app: App, user: Operator, wanted: Annotated[NewToken, Body(examples=[{"name": "ann"}])]) -> models.MadeToken:
    """Make a token. Its text is in this answer alone."""
    return models.MadeToken(token=app.tokens.make(wanted.name, wanted.role, user.name, wanted.projects))


@ACCESS.post("/api/tokens/{token_id}/revoke", responses=error_responses(401, 403, 422, 503))
def revoke_token(app: App, user: Operator, token_id: TokenId) -> models.Health:
    """Revoke a token, and end the sessions that it opened."""
    app.tokens.revoke(token_id, user.name)
    return models.Health()
