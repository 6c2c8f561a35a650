"""The table of promoted and refused models: one row for each version, from the tags that a promotion has left on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zsbir.base.errors import InputError
from zsbir.base.layout import below_root
from zsbir.base.strict_json import parse_json

WIDEST = 40
"""Characters of a value in the table; the JSON has all of it."""


def row(uri: str, aliases: Sequence[str], tags: Mapping[str, str]) -> dict[str, str]:
    """Return what is known of a version, in full. tags: those of this project, without their prefix."""
    numbers = _numbers(tags)
    gain = "{difference:+.4f} ({low:+.4f} to {high:+.4f})".format(**numbers) if numbers else "-"
    score = "{metric} {challenger_mean:.4f}".format(**numbers) if numbers else _known(tags.get("metric"), tags.get("metric_value"))
    return {
        "version": uri,
        "aliases": ",".join(aliases) or "-",
        "run": tags.get("run", "-"),
        "data": _known(tags.get("dataset"), tags.get("dataset_digest")),
        "metric": score,
        "gain": gain,
        "gate": tags.get("gate", "-") + (", rolled back" if "rolled_back_utc" in tags else ""),
        "index": tags.get("index", "-"),
        "decided (UTC)": tags.get("decided_utc", "-").removesuffix("+00:00").replace("T", " "),
    }


def shown(found: Mapping[str, str]) -> dict[str, str]:
    """Return a row as the table shows it: digests with eight digits, an index by its place below the root."""
    short = {**found, "data": " ".join(_short_digest(word) for word in found["data"].split(" ")), "index": _below(found["index"])}
    return {name: value if len(value) <= WIDEST else f"{value[: WIDEST - 3]}..." for name, value in short.items()}


def _numbers(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the numbers of the comparison; none where there was none, or somebody has written something else into the tag."""
    try:
        numbers = parse_json((tags.get("gate_numbers") or "{}").encode())
        values = {name: float(numbers[name]) for name in ("difference", "low", "high", "challenger_mean")}
        return {**values, "metric": str(numbers["metric"])}
    except (ValueError, TypeError, KeyError):
        return {}


def _known(*words: str | None) -> str:
    return " ".join(word for word in words if word) or "-"


def _short_digest(word: str) -> str:
    return word[:8] if len(word) == 64 and all(letter in "0123456789abcdef" for letter in word) else word


def _below(uri: str) -> str:
    try:
        return below_root(uri).removeprefix("indexes/")
    except InputError:
        return uri
