"""What jobs are called: the recipe, and what differs from it, in a few words; and the jobs that an array stands for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from services.jobs.queue.arrays import MOST_JOBS
from services.jobs.queue.records import MOST_NAME
from services.jobs.queue.states import Kind
from zsbir.base.errors import InputError
from zsbir.base.text import clean
from zsbir.recipes import RECIPES
from zsbir.training.config import TrainConfig

TRAINED_BY: Mapping[str, str] = {"train": "", "sweep": "", "pipeline": "train"}
"""Kinds that train, with the section of their configuration that holds the training's fields."""

ABOUT: Mapping[str, tuple[str, ...]] = {
    "ingest": ("layout", "path"),
    "teacher": ("dataset",),
    "evaluate": ("run",),
    "index": ("run", "gallery"),
    "promote": ("report",),
    "export": ("run",),
    "command": ("words",),
}
"""Of other kinds, the fields that say most about a job."""


def training_of(kind: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of the training in a job's configuration; none where it does not train."""
    section = TRAINED_BY.get(kind)
    values = config.get(section, {}) if section else config if section == "" else {}
    return values if isinstance(values, Mapping) else {}


def recipe_of(kind: str, config: Mapping[str, Any]) -> str:
    """Return the recipe of the training in a job; empty where it does not train."""
    return str(training_of(kind, config).get("recipe") or "custom") if kind in TRAINED_BY else ""


def seed_of(kind: str, config: Mapping[str, Any]) -> int | None:
    """Return the seed of the training in a job; None where it does not train."""
    if kind not in TRAINED_BY:
        return None
    seed = training_of(kind, config).get("seed", _defaults(recipe_of(kind, config)).get("seed"))
    return seed if isinstance(seed, int) else None


def default_name(kind: Kind, config: Mapping[str, Any]) -> str:
    """Return `toy seed=1 margin_cross=0.3`: the recipe and what differs from it; of other kinds, what they work on."""
    if kind in TRAINED_BY:
        recipe = recipe_of(kind, config)
        defaults, given = _defaults(recipe), training_of(kind, config)
        changed = {name: value for name, value in given.items() if name in defaults and _plain(value) != _plain(defaults[name])}
        ordered = sorted(changed, key=lambda name: name != "seed")
        pictures = config.get("ingest", {}).get("path") if kind == "pipeline" else None
        return shortened(
            " ".join([recipe, *([_word(pictures)] if pictures else []), *(f"{name}={_word(changed[name])}" for name in ordered)])
        )
    if isinstance(config.get("name"), str) and config["name"]:
        return shortened(config["name"])
    words = [_last_part(config[name]) for name in ABOUT.get(kind, ()) if config.get(name)]
    return shortened(" ".join(words) or kind)


def shortened(name: str, ending: str = "") -> str:
    """Return a name and its ending, printable, in at most `MOST_NAME` characters: the ending is kept."""
    name, ending = (" ".join(clean(text).split()) for text in (name, ending))
    ending = ending[-MOST_NAME + 3 :]
    whole = f"{name} {ending}".strip()
    if len(whole) <= MOST_NAME:
        return whole
    room = MOST_NAME - len(ending) - 2
    return f"{name[:room]}… {ending}" if ending and room > 0 else f"{whole[: MOST_NAME - 1]}…"


def members_of(config: Mapping[str, Any], each: Mapping[str, Sequence[Any]]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the configuration of each job of an array, and what tells it from the others: `seed=1 margin_cross=0.3`.

    each: the values of fields by their paths (`seed`; in a pipeline `train.seed`); every combination is a job. InputError for no
    values, the same value twice, or more than `MOST_JOBS` jobs.
    """
    words: dict[str, list[str]] = {}
    for path, values in each.items():
        whole = [str(value) for value in values]
        if not values or len(set(whole)) < len(whole):
            raise InputError(f"each: {path} needs different values, got {', '.join(whole) or 'none'}")
        short = [_word(value) for value in values]
        words[path] = short if len(set(short)) == len(short) else [text.replace(" ", "_") for text in whole]
    total = math.prod(len(values) for values in each.values())
    if total > MOST_JOBS:
        raise InputError(f"each: these are {total} jobs; an array has at most {MOST_JOBS}")
    for chosen in itertools.product(*(list(zip(values, words[path], strict=True)) for path, values in each.items())):
        found = dict(config)
        for path, (value, _) in zip(each, chosen, strict=True):
            found = _with_value(found, path.split("."), value)
        yield found, " ".join(f"{path.split('.')[-1]}={word}" for path, (_, word) in zip(each, chosen, strict=True))


def _with_value(config: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    inner = config.get(first) or {}
    if rest and not isinstance(inner, Mapping):
        raise InputError(f"each: {'.'.join(path)} is not a field of this job")
    return {**config, first: _with_value(inner, rest, value) if rest else value}


@lru_cache(maxsize=64)
def _defaults(recipe: str) -> dict[str, Any]:
    make = RECIPES.get(recipe)
    return make().model_dump(mode="json") if make else TrainConfig().model_dump(mode="json")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _word(value: Any) -> str:
    """Return a value as one word of a name."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(_word, value))
    return _last_part(value).replace(" ", "_")


def _last_part(value: Any) -> str:
    """Return the end of an address, which says most; of the words of a program, all of them."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    parts = [part for part in str(value).split("/") if part]
    return parts[-1] if parts else str(value)
