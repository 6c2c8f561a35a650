"""Every answer that is no success: {"error": "one line"}, with the value that was wrong and the way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import sqlalchemy.exc
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from services.jobs.http.service import Conflict, Forbidden, NotFound
from services.jobs.queue.store import KeyTaken
from zsbir.base.errors import InputError, RunError

STATUS: Mapping[type[Exception], int] = {
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    KeyTaken: 409,
    InputError: 422,
    RunError: 503,
    OSError: 503,  # a root on a disk that is away
    sqlalchemy.exc.TimeoutError: 503,  # more readers at once than the store has connections
}


def refusal(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """That answer, on one line of at most 1,000 characters."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return JSONResponse({"error": line if len(line) <= 1000 else line[:1000] + " ..."}, status, dict(headers or {}))


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the API's description says of these statuses."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def refuse(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Let that app answer so. routes: all that it has."""
    for error, status in STATUS.items():
        app.add_exception_handler(error, _answers(status))
    app.add_exception_handler(HTTPException, _refused(routes))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _broken)


def _answers(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_request: Request, error: Exception) -> Response:
        return refusal(status, str(error))

    return answer


def _refused(routes: Sequence[BaseRoute]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers, text = dict(error.headers or {}), str(error.detail)
        if error.status_code == 404:
            text = f"there is nothing at {request.url.path!r}; see /openapi.json"
        if error.status_code == 405:
            near = [route for route in routes if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE]
            allowed = sorted({method for route in near for method in route.methods or ()})
            headers["Allow"] = ", ".join(allowed) or headers.get("Allow", "")
            text = f"{request.method} cannot be done here, only {headers['Allow']}"
        return refusal(error.status_code, text, headers)

    return answer


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = list(error.errors())
    lines = [
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}, got {_short(fault.get('input'))}" for fault in faults[:3]
    ]
    unknown = any(fault["type"] == "extra_forbidden" for fault in faults)
    return refusal(400 if unknown else 422, "; ".join(lines))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."


async def _broken(_request: Request, _failure: Exception) -> Response:
    return refusal(500, "the service failed; its log says why")
