"""JSON from strangers: nothing but what the standard allows, within the bounds of `zsbir.base.limits`."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from zsbir.base.limits import JSON_DEPTH, JSON_VALUES


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8. Raises ValueError, one line, for anything else.

    NaN, infinite numbers and halves of surrogate pairs are refused, since no other program reads them; so is what is nested too
    deeply or holds too many values. The caller bounds the bytes.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    _check(value)
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _too_deep() -> str:
    return f"it is nested more than {JSON_DEPTH} levels deep"


def _check(value: Any) -> None:
    """Look at all values level by level, without recursion."""
    level, depth, count = [value], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > JSON_DEPTH:
            raise ValueError(_too_deep())
        if count > JSON_VALUES:
            raise ValueError(f"it holds more than {JSON_VALUES} values")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                _check_text(item)
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("it holds a number that is too large")
        level = below


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is no text") from None
