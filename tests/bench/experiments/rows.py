"""One row: a training, found or made, and what its encoder is worth on classes that it was not trained on."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from bench.experiments.after import embedded
from bench.experiments.settings import DATASETS, SETTINGS
from jaxtyping import Float, Int

from zsbir.base.artifact import Artifact
from zsbir.data.samples import load_samples
from zsbir.evaluation.metrics import evaluate_embeddings
from zsbir.evaluation.statistics import STATISTICS_FILE
from zsbir.ingest import Settings as IngestSettings
from zsbir.ingest import ingest
from zsbir.ingestion.plan import IngestConfig
from zsbir.model.weights import load_weights
from zsbir.recipes import changed_recipe
from zsbir.retrieval.options import SearchOptions
from zsbir.retrieval.prepared import prepare_gallery
from zsbir.retrieval.whitening import load_statistics
from zsbir.teacher import Settings as TeacherSettings
from zsbir.teacher import TeacherConfig, teach
from zsbir.train import InputUris, Settings, train
from zsbir.training.computing import computing
from zsbir.training.requirements import needs_distributions, needs_mean_features

TEACHER = "resnet18"


def result(dataset: str, setting: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Train, unless that was done, and score. Return what belongs into the ledger."""
    began = time.monotonic()
    run = trained(dataset, setting, seed, given)
    trained_min = (time.monotonic() - began) / 60
    scores = scored(run, "unseen" if given.final else "dev", SETTINGS[setting].after)
    return {
        "run": run.uri.rpartition("/")[2],
        **scores,
        "train_min": round(trained_min, 2),
        "minutes": round((time.monotonic() - began) / 60, 2),
    }


def trained(name: str, setting: str, seed: int, given: argparse.Namespace) -> Artifact:
    """Return the run of a setting."""
    folder = f"{given.data}/{name}"
    plan = IngestConfig(layout="folder", name=name, unseen_classes=(f"{folder}/{DATASETS[name]}",), dev_frac=0.25)
    dataset = ingest(plan, folder, IngestSettings(root=given.root))
    chosen = SETTINGS[setting]
    changes = {**chosen.changes, "seed": seed, "train_on_dev": given.final}
    if "sake" in changes.get("losses", ()):
        changes["sake_teacher"] = load_weights(given.weights[TEACHER], backbone=TEACHER, root=given.root).uri
    config = changed_recipe(chosen.recipe, changes)
    knowledge = ""
    if needs_distributions(config) or needs_mean_features(config):
        teacher = TeacherConfig(
            backbone=TEACHER, weights=given.weights[TEACHER], image_px=config.image_px, mean_features=True, **chosen.teacher
        )
        knowledge = teach(dataset.uri, teacher, TeacherSettings(root=given.root)).uri
    inputs = InputUris(dataset=dataset.uri, knowledge=knowledge, weights=given.weights[config.backbone])
    return train(config, inputs, Settings(root=given.root, tracking=False))


def scored(run: Artifact, split: str, after: str) -> dict[str, Any]:
    """Return mAP@all of sketches against photos, plain and with the default search options, and of photos against the other photos.

    Each by class, too, so that intervals over classes can be computed later.
    """
    samples = load_samples(run.input("dataset", "dataset"))
    of_sketch, of_photo = (samples.class_id[samples.select(split=split, domain=domain)] for domain in ("sketch", "photo"))
    with computing():
        queries, gallery = (embedded(run, split, domain, after) for domain in ("sketch", "photo"))
    statistics = load_statistics(run.verified(STATISTICS_FILE), queries.shape[1])
    prepared = prepare_gallery(gallery, SearchOptions(flip=False), statistics)
    values = {
        "map_all": evaluate_embeddings(queries, of_sketch, gallery, of_photo).per_query["map_all"],
        "expanded": evaluate_embeddings(prepared.queries(queries), of_sketch, prepared.vectors, of_photo).per_query["map_all"],
        "photo_to_photo": among_themselves(gallery, of_photo),
    }
    labels = {"map_all": of_sketch, "expanded": of_sketch, "photo_to_photo": of_photo}
    classes = np.unique(of_photo)
    means = {name: [round(float(value[labels[name] == each].mean()), 6) for each in classes] for name, value in values.items()}
    return {
        **{name: float(value.mean()) for name, value in values.items()},
        "classes": [samples.class_names[each] for each in classes],
        "class_queries": [int((of_sketch == each).sum()) for each in classes],
        "class_photos": [int((of_photo == each).sum()) for each in classes],
        "class_means": means,
    }


def among_themselves(rows: Float[np.ndarray, "n d"], labels: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Return the average precision of each image as a query among all others."""
    similar = rows @ rows.T
    np.fill_diagonal(similar, -np.inf)
    order = np.argsort(-similar, axis=1, kind="stable")[:, :-1]
    right = labels[order] == labels[:, None]
    precision = np.cumsum(right, axis=1) / np.arange(1, len(rows))
    found: Float[np.ndarray, "n"] = (precision * right).sum(axis=1) / right.sum(axis=1)
    return found
