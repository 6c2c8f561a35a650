"""JSON from strangers: nothing but what the standard allows, within the bounds of `zsbir.base.limits`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
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
    for scalar in bounded_scalars(value):
        if isinstance(scalar, str):
            _check_text(scalar)
        elif isinstance(scalar, float) and not math.isfinite(scalar):
            raise ValueError("it holds a number that is too large")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _too_deep() -> str:
    return f"it is nested more than {JSON_DEPTH} levels deep"


def bounded_scalars(value: Any) -> Iterator[Any]:
    """Yield all keys and values within lists and mappings, level by level.

    Raises ValueError for too many or too deep ones: a text of some lines may stand for billions, where it repeats parts of itself
    as YAML may.
    """
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
            else:
                yield item
        level = below


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is no text") from None
