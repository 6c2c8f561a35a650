"""How long a training will take, measured by one pass over real images before its first step."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from zsbir.data.loader import TrainLoader
from zsbir.model.encoder import Encoder
from zsbir.training.config import TrainConfig
from zsbir.training.context import Context
from zsbir.training.precision import autocast

TIMED_IMAGES = 32
"""Images that are decoded and passed through the network to measure how long they take."""

EMBEDDING_SHARE = 1 / 3
"""Time to embed an image, as a share of the time to train on it: a forward pass without the backward one."""


def announcement(config: TrainConfig, loader: TrainLoader, encoder: Encoder, context: Context, *, done: int, scored: int) -> str:
    """Return what is about to be trained, and how long that takes, as a line.

    done: steps that were done before. scored: dev images that each evaluation embeds.
    """
    steps, device = len(loader.plan), context.device
    seconds = _expected_s(config, loader, encoder, device, done=done, scored=scored) / context.world_size
    threads = torch.get_num_threads()
    where = f"on {device}" if device.type == "cuda" else f"on the CPU with {threads} thread{'s' if threads > 1 else ''}"
    workers = f" in each of {context.world_size} workers" if context.world_size > 1 else ""
    return (
        f"{steps - done} steps of {config.batch_images} images, {config.classes_per_batch} classes in each, {config.backbone} at"
        f" {config.image_px} px {where}{workers}: {shown_minutes(seconds)}"
    )


def _expected_s(
    config: TrainConfig, loader: TrainLoader, encoder: Encoder, device: torch.device, *, done: int, scored: int
) -> float:
    """Return the seconds that the steps after `done` and their evaluations take in one process."""
    loader.first_images(done, TIMED_IMAGES)  # fetched from storage, perhaps; from now on they are at hand
    began = time.monotonic()
    images = loader.first_images(done, TIMED_IMAGES)
    decoding_s = (time.monotonic() - began) / len(images)
    training_s = seconds_per_image(encoder, images.to(device), autocast(config.precision, device))
    # A GPU trains while threads decode; on a CPU both want the same cores.
    together = max if device.type == "cuda" else sum
    steps, every = len(loader.plan), config.eval_every_steps
    evaluations = sum(step % every == 0 or step == steps for step in range(done + 1, steps + 1))
    trained_s = (steps - done) * config.batch_images * together((decoding_s, training_s))
    return trained_s + evaluations * scored * together((decoding_s, EMBEDDING_SHARE * training_s))


def seconds_per_image(encoder: nn.Module, images: UInt8[Tensor, "b 3 h w"], autocast: AbstractContextManager[object]) -> float:
    """Return how long a forward and a backward pass of an image take. Parameters and their gradients stay as they are."""
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    encoder.eval()  # batch statistics would change the encoder, and ask other workers for theirs
    elapsed_s = 0.0
    with autocast:
        for _ in range(2):  # the first pass also prepares kernels and memory
            began = time.monotonic()
            encoded = encoder(images)
            torch.autograd.grad(encoded.embeddings.float().sum() + encoded.features.float().sum(), parameters, allow_unused=True)
            if images.device.type == "cuda":
                torch.cuda.synchronize(images.device)
            elapsed_s = time.monotonic() - began
    return elapsed_s / len(images)


def shown_minutes(seconds: float) -> str:
    """Return a duration as people say it: "less than a minute", "about 6 min"."""
    return "less than a minute" if seconds < 50 else f"about {max(1, round(seconds / 60))} min"
