"""What installed packages offer by name: entry points, read from the packages' metadata. Only what is named is imported."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from zsbir.base.errors import InputError
from zsbir.base.text import clean


@dataclass(frozen=True)
class Offer:
    """Something that may be named. kind: what it is, for errors. where: "module:attribute". version: "" for this project's own."""

    kind: str
    name: str
    where: str
    package: str
    version: str = ""

    @property
    def identity(self) -> str:
        """What tells one version of it from another, "package 1.2"; "" for this project's own."""
        return f"{self.package} {self.version}" if self.version else ""

    def load(self) -> Any:
        """Import it. Whatever its package raises meanwhile is one InputError."""
        module, _, attribute = self.where.partition(":")
        try:
            found: Any = import_module(module)
            for part in filter(None, attribute.split(".")):
                found = getattr(found, part)
        except Exception as error:
            reason = f"{type(error).__name__}: {clean(str(error))}"
            raise InputError(f"the {self.kind} {self.name!r} cannot be imported from {self.where}: {reason}") from error
        return found


def offers(kind: str, group: str, names: re.Pattern[str], taken: Collection[str] = ()) -> dict[str, list[Offer]]:
    """Return what packages offer in a group of entry points, by name. Nothing is imported.

    names: what a name must look like. taken: names that nobody may have. Others are left out. More than one offer of a name is for
    `the_one` to refuse.
    """
    found: dict[str, list[Offer]] = {}
    for point in entry_points(group=group):
        if names.fullmatch(point.name) and point.name not in taken:
            found.setdefault(point.name, []).append(Offer(kind, point.name, clean(point.value), *_package(point)))
    return found


def the_one(offered: list[Offer]) -> Offer:
    """Return the only offer of a name. Raises InputError where two packages offer it: which one is meant cannot be known."""
    first, *others = offered
    if others:
        packages = " and ".join(sorted(offer.identity for offer in offered))
        raise InputError(f"the {first.kind} {first.name!r} is offered by {packages}: uninstall all but one of them")
    return first


def _package(point: EntryPoint) -> tuple[str, str]:
    """Return the name and the version of the package that offers an entry point."""
    if point.dist is None:
        return clean(point.module.partition(".")[0]), "unknown"
    return clean(point.dist.metadata["Name"] or point.module), clean(point.dist.version)
