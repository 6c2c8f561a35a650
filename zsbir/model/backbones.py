"""Backbones by name: torchvision's ResNets, every classifier of timm, and those of installed packages.

    resnet18 ... resnet101      torchvision
    timm:convnext_tiny.fb_in1k  timm, by its own name, with its own mean and standard deviation
    mine                        a package with an entry point of the group `zsbir.backbones`, whose value is a `Network`

Only a backbone that is named is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError
from zsbir.model.choices import TIMM, TORCHVISION_BACKBONES, backbone_names, backbone_offer

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Network:
    """A backbone: a classifier of images whose last layer is linear, over pooled features.

    build: makes it without trained weights, for a number of labels. classifier: the dotted name of its last layer. mean, std: of
    red, green and blue, of a range from 0 to 1, by which its images are normalised. build_dropping: makes it with stochastic depth,
    by modules of timm or torchvision, for a number of labels and the largest rate; None: it has no such thing. image_px: the only
    side of images that it takes, pixels; 0: it takes any.
    """

    build: Callable[[int], nn.Module]
    classifier: str = "fc"
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    build_dropping: Callable[[int, float], nn.Module] | None = None
    image_px: int = 0

    def check_size(self, image_px: int) -> None:
        """Raise InputError for images of a side that the network does not take."""
        if self.image_px and image_px != self.image_px:
            raise InputError(
                f"image_px {image_px}: this backbone takes images of {self.image_px} px alone; use image_px {self.image_px}"
            )


def network_of(name: str) -> Network:
    """Return the backbone of a name. Raises InputError where there is none, or it is not a classifier as `Network` says."""
    if name in TORCHVISION_BACKBONES:
        return _torchvision(name)
    return _timm(name.removeprefix(TIMM)) if name.startswith(TIMM) else _installed(name)


def split(network: nn.Module, classifier: str) -> tuple[nn.Module, nn.Linear]:
    """Return a classifier as trunk, which then gives pooled features, and last layer. InputError where that is not linear."""
    owner, _, attribute = classifier.rpartition(".")
    try:
        parent = network.get_submodule(owner)
        last = getattr(parent, attribute)
    except AttributeError:
        raise InputError(f"the backbone has no layer {classifier!r}, which should be its classifier") from None
    if not isinstance(last, nn.Linear):
        raise InputError(f"the backbone's last layer {classifier!r} is not linear but {type(last).__name__}")
    setattr(parent, attribute, nn.Identity())
    return network, last


def _torchvision(name: str) -> Network:
    import torchvision

    def build(labels: int) -> nn.Module:
        network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=labels)
        return network

    return Network(build)


@cache
def _timm(name: str) -> Network:
    import timm

    if not timm.is_model(name):
        known = timm.list_models(name.partition("_")[0] + "*") or timm.list_models("resnet*")
        raise InputError(f"{unknown_name('timm model', name, known)}; python -c 'import timm; print(timm.list_models())' has all")
    try:
        facts = timm.get_pretrained_cfg(name)
    except RuntimeError:
        model, _, tag = name.partition(".")
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{model}.*")]
        raise InputError(f"{unknown_name('weights', tag, tags)}; {TIMM}{model} has timm's own choice") from None
    if facts is None or not isinstance(facts.classifier, str):
        raise InputError(f"timm's {name} has no single classifier, so it cannot be a backbone")

    # Vision transformers take images of one size unless they are told otherwise, and some cannot be told.
    size = {"dynamic_img_size": True} if facts.fixed_input_size and _accepts(name, dynamic_img_size=True) else {}

    def build(labels: int) -> nn.Module:
        return _made(name, num_classes=labels, **size)

    def build_dropping(labels: int, rate: float) -> nn.Module:
        return _made(name, num_classes=labels, drop_path_rate=rate, **size)

    return Network(
        build,
        facts.classifier,
        _channels(facts.mean),
        _channels(facts.std),
        build_dropping if _accepts(name, drop_path_rate=0.1) else None,
        image_px=facts.input_size[-1] if facts.fixed_input_size and not size else 0,
    )


def _accepts(name: str, **options: Any) -> bool:
    """Return whether a model of timm can be made with these options."""
    try:
        with torch.device("meta"):
            _made(name, **options)
    except TypeError:
        return False
    return True


def _made(name: str, **options: Any) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, pretrained=False, **options)
    return network


def _channels(values: Sequence[float]) -> Channels:
    red, green, blue = map(float, values)
    return red, green, blue


@cache
def _installed(name: str) -> Network:
    offer = backbone_offer(name)
    if offer is None:
        raise InputError(f"{unknown_name('backbone', name[:100], backbone_names())}; a model of timm is {TIMM}NAME")
    network = offer.load()
    if not isinstance(network, Network):
        raise InputError(f"the backbone {name!r} is none: {offer.where} is not a zsbir.model.backbones.Network")
    return network
