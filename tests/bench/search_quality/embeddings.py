"""Trainings, and the embeddings of their images, each made once and kept."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from bench.experiments.rows import TEACHER, trained
from bench.search_quality.settings import DATASETS, TRAINING

from zsbir.base.artifact import Artifact
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.evaluation.embed import both_views, embed
from zsbir.evaluation.statistics import statistics_images
from zsbir.ingest import Settings as IngestSettings
from zsbir.ingest import ingest
from zsbir.ingestion.plan import IngestConfig
from zsbir.model.encoder import Encoder
from zsbir.recipes import changed_recipe
from zsbir.train import InputUris, Settings, train
from zsbir.training.computing import computing
from zsbir.training.precision import autocast
from zsbir.training_run.fitting import fitted


def trained_run(name: str, seed: int, given: argparse.Namespace) -> Artifact:
    """Return the run of a data set and a seed: found, or trained on train classes with the checkpoint chosen on dev classes.

    Where a setting of `bench.experiments` is given, it is trained as there: for unseen classes on the dev classes, too.
    """
    if given.training:
        weights = {TEACHER: given.weights}
        asked = argparse.Namespace(data=given.data, root=given.root, weights=weights, final=given.split == "unseen")
        return trained(name, given.training, seed, asked)
    folder = Path(given.data) / name
    config = IngestConfig(layout="folder", name=name, unseen_classes=(str(folder / DATASETS[name]),), dev_frac=0.25)
    dataset = ingest(config, str(folder), IngestSettings(root=given.root))
    inputs = InputUris(dataset=dataset.uri, weights=given.weights)
    where = Settings(root=given.root, tracking=False)
    changes = {**TRAINING, "seed": seed}
    return train(fitted(changed_recipe("folder", changes), changes, inputs, where), inputs, where)


def embeddings(run: Artifact, split: str, folder: Path) -> dict[str, np.ndarray]:
    """Return embeddings and labels of a split's sketches and photos, and of the training images that statistics are made of.

    Each row holds embedding and normalised pooled features, of the picture and, but for training images, of its mirror image.
    """
    file = folder / f"{run.uri.rpartition('/')[2]}-{split}.npz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(file, **_embedded(run, split))
    with np.load(file) as found:
        return dict(found)


def _embedded(run: Artifact, split: str) -> dict[str, np.ndarray]:
    dataset = run.input("dataset", "dataset")
    samples = load_samples(dataset)
    images = Images(dataset, samples)
    encoder = Encoder.load(run.verified("encoder.safetensors")).eval()

    def both(pixels: torch.Tensor) -> torch.Tensor:
        embedding, features, _ = encoder(pixels)
        return torch.cat([embedding, torch.nn.functional.normalize(features, dim=1)], dim=1)

    result = {}
    train_sketches, train_photos = statistics_images(samples)
    wanted = {
        "train_sketch": (train_sketches, both),
        "train_photo": (train_photos, both),
        "sketch": (samples.select(split=split, domain="sketch"), both_views(both)),
        "photo": (samples.select(split=split, domain="photo"), both_views(both)),
    }
    for name, (positions, forward) in wanted.items():
        with computing():
            result[name] = embed(
                forward,
                images,
                positions,
                image_px=encoder.image_px,
                device=torch.device("cpu"),
                autocast=autocast("auto", torch.device("cpu")),
                label=f"embed {name}",
            )
        result[f"{name}_labels"] = samples.class_id[positions]
    return result
