"""The one network, for sketches and photos alike: an ImageNet network, and a linear layer from its features to a unit embedding.

Legend of shapes: b batch, h w pixels, f pooled features, d embedding dimension.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from zsbir.base import limits
from zsbir.base.config import Config
from zsbir.base.errors import InputError, naming
from zsbir.base.strict_json import parse_json
from zsbir.model.backbones import IMAGENET_MEAN, IMAGENET_STD, Channels, Network, network_of, split
from zsbir.model.choices import Backbone, Pooling
from zsbir.model.pooling import use_gem
from zsbir.model.stochastic_depth import use_drop_branches
from zsbir.model.weights import Weights, check_finite


class Normalise(nn.Module):
    """Normalisation of bytes: scaled to [0, 1], minus mean, over standard deviation, by default ImageNet's."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Channels = IMAGENET_MEAN, std: Channels = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Return float32 in channels-last layout, in which convolutions are fastest on CPU and GPU."""
        return ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


class Encoded(NamedTuple):
    """What an encoder makes of images: unit embeddings, pooled features, and the lengths that the embeddings had before."""

    embeddings: Float[Tensor, "b d"]
    features: Float[Tensor, "b f"]
    lengths: Float[Tensor, "b"]

    def unnormalised(self) -> Float[Tensor, "b d"]:
        """Return the embeddings as they were before they became unit vectors."""
        return self.embeddings * self.lengths[:, None]


class Encoder(nn.Module):
    """The network from images as bytes to unit embeddings (and pooled features, for the heads).

    The embedding layer starts as a random orthogonal projection, which keeps the angles that pre-training made (for
    dim = f it is a pure rotation): this project's choice.

    drop_path: the largest rate of stochastic depth in training (`zsbir.model.stochastic_depth`); InputError for a backbone that has
    none. It is no fact of the encoder: once trained, it is the same with any.
    """

    def __init__(
        self,
        backbone: Backbone,
        embedding_dim: int = 512,
        image_px: int = 224,
        pooling: Pooling = "mean",
        *,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.backbone: Backbone = backbone
        self.embedding_dim, self.image_px = embedding_dim, image_px
        network = network_of(backbone)
        network.check_size(image_px)
        self.normalise = Normalise(network.mean, network.std)
        self.trunk, classifier = split(_built(network, drop_path), network.classifier)
        self.feature_dim, self.pooling = classifier.in_features, pooling
        if pooling == "gem":
            use_gem(self.trunk)
        self.embedding = nn.Linear(self.feature_dim, embedding_dim, bias=False)
        nn.init.orthogonal_(self.embedding.weight)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> Encoded:
        """Return unit embeddings and pooled features, float32 whatever the autocast."""
        features = self.trunk(self.normalise(images)).float()
        with torch.autocast(images.device.type, enabled=False):
            raw = self.embedding(features)
            return Encoded(normalize(raw, dim=1), features, raw.norm(dim=1))

    def load_trunk(self, weights: Weights) -> None:
        """Start the trunk from pre-trained weights (their classifier is left out)."""
        classifier = network_of(self.backbone).classifier
        state = {name: tensor for name, tensor in weights.state.items() if not name.startswith(f"{classifier}.")}
        if self.pooling == "gem":  # its power is no part of any pre-trained network
            state |= {name: tensor for name, tensor in self.trunk.state_dict().items() if name.endswith(".power")}
        self.trunk.load_state_dict(state, strict=True)

    def facts(self) -> dict[str, Any]:
        """Return the arguments that build this encoder."""
        facts = {"backbone": self.backbone, "embedding_dim": self.embedding_dim, "image_px": self.image_px}
        return facts if self.pooling == "mean" else {**facts, "pooling": self.pooling}

    def save(self, path: Path) -> None:
        """Write one safetensors file from which `load` makes the same encoder."""
        save_encoder(path, self.facts(), self.state_dict())

    @classmethod
    def load(cls, path: Path) -> Encoder:
        """Load the encoder saved at `path`. Raises InputError for any other file, and for parameters that are not finite."""
        facts = saved_facts(path)
        encoder, state = cls(**facts), load_file(path)
        check_finite(state, path)
        encoder.load_state_dict(state)
        return encoder.to(memory_format=torch.channels_last)


def _built(network: Network, drop_path: float) -> nn.Module:
    """Return a classifier with stochastic depth of the largest rate `drop_path`."""
    if not drop_path:
        return network.build(1000)
    if network.build_dropping is None:
        raise InputError("drop_path: this backbone has no stochastic depth; use drop_path 0, or a model of timm that has")
    made = network.build_dropping(1000, drop_path)
    use_drop_branches(made)
    return made


def save_encoder(path: Path, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write an encoder file from facts and tensors that were taken from an Encoder earlier."""
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path, {"zsbir": json.dumps(facts)})


def saved_facts(path: Path) -> dict[str, Any]:
    """Return backbone, embedding_dim and image_px of a saved encoder.

    Raises InputError for any other file: one whose tensors are not those of this encoder, or that asks for more than
    `zsbir.base.limits` allows.
    """
    facts = stated_facts(path)
    with _opened(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a mapping
    with torch.device("meta"), naming(str(path)):
        wanted = {name: tuple(tensor.shape) for name, tensor in Encoder(**facts).state_dict().items()}
    wrong = sorted(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name))
    if wrong:
        raise InputError(f"{path} is not an encoder saved by zsbir: {len(wrong)} tensors differ, first {wrong[0][:200]!r}")
    return facts


def stated_facts(path: Path) -> dict[str, Any]:
    """Return backbone, embedding_dim and image_px as a file states them, without a look at its tensors.

    Raises InputError for a file that states none, or more than `zsbir.base.limits` allows.
    """
    if path.is_file() and path.stat().st_size > limits.ENCODER_BYTES:
        raise InputError(f"{path} is not an encoder saved by zsbir: it has more than {limits.ENCODER_BYTES} bytes")
    with _opened(path) as file:
        stated = EncoderFacts.of(dict(parse_json((file.metadata() or {})["zsbir"].encode())), where="its metadata")
        return stated.model_dump(exclude={"pooling"} if stated.pooling == "mean" else None)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file. Whatever is wrong with it or with what is read of it is one InputError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, InputError) as error:
        raise InputError(f"{path} is not an encoder saved by zsbir ({error})") from None


class EncoderFacts(Config):
    """The arguments that build an encoder, as its file holds them."""

    backbone: Backbone
    embedding_dim: int = Field(strict=True, ge=1, le=limits.EMBEDDING_DIM)
    image_px: int = Field(strict=True, ge=1, le=limits.IMAGE_PX)
    pooling: Pooling = "mean"
