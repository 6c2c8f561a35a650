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
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError
from zsbir.base.text import clean
from zsbir.model.choices import BACKBONES_GROUP, TIMM, TORCHVISION_BACKBONES, backbone_names

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Network:
    """A backbone: a classifier of images whose last layer is linear, over pooled features.

    build: makes it without trained weights, for a number of labels. classifier: the dotted name of its last layer. mean, std: of
    red, green and blue, of a range from 0 to 1, by which its images are normalised.
    """

    build: Callable[[int], nn.Module]
    classifier: str = "fc"
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD


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
    facts = timm.get_pretrained_cfg(name)
    if facts is None or not isinstance(facts.classifier, str):
        raise InputError(f"timm's {name} has no single classifier, so it cannot be a backbone")

    def build(labels: int) -> nn.Module:
        try:  # vision transformers take images of one size unless they are told otherwise
            network: nn.Module = timm.create_model(name, pretrained=False, num_classes=labels, dynamic_img_size=True)
        except TypeError:
            network = timm.create_model(name, pretrained=False, num_classes=labels)
        return network

    return Network(build, facts.classifier, _channels(facts.mean), _channels(facts.std))


def _channels(values: Sequence[float]) -> Channels:
    red, green, blue = map(float, values)
    return red, green, blue


@cache
def _installed(name: str) -> Network:
    found = next((point for point in entry_points(group=BACKBONES_GROUP) if point.name == name), None)
    if found is None:
        raise InputError(f"{unknown_name('backbone', name[:100], backbone_names())}, or {TIMM}NAME for a model of timm")
    try:
        network: Any = import_module(found.module)
        for part in found.attr.split("."):
            network = getattr(network, part)
    except Exception as error:
        reason = f"{type(error).__name__}: {clean(str(error))}"
        raise InputError(f"the backbone {name!r} cannot be imported from {found.value}: {reason}") from error
    if not isinstance(network, Network):
        raise InputError(f"the backbone {name!r} is none: {found.value} is not a zsbir.model.backbones.Network")
    return network
