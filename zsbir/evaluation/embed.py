"""Images to embeddings under the one evaluation transform: for dev in training, reports, indexes and search alike."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor, nn

from zsbir.base.errors import InputError
from zsbir.base.events import Progress
from zsbir.data.loader import eval_batches
from zsbir.data.shards import Images

EMBED_BATCH = 64
"""Images a forward pass. Fixed, so that an embedding does not depend on the batch size of its caller."""

Forward = Callable[[UInt8[Tensor, "b 3 h w"]], Float[Tensor, "b d"]]


def embed(
    forward: Forward,
    images: Images,
    positions: Int[np.ndarray, "n"],
    *,
    image_px: int,
    device: torch.device,
    autocast: AbstractContextManager[object] | None = None,
    label: str = "",
    threads: int = 0,
    alone: bool = False,
) -> Float[np.ndarray, "n d"]:
    """Return unit embeddings (float32) of the images at `positions`, in that order.

    In a torch.distributed group the batches are dealt out and every worker returns all of them; with `alone` the caller embeds all
    of them by itself. With a `label`, progress is shown, with `alone` to who started this process but not to who follows it.
    """
    grouped = not alone and dist.is_available() and dist.is_initialized()
    rank, workers = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
    starts = range(rank * EMBED_BATCH, len(positions), workers * EMBED_BATCH)
    mine = [positions[start : start + EMBED_BATCH] for start in starts]
    order = np.concatenate(mine) if mine else positions[:0]
    parts: list[Float[np.ndarray, "_ d"]] = []
    with (
        torch.inference_mode(),
        autocast or nullcontext(),
        Progress(label, total=len(order), unit="image", quiet=not label, aside=alone) as progress,
    ):
        for batch in eval_batches(images, order, image_px, EMBED_BATCH, threads):
            parts.append(forward(batch.to(device)).float().cpu().numpy())
            progress.advance(len(batch))
    return parts_of_all(parts, workers)


def check_finite(vectors: Float[np.ndarray, "n d"], model: str) -> None:
    """Raise InputError where embeddings are NaN or infinite: they can be neither ranked nor compared."""
    bad = int((~np.isfinite(vectors).all(axis=1)).sum())
    if bad:
        raise InputError(
            f"{bad} of {len(vectors)} embeddings of {model} are NaN or infinite: its weights overflow in this precision; pass"
            " --precision fp32, or train again with a lower learning rate"
        )


def parts_of_all(parts: list[Float[np.ndarray, "_ d"]], workers: int) -> Float[np.ndarray, "n d"]:
    """Gather the batches of all workers, which were dealt out in turn, into one array in their common order."""
    if workers == 1:
        return np.concatenate(parts)
    hands: list[list[Float[np.ndarray, "_ d"]]] = [[] for _ in range(workers)]
    dist.all_gather_object(hands, parts)
    rounds = max(len(hand) for hand in hands)
    return np.concatenate([hand[turn] for turn in range(rounds) for hand in hands if turn < len(hand)])


def embeddings_of(encoder: nn.Module) -> Forward:
    """Return a function from images to the retrieval embeddings of an Encoder."""
    return lambda images: encoder(images)[0]


def features_of(encoder: nn.Module) -> Forward:
    """Return a function from images to normalised pooled features: the frozen pre-trained backbone as a retrieval model."""
    return lambda images: nn.functional.normalize(encoder(images)[1], dim=1)


def embed_views(encoder: nn.Module, images: UInt8[Tensor, "b 3 h w"], *, flip: bool) -> Float32[np.ndarray, "b d"]:
    """Return the embeddings of images as an index holds them; with `flip`, of each image and its mirror image the mean."""
    from zsbir.retrieval.prepared import mean_of_views  # loads the scan, which a training does not need

    output = embeddings_of(encoder)
    found: np.ndarray = (both_views(output) if flip else output)(images).float().cpu().numpy()
    return mean_of_views(found) if flip else found


def both_views(output: Forward) -> Forward:
    """Return a function from images to two embeddings, one after the other: of the images and of their mirror images (b x 2d)."""
    return lambda images: torch.cat([output(images), output(images.flip(-1))], dim=1)
