"""The fields of the losses that the method is compared with, apart from them so that a command line reads them without torch.

Each may be named in `losses` (`zsbir.losses.registry`). Defaults are those of the papers that the losses come from.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from zsbir.base.config import Address, Config
from zsbir.model.choices import Backbone

Positives = Literal["all", "other_domain"]
"""Which images of an anchor's class count as its positives: all of them, or those of the other domain."""


class SupConFields(Config):
    """Fields of the supervised contrastive loss (Khosla et al., NeurIPS 2020)."""

    supcon_temperature: float = Field(0.1, gt=0, description="temperature of the similarities")
    supcon_positives: Positives = Field("all", description="positives of an anchor: all of its class, or those of the other domain")


class ProxyAnchorFields(Config):
    """Fields of the Proxy-Anchor loss (Kim et al., CVPR 2020)."""

    proxy_anchor_margin: float = Field(0.1, ge=0, description="margin of the cosine similarities to the proxies")
    proxy_anchor_scale: float = Field(32.0, gt=0, description="scale of the cosine similarities")
    proxy_anchor_rate_factor: float = Field(
        100.0, gt=0, description="learning rate of the proxies, as a multiple of that of the new layers"
    )


class TripletFields(Config):
    """Batch-hard triplet loss across domains."""

    triplet_margin: float = Field(0.2, ge=0, description="margin between the distances to positive and negative")


class MultiSimilarityFields(Config):
    """Fields of the multi-similarity loss (Wang et al., CVPR 2019)."""

    multi_similarity_scale_positive: float = Field(2.0, gt=0, description="scale of positive similarities")
    multi_similarity_scale_negative: float = Field(50.0, gt=0, description="scale of negative similarities")
    multi_similarity_threshold: float = Field(0.5, ge=-1, le=1, description="cosine similarity about which pairs are weighed")
    multi_similarity_margin: float = Field(
        0.1, ge=0, description="how much harder than the easiest opposite a pair must be to count"
    )


_KEPT = re.compile(r".*weights/([0-9a-f]{64})\.safetensors")


def _kept_weights(address: str) -> str:
    if address and not _KEPT.fullmatch(address):
        raise ValueError(
            "must be the address of weights below a storage root, .../weights/SHA256.safetensors, as trainings keep them"
        )
    return address


def _checksum(address: str) -> str:
    """Return the checksum in an address of kept weights."""
    found = _KEPT.fullmatch(address)
    return found[1] if found else address


KeptWeights = Annotated[str, AfterValidator(_kept_weights), Address(content=_checksum, required=True)]
"""The address of weights as `zsbir.model.weights` keeps them: its checksum enters a run's name, not the place."""


class SakeFields(Config):
    """Fields of the objective of SAKE (Liu et al., ICCV 2019)."""

    sake_teacher: KeptWeights = Field(
        "", description="address of the teacher's weights, as they are kept below a storage root (required)"
    )
    sake_backbone: Backbone = Field("resnet18", description="backbone of the teacher")
    sake_preservation: float = Field(1.0, ge=0, description="weight of the teacher's labels beside the seen classes")
    sake_temperature: float = Field(1.0, gt=0, description="temperature of the teacher's softmax and of the student's")
