"""Requests' bodies: read with their limits, as JSON that every reader and database understands alike, into a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.requests import ClientDisconnect

from services.jobs.http.models import Error, Selection, Submission
from services.jobs.queue.limits import Limits
from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError

MAX_BODY = 1 << 20
MAX_DEPTH = 30
MAX_NUMBER = 2**53
"""Numbers up to here are the same to every reader of JSON, and to both databases."""

Model = TypeVar("Model", bound=BaseModel)
DESCRIBED: list[type[BaseModel]] = [Submission, Selection, Limits, Error]


def body(model: type[Model]) -> Any:
    """A request's body as a model. 400 for what is no JSON or has unknown fields, 413 above MAX_BODY, 422 for wrong values."""

    async def read(request: Request) -> Model:
        value = await _json(request)
        complaint = _complaint(value)
        if complaint:
            raise InputError(f"body: {complaint}")
        unknown = next((name for name in value if name not in model.model_fields), None) if isinstance(value, dict) else None
        if unknown is not None:
            raise HTTPException(400, unknown_name("field", unknown, model.model_fields))
        try:
            return model.model_validate(value, strict=True)
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_url=False, include_context=False)) from None

    return Depends(read)


def takes(model: type[BaseModel], example: Mapping[str, Any]) -> dict[str, Any]:
    """How a route describes the body that it takes."""
    content = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def with_bodies(described: dict[str, Any]) -> dict[str, Any]:
    """Bodies are read here, not by FastAPI, and errors are always JSON: so they are described here, too."""
    _, found = models_json_schema([(model, "validation") for model in DESCRIBED], ref_template="#/components/schemas/{model}")
    described["components"]["schemas"].update(found["$defs"])
    return described


async def _json(request: Request) -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(400, "the body must be JSON, with the header Content-Type: application/json")
    told, data = request.headers.get("content-length", ""), bytearray()
    too_large = HTTPException(413, f"the body is larger than {MAX_BODY} bytes")
    if told.isdecimal() and int(told) > MAX_BODY:
        raise too_large
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_BODY:
                raise too_large
    except ClientDisconnect:
        raise HTTPException(400, "the connection was closed before the body was whole") from None
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_number, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is no JSON: {error}") from None


def _number(text: str) -> float:
    """JSON tells no 1.0 from 1."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= MAX_NUMBER else value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _complaint(value: Any, depth: int = 0) -> str:
    """What no database or reader of JSON can be trusted with; empty where there is nothing of that kind."""
    if depth > MAX_DEPTH:
        return f"deeper than {MAX_DEPTH} levels"
    if isinstance(value, str):
        return "" if _is_text(value) else f"{value[:40]!a} has a NUL character or half a surrogate pair"
    if isinstance(value, (int, float)) and abs(value) > MAX_NUMBER:
        return f"a number is beyond {MAX_NUMBER}"
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, (_complaint(part, depth + 1) for part in parts)), "")


def _is_text(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
