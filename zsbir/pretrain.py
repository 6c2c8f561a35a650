"""Nothing in, a pre-trained classifier out: stands in for ImageNet's where nothing may be downloaded (the demo, the tests).

    python -m zsbir.pretrain

Draws photos of toy objects that the toy data set does not have, and teaches a small network to name them. What comes out is a
weight file like any other: teacher and train take it as --weights. About a minute on two CPU cores. Prints the file's path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from pydantic import Field
from torch import Tensor, nn

from zsbir.base import cli, events
from zsbir.base.artifact import Artifact, draft, exists
from zsbir.base.config import Config
from zsbir.base.fetch import fetch
from zsbir.base.layout import pretrained_uri
from zsbir.base.storage import default_root
from zsbir.model.encoder import Backbone, Normalise, build_trunk
from zsbir.model.weights import save_weights
from zsbir.toys.draw import PRETEXT_CLASSES, draw_pretext
from zsbir.training.config import Precision
from zsbir.training.context import default_device
from zsbir.training.precision import autocast


class PretrainConfig(Config):
    """What decides the weights."""

    backbone: Backbone = Field("resnet18", description="torchvision network to train from scratch")
    image_px: int = Field(64, ge=16, description="side of the photos, pixels")
    photos_per_class: int = Field(60, ge=4, description="photos drawn of each class; a quarter as many more to test on")
    epochs: int = Field(5, ge=1, description="passes over the photos")
    batch_images: int = Field(64, ge=2, description="photos a step")
    lr: float = Field(2e-3, gt=0, description="peak learning rate")
    precision: Precision = Field("auto", description="autocast")
    seed: int = Field(0, ge=0, description="seed of photos, initialisation and order")


class Settings(Config):
    """Where it runs."""

    root: str = Field(default_factory=default_root, description="storage root, also ZSBIR_ROOT")


Photos = tuple[UInt8[Tensor, "n 3 h w"], Int64[Tensor, "n"]]


def pretrain(config: PretrainConfig, settings: Settings) -> Artifact:
    """The artifact whose `weights.safetensors` is the trained classifier; the one already made where there is one."""
    digest = config.fingerprint()
    uri = pretrained_uri(settings.root, digest)
    if exists(uri):
        return Artifact(uri, "weights")
    train, test = draw_photos(config, config.photos_per_class, 0), draw_photos(config, config.photos_per_class // 4, 1)
    network = _fit(config, train)
    accuracy = _accuracy(network, test, config)
    events.say(f"names {accuracy:.0%} of new photos of its {len(PRETEXT_CLASSES)} classes (chance {1 / len(PRETEXT_CLASSES):.0%})")
    with draft(uri, "weights", f"pretext-{config.backbone}") as work:
        state = {name.removeprefix("1."): value.cpu() for name, value in network.state_dict().items() if name.startswith("1.")}
        kept, sha256 = save_weights(state, backbone=config.backbone, labels=PRETEXT_CLASSES, root=settings.root)
        work.file("weights.safetensors").write_bytes(fetch(kept).read_bytes())
        return work.commit(digest=digest, config=config, facts={"accuracy": accuracy, "weights_sha256": sha256})


def draw_photos(config: PretrainConfig, per_class: int, part: int) -> Photos:
    """`per_class` photos of each pretext class; different parts share no drawing."""
    items = [(label, number) for label in range(len(PRETEXT_CLASSES)) for number in range(per_class)]
    pixels = []
    for label, number in events.track(items, "draw pretext photos", total=len(items), unit="photo"):
        rng = np.random.default_rng([config.seed, part, label, number])
        pixels.append(np.asarray(draw_pretext(PRETEXT_CLASSES[label], rng, config.image_px).convert("RGB")).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(pixels)), torch.tensor([label for label, _ in items])


def _fit(config: PretrainConfig, photos: Photos) -> nn.Module:
    torch.manual_seed(config.seed)
    device = default_device()
    network = nn.Sequential(Normalise(), build_trunk(config.backbone, len(PRETEXT_CLASSES)).to(memory_format=torch.channels_last))
    network.to(device).train()
    steps = config.epochs * (len(photos[0]) // config.batch_images)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=steps)
    with events.Progress("pretrain", total=steps, unit="step") as progress:
        for images, labels in _batches(config, photos):
            with autocast(config.precision, device):
                logits = network(images.to(device))
            loss = nn.functional.cross_entropy(logits.float(), labels.to(device), label_smoothing=0.1)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            progress.advance(1, f"loss {loss.item():.3f}")
    return network.eval()


def _batches(config: PretrainConfig, photos: Photos) -> Iterator[Photos]:
    """Every epoch in a new order, each photo flipped and shifted by chance."""
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


@torch.inference_mode()
def _accuracy(network: nn.Module, photos: Photos, config: PretrainConfig) -> float:
    device, right = default_device(), 0
    for images, labels in zip(photos[0].split(config.batch_images), photos[1].split(config.batch_images), strict=True):
        with autocast(config.precision, device):
            right += int((network(images.to(device)).argmax(dim=1).cpu() == labels).sum())
    return right / len(photos[1])


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.pretrain", __doc__ or "")
    parser.add_config_file()
    parser.add_fields(PretrainConfig, title="pre-training")
    parser.add_fields(Settings, title="where it runs")
    _, values = parser.values(argv)
    config, settings = cli.split_fields(values, PretrainConfig, Settings)
    return pretrain(PretrainConfig.of(config), Settings.of(settings)).address("weights.safetensors")


if __name__ == "__main__":
    cli.main(_parse)
