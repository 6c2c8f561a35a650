"""What a configuration may choose of the network. Importing this module does not load torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from zsbir.base.config import Packaged, unknown_name
from zsbir.base.packages import Offer, offers, the_one

TORCHVISION_BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
"""Networks of torchvision that can be fine-tuned."""

TIMM = "timm:"
"""What the name of a model of timm begins with here."""

BACKBONES_GROUP = "zsbir.backbones"
"""The group of entry points by which packages offer backbones."""

_TIMM_NAME = re.compile(r"timm:[a-z0-9][a-z0-9_.]{1,99}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def backbone_names() -> list[str]:
    """Return the backbones that may be named, but for those of timm. Nothing is imported."""
    return [*TORCHVISION_BACKBONES, *sorted(_installed())]


def backbone_offer(name: str) -> Offer | None:
    """Return which package offers a backbone; None for one of torchvision or timm, and for a name that nobody offers.

    Raises InputError where two packages offer it.
    """
    if name in TORCHVISION_BACKBONES or name.startswith(TIMM):
        return None
    return the_one(found) if (found := _installed().get(name)) else None


def _installed() -> dict[str, list[Offer]]:
    return offers("backbone", BACKBONES_GROUP, _NAME, TORCHVISION_BACKBONES)


def _backbone(name: str) -> str:
    if name in TORCHVISION_BACKBONES or _TIMM_NAME.fullmatch(name):
        return name
    if name not in (known := backbone_names()):
        raise ValueError(f"{unknown_name('backbone', name[:100], known)}; a model of timm is {TIMM}NAME")
    return name


def _version(name: str) -> str:
    """Return package and version of a backbone that another package offers. Those of torchvision and timm are pinned here."""
    offer = backbone_offer(name)
    return offer.identity if offer else ""


def _name_examples(schema: dict[str, Any]) -> None:
    """Put the names into a JSON schema as examples, which forms suggest: they are not all, because of timm's."""
    schema["examples"] = [*backbone_names(), f"{TIMM}convnext_tiny.fb_in1k"]


Backbone = Annotated[str, AfterValidator(_backbone), Packaged(_version), Field(json_schema_extra=_name_examples)]
"""The name of a backbone (`zsbir.model.backbones`)."""

HeadPlace = Literal["features", "embedding", "unnormalised"]
"""Where the teacher-label head reads from: the pooled features, the embedding, or the embedding before it is made a unit vector."""

Pooling = Literal["mean", "gem"]
"""How the last feature map becomes features: its mean, or a generalised mean with a learned power."""

ClassifierStart = Literal["random", "fixed", "prototypes", "fixed_prototypes"]
"""With which weights the classifier of the seen classes begins, and whether they are trained."""
