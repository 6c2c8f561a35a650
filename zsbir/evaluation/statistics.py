"""Statistics of a network's embeddings of its training images: a file of the run, or measured when a run has none.

Runs made before the file existed have none, and neither has a network that is no run's. A sample of the training images suffices
(docs/benchmarks/2026-11-30-search-quality.md); it is drawn by a stream of its own, so every measurement takes the same images.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Int

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.seeds import stream
from zsbir.data.domains import DOMAINS
from zsbir.data.samples import Samples, load_samples
from zsbir.data.shards import Images
from zsbir.evaluation.embed import Forward, check_finite, embed, embeddings_of
from zsbir.model.encoder import Encoder
from zsbir.retrieval.whitening import DomainStatistics, load_statistics, measure_statistics

STATISTICS_FILE = "statistics.safetensors"
"""The file of a run or an index that holds the statistics of its encoder."""

IMAGES_PER_DOMAIN = 1000
"""Training sketches, and training photos, that are embedded at most."""


def statistics_images(samples: Samples) -> tuple[Int[np.ndarray, "s"], Int[np.ndarray, "p"]]:
    """Return positions of the training sketches and photos to measure, ascending: all of them, or a sample drawn once for all.

    Raises InputError for a data set without training sketches or photos.
    """
    chosen = []
    for number, domain in enumerate(DOMAINS):
        positions = samples.select(split="train", domain=domain)
        if not len(positions):
            raise InputError(f"the data set has no training images of the kind {domain!r} to measure the network by")
        if len(positions) > IMAGES_PER_DOMAIN:
            positions = stream("training statistics", number).choice(positions, IMAGES_PER_DOMAIN, replace=False)
        chosen.append(np.sort(positions))
    sketches, photos = (chosen[DOMAINS.index(domain)] for domain in ("sketch", "photo"))
    return sketches, photos


def measured(
    output: Forward,
    samples: Samples,
    images: Images,
    *,
    image_px: int,
    device: torch.device,
    autocast: AbstractContextManager[object] | None = None,
    alone: bool = False,
) -> DomainStatistics:
    """Measure a network by the training images of a data set; output: from images to embeddings.

    alone: this worker does it all, where others of its group do not come along. Raises InputError for embeddings that are NaN or
    infinite.
    """
    sketches, photos = statistics_images(samples)
    positions = np.concatenate([sketches, photos])
    vectors = embed(
        output, images, positions, image_px=image_px, device=device, autocast=autocast, label="measure training images", alone=alone
    )
    check_finite(vectors, "the model")
    labels, count = samples.class_id, len(sketches)
    return measure_statistics(vectors[:count], labels[sketches], vectors[count:], labels[photos])


def run_statistics(
    run: Artifact, encoder: Encoder, device: torch.device, autocast: AbstractContextManager[object] | None = None
) -> DomainStatistics:
    """Return the statistics of a run's encoder: of its file, else measured by the run's data set.

    encoder: on `device`, not in training mode. Raises InputError where there is no file and the data set is gone.
    """
    if STATISTICS_FILE in run.manifest.files:
        return load_statistics(run.verified(STATISTICS_FILE), encoder.embedding_dim)
    dataset = run.input("dataset", "dataset")
    samples = load_samples(dataset)
    return measured(
        embeddings_of(encoder), samples, Images(dataset, samples), image_px=encoder.image_px, device=device, autocast=autocast
    )
