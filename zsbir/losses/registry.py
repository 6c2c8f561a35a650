"""Losses by name: those of this project beside the method's three, and those of installed packages.

A package offers a loss as an entry point of the group `zsbir.losses`, whose value is a class derived from `zsbir.losses.loss.Loss`:

    [project.entry-points."zsbir.losses"]
    centre = "my_package.centre:Centre"

Which there are is read from the packages' metadata: only a loss that is named is imported. This module does not load torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from zsbir.base.config import Config, unknown_name
from zsbir.base.errors import InputError
from zsbir.base.packages import Offer, offers, the_one
from zsbir.losses.baseline_config import MultiSimilarityFields, ProxyAnchorFields, SakeFields, SupConFields, TripletFields

if TYPE_CHECKING:
    from zsbir.losses.loss import Loss

GROUP = "zsbir.losses"
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
METHOD = ("quadruplet", "classification", "preservation")
"""The losses of the method itself, which are always there."""


@dataclass(frozen=True)
class LossKind:
    """A loss that may be named. offer: who offers it. fields: `weight_<name>` and its own."""

    offer: Offer
    fields: type[Config]

    def load(self) -> type[Loss]:
        """Return the class. Loads torch."""
        return _loss_class(self.offer)


_OWN: Mapping[str, tuple[type[Config], str]] = {
    "sake": (SakeFields, "zsbir.losses.sake:Sake"),
    "supcon": (SupConFields, "zsbir.losses.supcon:SupCon"),
    "proxy_anchor": (ProxyAnchorFields, "zsbir.losses.proxy_anchor:ProxyAnchor"),
    "triplet": (TripletFields, "zsbir.losses.triplet:Triplet"),
    "multi_similarity": (MultiSimilarityFields, "zsbir.losses.multi_similarity:MultiSimilarity"),
}


def offered() -> dict[str, str]:
    """Return the name of each loss that may be named, with the package that offers it. Nothing is imported."""
    found = {name: " and ".join(offer.package for offer in those) for name, those in _installed().items()}
    return {**found, **dict.fromkeys(_OWN, "zsbir")}


@cache
def loss_kind(name: str) -> LossKind:
    """Return the loss of that name. Raises InputError for one that is not installed, or that is none."""
    if name in _OWN:
        fields, where = _OWN[name]
        return LossKind(Offer("loss", name, where, "zsbir"), _with_weight(name, fields))
    if name not in (installed := _installed()):
        raise InputError(f"{unknown_name('loss', name[:100], offered())}; a package offers one as an entry point of {GROUP!r}")
    offer = the_one(installed[name])
    fields = _loss_class(offer).Fields
    strange = [field for field in fields.model_fields if not field.startswith(f"{name}_")]
    if strange:
        raise InputError(f"the loss {name!r} ({offer.where}) has a field {strange[0]!r}, which must begin with '{name}_'")
    needed = [field for field, info in fields.model_fields.items() if info.is_required()]
    if needed:
        raise InputError(f"the loss {name!r} ({offer.where}) has a field {needed[0]!r} without a default")
    return LossKind(offer, _with_weight(name, fields))


def fields_of(losses: Iterable[str]) -> dict[str, FieldInfo]:
    """Return the fields that these losses add to a configuration.

    Raises InputError as `loss_kind` does, and where two losses have a field of the same name.
    """
    found: dict[str, FieldInfo] = {}
    for name in losses:
        fields = loss_kind(name).fields.model_fields
        both = next((field for field in fields if field in found), None)
        if both is not None:
            raise InputError(f"losses: {name!r} and another loss both have a field {both!r}; name only one of them")
        found |= fields
    return found


def unknown_field(field: str, known: Iterable[str], losses: Collection[str]) -> str:
    """Return an error line for a field that a training with these losses does not have: of another loss, or of none."""
    owner = owner_of(field, losses)
    if not owner:
        return unknown_name("field", field, known)
    return f"field {field!r} is for the loss {owner!r}: name it in losses as well, or leave the field out"


def owner_of(field: str, losses: Collection[str]) -> str:
    """Return the loss, of those that are not among `losses`, that a field is for by its name; "" for none. Nothing is imported."""
    others = sorted(name for name in offered() if name not in losses)
    return next((name for name in others if field == f"weight_{name}" or field.startswith(f"{name}_")), "")


def packages_of(losses: Iterable[str]) -> dict[str, str]:
    """Return, for each loss of another package, that package and its version."""
    return {name: found for name in losses if (found := loss_kind(name).offer.identity)}


def _installed() -> dict[str, list[Offer]]:
    """Return the losses of packages by name. Names that no field could have, and those of this project, are left out."""
    return offers("loss", GROUP, NAME, {*METHOD, *_OWN})


def _loss_class(offer: Offer) -> type[Loss]:
    """Import a loss. Raises InputError for anything else."""
    from zsbir.losses.loss import Loss

    found = offer.load()
    if not (isinstance(found, type) and issubclass(found, Loss)):
        raise InputError(f"the loss {offer.name!r} is none: {offer.where} is not a class derived from zsbir.losses.loss.Loss")
    return found


def _with_weight(name: str, fields: type[Config]) -> type[Config]:
    """Return the fields of a loss with that of its weight before them."""
    weight: Any = (float, Field(1.0, ge=0, description=f"weight of the loss {name}"))
    made: type[Config] = create_model(
        f"{fields.__name__}WithWeight", __base__=fields, __module__=__name__, **{f"weight_{name}": weight}
    )
    return made
