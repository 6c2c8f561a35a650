"""Embeddings of a split by a trained encoder, as it is or with a change that needs no further training."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from zsbir.base.artifact import Artifact
from zsbir.data.loader import eval_batches
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.evaluation.embed import EMBED_BATCH, embed, embeddings_of
from zsbir.evaluation.statistics import STATISTICS_FILE
from zsbir.model.encoder import Encoder
from zsbir.retrieval.whitening import Domain, load_statistics
from zsbir.training.precision import autocast

CPU = torch.device("cpu")


def embedded(run: Artifact, split: str, domain: Domain, after: str) -> Float32[np.ndarray, "n d"]:
    """Return the embeddings of one domain's images. after: "", or a change.

    centred     the mean of the domain's training images is taken off
    batch_norm  batch normalisation with the statistics of the domain's training images
    """
    samples = load_samples(dataset := run.input("dataset", "dataset"))
    images = Images(dataset, samples)
    encoder = Encoder.load(run.verified("encoder.safetensors")).eval()
    if after == "batch_norm":
        take_statistics(encoder, images, samples.select(split="train", domain=domain))
    found = embed(
        embeddings_of(encoder),
        images,
        samples.select(split=split, domain=domain),
        image_px=encoder.image_px,
        device=CPU,
        autocast=autocast("auto", CPU),
    )
    if after == "centred":
        return load_statistics(run.verified(STATISTICS_FILE), encoder.embedding_dim).centred(found, domain)
    return found


def take_statistics(encoder: Encoder, images: Images, positions: np.ndarray) -> None:
    """Give batch normalisation the mean and variance of these images, each layer after those before it have theirs of a batch."""
    layers = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    mixed = np.random.default_rng(0).permutation(positions)
    with torch.inference_mode():
        for batch in eval_batches(images, mixed, encoder.image_px, EMBED_BATCH):
            encoder(batch)
    encoder.eval()
