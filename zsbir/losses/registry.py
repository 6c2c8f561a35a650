"""Losses by name: those of this project beside the method's three, and those of installed packages.

A package offers a loss as an entry point of the group `zsbir.losses`, whose value is a class derived from `zsbir.losses.loss.Loss`:

    [project.entry-points."zsbir.losses"]
    centre = "my_package.centre:Centre"

Which there are is read from the packages' metadata: only a loss that is named is imported. This module does not load torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from zsbir.base.config import Config, unknown_name
from zsbir.base.errors import InputError
from zsbir.base.text import clean
from zsbir.losses.baseline_config import MultiSimilarityFields, ProxyAnchorFields, SakeFields, SupConFields, TripletFields

if TYPE_CHECKING:
    from zsbir.losses.loss import Loss

GROUP = "zsbir.losses"
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
METHOD = ("quadruplet", "classification", "preservation")
"""The losses of the method itself, which are always there."""


@dataclass(frozen=True)
class LossKind:
    """A loss that may be named. fields: `weight_<name>` and its own. package: what offers it. version: "" for this project's."""

    name: str
    package: str
    version: str
    fields: type[Config]
    where: str

    @property
    def identity(self) -> str:
        """What tells one version of an installed loss from another; "" for one of this project."""
        return f"{self.package} {self.version}" if self.version else ""

    def load(self) -> type[Loss]:
        """Return the class. Loads torch."""
        return _imported(self.name, self.where)


_OWN: Mapping[str, tuple[type[Config], str]] = {
    "sake": (SakeFields, "zsbir.losses.sake:Sake"),
    "supcon": (SupConFields, "zsbir.losses.supcon:SupCon"),
    "proxy_anchor": (ProxyAnchorFields, "zsbir.losses.proxy_anchor:ProxyAnchor"),
    "triplet": (TripletFields, "zsbir.losses.triplet:Triplet"),
    "multi_similarity": (MultiSimilarityFields, "zsbir.losses.multi_similarity:MultiSimilarity"),
}


def offered() -> dict[str, str]:
    """Return the name of each loss that may be named, with the package that offers it. Nothing is imported."""
    found = {name: f"{_package(point)[0]}" for name, point in _installed().items()}
    return {**found, **dict.fromkeys(_OWN, "zsbir")}


@cache
def loss_kind(name: str) -> LossKind:
    """Return the loss of that name. Raises InputError for one that is not installed, or that is none."""
    if name in _OWN:
        fields, where = _OWN[name]
        return LossKind(name, "zsbir", "", _with_weight(name, fields), where)
    if name not in (installed := _installed()):
        raise InputError(f"{unknown_name('loss', name[:100], offered())}; a package offers one as an entry point of {GROUP!r}")
    point = installed[name]
    fields = _imported(name, point.value).Fields
    strange = [field for field in fields.model_fields if not field.startswith(f"{name}_")]
    if strange:
        raise InputError(f"the loss {name!r} ({point.value}) has a field {strange[0]!r}, which must begin with '{name}_'")
    needed = [field for field, info in fields.model_fields.items() if info.is_required()]
    if needed:
        raise InputError(f"the loss {name!r} ({point.value}) has a field {needed[0]!r} without a default")
    package, version = _package(point)
    return LossKind(name, package, version, _with_weight(name, fields), point.value)


def fields_of(losses: Iterable[str]) -> dict[str, FieldInfo]:
    """Return the fields that these losses add to a configuration. Raises InputError as `loss_kind` does."""
    return {field: info for name in losses for field, info in loss_kind(name).fields.model_fields.items()}


def _installed() -> dict[str, EntryPoint]:
    """Return the entry points by name. Names that no field could have, and those of this project, are left out."""
    taken = {*METHOD, *_OWN}
    return {point.name: point for point in entry_points(group=GROUP) if NAME.fullmatch(point.name) and point.name not in taken}


def _package(point: EntryPoint) -> tuple[str, str]:
    """Return the name and the version of the package that offers an entry point."""
    if point.dist is None:
        return point.module.partition(".")[0], "unknown"
    return clean(point.dist.metadata["Name"] or point.module), clean(point.dist.version)


def _imported(name: str, where: str) -> type[Loss]:
    """Import a class by "module:name". Whatever its package raises, and anything but a loss, is one InputError."""
    from zsbir.losses.loss import Loss

    module, _, attribute = where.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise InputError(
            f"the loss {name!r} cannot be imported from {where}: {type(error).__name__}: {clean(str(error))}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Loss)):
        raise InputError(f"the loss {name!r} is none: {where} is not a class derived from zsbir.losses.loss.Loss")
    return found


def _with_weight(name: str, fields: type[Config]) -> type[Config]:
    """Return the fields of a loss with that of its weight before them."""
    weight: Any = (float, Field(1.0, ge=0, description=f"weight of the loss {name}"))
    made: type[Config] = create_model(
        f"{fields.__name__}WithWeight", __base__=fields, __module__=__name__, **{f"weight_{name}": weight}
    )
    return made
