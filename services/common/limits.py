"""Limits on requests: how large a body may be, and what JSON in it is understood alike by every reader and every database."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

MAX_BODY = 1 << 20
"""Bytes of a request's body."""

MAX_DEPTH = 30
"""Levels of lists and objects in a body."""

MAX_NUMBER = 2**53
"""Numbers up to here are the same to every reader of JSON, and to SQLite and PostgreSQL."""


class LimitedRequest(Request):
    """A request whose body is read with these limits, by FastAPI, too: 400 if it is not JSON, 413 if too large, else 422.

    FastAPI's own reader has no limit on depth and numbers, and takes NaN, NUL characters and half surrogate pairs.
    """

    max_body = MAX_BODY
    """Bytes of a body."""
    media: ClassVar[tuple[str, ...]] = ("application/json",)
    what = "JSON"
    """The types of content that are read, without their parameters, and what they are called. `image/*` is any kind of image."""

    async def body(self) -> bytes:
        """Return the body's bytes; they must be announced as one of `media`."""
        if not hasattr(self, "_body"):
            self._body = await _read_body(self)
        return self._body

    async def json(self) -> Any:
        """Return the body as a JSON value within the limits."""
        return parse_json(await self.body())


async def _read_body(request: LimitedRequest) -> bytes:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in request.media and f"{media.partition('/')[0]}/*" not in request.media:
        raise HTTPException(400, f"the body must be {request.what}, with the header Content-Type: {request.media[0]}")
    announced, data = request.headers.get("content-length", ""), bytearray()
    too_large = HTTPException(413, f"the body is larger than {request.max_body} bytes")
    if announced.isdecimal() and int(announced) > request.max_body:
        raise too_large
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > request.max_body:
                raise too_large
    except ClientDisconnect:
        raise HTTPException(400, "the connection was closed before the whole body arrived") from None
    if not data:  # FastAPI would take it for a body that was left out
        raise HTTPException(400, f"the body is not {request.what}: it is empty")
    return bytes(data)


def parse_json(data: bytes, what: str = "the body") -> Any:
    """Return a JSON value. HTTPException 400 for bytes that are not JSON, 422 for JSON beyond the limits. what: they are."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_reject_constant, parse_float=_parse_number)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"{what} is not JSON: {error}") from None
    problem = _problem(value)
    if problem:
        raise HTTPException(422, f"{what.removeprefix('the ')}: {problem}")
    return value


def _parse_number(text: str) -> float:
    """Return 1 for 1.0: JSON has only one kind of number, and a strict model takes no float for an integer."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= MAX_NUMBER else value


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _problem(value: Any, depth: int = 0) -> str:
    """Return what is beyond the limits in a JSON value; empty where nothing is."""
    if depth > MAX_DEPTH:
        return f"deeper than {MAX_DEPTH} levels"
    if isinstance(value, str):
        return "" if _is_text(value) else f"{value[:40]!a} has a NUL character or half a surrogate pair"
    if isinstance(value, (int, float)) and abs(value) > MAX_NUMBER:
        return f"a number is beyond {MAX_NUMBER}"
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, (_problem(part, depth + 1) for part in parts)), "")


def _is_text(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
