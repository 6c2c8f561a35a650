"""Error answers: every answer that is not a success is {"error": "one line"}, with the wrong value and the way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from services.common.errors import Conflict, Forbidden, NotFound, TooMany
from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError, RunError

STATUSES: Mapping[type[Exception], int] = {
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooMany: 429,
    InputError: 422,
    RunError: 503,
    OSError: 503,  # a storage root on a disk that does not answer
}


class Error(BaseModel):
    """What was wrong, with which value, and the way out."""

    error: str


def error_answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer for an error: its text on one line of at most 1,000 characters."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return JSONResponse({"error": line if len(line) <= 1000 else line[:1000] + " ..."}, status, dict(headers or {}))


def error_responses(*statuses: int, of_json: bool = True) -> dict[int | str, dict[str, Any]]:
    """Describe error answers for OpenAPI; 421 is always among them. of_json: whether the route's success is JSON as well.

    FastAPI describes a `model` with the media type of the route's success, so a route of text or pictures refers to it by name.
    """
    by_name = {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{Error.__name__}"}}}}
    return {
        status: {"description": HTTPStatus(status).phrase, **({"model": Error} if of_json else by_name)}
        for status in (*statuses, 421)
    }


def add_error_handlers(app: FastAPI, routes: Sequence[BaseRoute], more: Mapping[type[Exception], int]) -> None:
    """Let an application answer errors in this form. routes: all of its routes. more: statuses of the service's own errors."""
    for error, status in {**STATUSES, **more}.items():
        app.add_exception_handler(error, _answer_with(status))
    app.add_exception_handler(HTTPException, _http_errors(routes))
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(Exception, _internal_error)


def _answer_with(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_request: Request, error: Exception) -> Response:
        wait_s = getattr(error, "retry_after_s", None)
        return error_answer(status, str(error), {"Retry-After": str(wait_s)} if wait_s is not None else None)

    return answer


def _http_errors(routes: Sequence[BaseRoute]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers, text = dict(error.headers or {}), str(error.detail)
        if error.status_code == 404:
            text = f"there is nothing at {request.url.path!r}; see /openapi.json"
        if error.status_code == 405:
            matching = [route for route in routes if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE]
            allowed = sorted({method for route in matching for method in route.methods or ()})
            headers["Allow"] = ", ".join(allowed) or headers.get("Allow", "")
            text = f"the method {request.method} is not allowed here, only {headers['Allow']}"
        return error_answer(error.status_code, text, headers)

    return answer


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = list(error.errors())
    unknown = any(fault["type"] == "extra_forbidden" for fault in faults)
    return error_answer(400 if unknown else 422, "; ".join(_explain(request, fault) for fault in faults[:3]))


def _explain(request: Request, fault: Mapping[str, Any]) -> str:
    """Return one fault as a line: a field of the body is named as the client wrote it, one of the query as query.NAME."""
    where = [str(part) for part in fault["loc"]]
    if where[0] == "body" and len(where) > 1:
        where = where[1:]
        model = _body_model(request)
        if fault["type"] == "extra_forbidden" and model and len(where) == 1:
            return unknown_name("field", where[0], model.model_fields)
    value = repr(fault.get("input"))
    return f"{'.'.join(where)}: {fault['msg'].lower()}, got {value if len(value) <= 100 else value[:100] + '...'}"


def _body_model(request: Request) -> type[BaseModel] | None:
    """Return the model that the request's route reads its body into."""
    route = request.scope.get("route")
    model = route.body_field.field_info.annotation if isinstance(route, APIRoute) and route.body_field else None
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


async def _internal_error(_request: Request, _error: Exception) -> Response:
    return error_answer(500, "the service failed; its log says why")
