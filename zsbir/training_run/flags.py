"""The flags of a training: those of its configuration, and those of the further losses that a command line names."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

from zsbir.base.cli import Parser
from zsbir.base.config import read_yaml
from zsbir.losses.registry import loss_kind, offered, owner_of
from zsbir.training.config import TrainConfig


def add_training_fields(
    parser: Parser, argv: Sequence[str], recipes: Mapping[str, Callable[[], TrainConfig]], *, title: str
) -> None:
    """Add a flag for each field of a training. Losses that `argv`, its YAML file or its recipe name add theirs.

    Raises InputError for a loss that is not installed.
    """
    parser.add_fields(TrainConfig, title=title, skip=frozenset({"recipe"}))
    named = _named(argv, recipes)
    parser.needed_for = lambda field: f"--losses {owner}" if (owner := owner_of(field, named)) else ""
    for name in named:
        kind = loss_kind(name)
        parser.add_fields(kind.fields, title=f"loss {name}, of {kind.offer.identity or kind.offer.package}")
    parser.epilog = "further losses, for --losses: " + ", ".join(
        f"{name} ({package})" for name, package in sorted(offered().items())
    )


def _named(argv: Sequence[str], recipes: Mapping[str, Callable[[], TrainConfig]]) -> tuple[str, ...]:
    """Return the further losses that a command line names: its flag, else its YAML file, else its recipe."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    peek.add_argument("--losses")
    peek.add_argument("--config")
    try:
        found, _ = peek.parse_known_args(list(argv))
    except (argparse.ArgumentError, SystemExit):  # a flag without its value: the real parser says so
        return ()
    if found.losses is not None:
        return tuple(dict.fromkeys(name.strip() for name in found.losses.split(",") if name.strip()))
    given = read_yaml(found.config) if found.config else {}
    start = given.get("recipe") or next((word for word in argv if word in recipes), "")
    known = isinstance(start, str) and start in recipes
    names = given.get("losses", recipes[start]().losses if known else ())
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list | tuple) else ()
