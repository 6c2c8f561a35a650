"""Train a small classifier on drawn photos: nothing in, a weight file out.

    python -m zsbir.pretrain

Draws photos of toy objects that the toy data set does not have, and trains a small network to classify them: the demo and the tests
use it in place of an ImageNet classifier. The result is a weight file like any other; teacher and train take it as --weights. Costs
about a minute on two CPU cores. Prints the file's path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from jaxtyping import Int64, UInt8
from pydantic import Field

from zsbir.base import cli, events, limits, watch
from zsbir.base.artifact import Artifact, exists
from zsbir.base.config import Config
from zsbir.base.draft import draft
from zsbir.base.errors import PermanentError
from zsbir.base.fetch import fetch
from zsbir.base.layout import pretrained_uri
from zsbir.base.seeds import stream
from zsbir.base.storage import default_root
from zsbir.model.choices import Backbone
from zsbir.toys.draw import PRETEXT_CLASSES, draw_pretext
from zsbir.training.config import Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

    Photos: TypeAlias = tuple[UInt8[Tensor, "n 3 h w"], Int64[Tensor, "n"]]
    """Images and the position of each one's class in PRETEXT_CLASSES."""


class PretrainConfig(Config):
    """What decides the weights that come out."""

    backbone: Backbone = Field("resnet18", description="network to train from scratch: of torchvision, timm:NAME, or of a package")
    image_px: int = Field(64, ge=16, le=limits.IMAGE_PX, description="side of the photos, pixels")
    photos_per_class: int = Field(60, ge=4, description="photos drawn of each class to train on; a quarter as many more to test on")
    epochs: int = Field(5, ge=1, description="passes over the photos")
    batch_images: int = Field(64, ge=2, description="photos in each optimiser step")
    lr: float = Field(2e-3, gt=0, description="peak learning rate")
    precision: Precision = Field("auto", description="autocast of the forward pass; auto: bf16 where the hardware gains by it")
    seed: int = Field(0, ge=0, description="seed of the photos, the initialisation and the order of training")


class Settings(Config):
    """Where the weights are stored."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")


def pretrain(config: PretrainConfig, settings: Settings) -> Artifact:
    """Return the artifact whose `weights.safetensors` is the trained classifier; an existing one is found, not made again.

    Raises PermanentError when training diverges.
    """
    from zsbir.model.weights import save_weights
    from zsbir.training.computing import computing

    digest = config.fingerprint()
    uri = pretrained_uri(settings.root, digest)
    if exists(uri):
        watch.record_found(uri)
        return Artifact(uri, "weights")
    train, test = draw_photos(config, config.photos_per_class, 0), draw_photos(config, config.photos_per_class // 4, 1)
    with computing():
        network = _fit(config, train)
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise PermanentError(f"training has diverged: the weights are not finite; lower --lr (now {config.lr})")
    accuracy = _accuracy(network, test, config)
    chance = 1 / len(PRETEXT_CLASSES)
    events.say(f"classifies {accuracy:.0%} of new photos of its {len(PRETEXT_CLASSES)} classes correctly (chance {chance:.0%})")
    with draft(uri, "weights", f"pretext-{config.backbone}") as work:
        state = {name.removeprefix("1."): value.cpu() for name, value in network.state_dict().items() if name.startswith("1.")}
        kept, sha256 = save_weights(state, backbone=config.backbone, labels=PRETEXT_CLASSES, root=settings.root)
        work.file("weights.safetensors").write_bytes(fetch(kept).read_bytes())
        return work.commit(digest=digest, config=config, facts={"accuracy": accuracy, "weights_sha256": sha256})


def draw_photos(config: PretrainConfig, per_class: int, part: int) -> Photos:
    """Draw `per_class` photos of each pretext class; different parts share no drawing."""
    import torch

    items = [(label, number) for label in range(len(PRETEXT_CLASSES)) for number in range(per_class)]
    pixels = []
    for label, number in events.track(items, "draw pretext photos", total=len(items), unit="photo"):
        rng = stream("pretext photo", config.seed, part, label, number)
        pixels.append(np.asarray(draw_pretext(PRETEXT_CLASSES[label], rng, config.image_px).convert("RGB")).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(pixels)), torch.tensor([label for label, _ in items])


def _fit(config: PretrainConfig, photos: Photos) -> nn.Module:
    import torch
    from torch import nn

    from zsbir.model.backbones import network_of
    from zsbir.model.encoder import Normalise
    from zsbir.training.context import default_device
    from zsbir.training.precision import autocast

    torch.manual_seed(config.seed)
    device = default_device()
    kind = network_of(config.backbone)
    whole = kind.build(len(PRETEXT_CLASSES)).to(memory_format=torch.channels_last)
    network = nn.Sequential(Normalise(kind.mean, kind.std), whole)
    network.to(device).train()
    steps = config.epochs * (len(photos[0]) // config.batch_images)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=steps)
    with events.Progress("pretrain", total=steps, unit="step") as progress:
        for images, labels in _batches(config, photos):
            with autocast(config.precision, device):
                logits = network(images.to(device))
            loss = nn.functional.cross_entropy(logits.float(), labels.to(device), label_smoothing=0.1)
            if not np.isfinite(loss.item()):
                raise PermanentError(f"the training diverged, its loss is {loss.item()}: pass a lower --lr (now {config.lr:g})")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            progress.advance(1, f"loss {loss.item():.3f}")
    return network.eval()


def _batches(config: PretrainConfig, photos: Photos) -> Iterator[Photos]:
    """Yield the photos of every epoch in a new order, each flipped and shifted at random."""
    import torch

    random = torch.Generator().manual_seed(config.seed)
    for _ in range(config.epochs):
        for chosen in torch.randperm(len(photos[0]), generator=random).split(config.batch_images):
            if len(chosen) < config.batch_images:
                continue
            images = photos[0][chosen]
            shift = torch.randint(-config.image_px // 10, config.image_px // 10 + 1, (2,), generator=random).tolist()
            images = images.roll(shift, dims=(2, 3))
            flip = torch.rand(len(chosen), generator=random) < 0.5
            yield torch.where(flip[:, None, None, None], images.flip(3), images), photos[1][chosen]


def _accuracy(network: nn.Module, photos: Photos, config: PretrainConfig) -> float:
    import torch

    from zsbir.training.context import default_device
    from zsbir.training.precision import autocast

    device, right = default_device(), 0
    batches = zip(photos[0].split(config.batch_images), photos[1].split(config.batch_images), strict=True)
    with torch.inference_mode(), autocast(config.precision, device):
        for images, labels in batches:
            right += int((network(images.to(device)).argmax(dim=1).cpu() == labels).sum())
    return right / len(photos[1])


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.pretrain", __doc__ or "")
    parser.add_config_file()
    parser.add_fields(PretrainConfig, title="pre-training")
    parser.add_fields(Settings, title="where it is stored")
    _, values = parser.values(argv)
    config, settings = cli.split_fields(values, PretrainConfig, Settings)
    return pretrain(PretrainConfig.of(config), Settings.of(settings)).address("weights.safetensors")


if __name__ == "__main__":
    cli.main(_parse)
