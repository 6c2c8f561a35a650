"""Models that a promotion can judge, as good as a test wants them, without a training; and MLflow stores to register them in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from zsbir.model.encoder import Encoder

SPREAD = ("--seed-spread", "0.01")
"""How far seeds spread: these models have no training whose seeds could be tried."""


@dataclass(frozen=True)
class Made:
    """A model with what promotes it."""

    run: str
    report: str
    index: str


@pytest.fixture(scope="session")
def mlflow_database_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them, to be copied: to make one takes seconds."""
    from zsbir.edge.tracking import prepare_store

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    prepare_store(f"sqlite:///{file}", "zsbir")
    return file


@pytest.fixture(scope="session")
def separable(run: str, dataset: str) -> Callable[[float, int], Encoder]:
    """A function that makes encoders as good as one likes: a linear layer fitted to the very classes they are asked for.

    That is cheating, and costs no training. share: how much of the layer is that fit, the rest is random.
    """
    import torch

    from zsbir.base.artifact import Artifact
    from zsbir.data.samples import load_samples
    from zsbir.data.shards import Images
    from zsbir.evaluation.embed import embed, features_of
    from zsbir.model.encoder import Encoder

    opened = Artifact(dataset, "dataset")
    samples = load_samples(opened)
    places = samples.select(split="unseen")
    encoder = Encoder.load(Artifact(run).file("encoder.safetensors")).eval()
    features = embed(features_of(encoder), Images(opened, samples), places, image_px=encoder.image_px, device=torch.device("cpu"))
    classes = np.unique(samples.class_id[places], return_inverse=True)[1]
    targets = np.eye(encoder.embedding_dim)[classes]
    fit = np.linalg.lstsq(features.astype(np.float64), targets, rcond=1e-6)[0].T

    def make(share: float, seed: int) -> Encoder:
        noise = np.random.default_rng(seed).normal(size=fit.shape)
        layer = share * fit / np.linalg.norm(fit) + (1 - share) * noise / np.linalg.norm(noise)
        with torch.no_grad():
            encoder.embedding.weight.copy_(torch.from_numpy(layer.astype(np.float32)))
        return encoder

    return make


@pytest.fixture(scope="session")
def make(run: str, pipeline_root: Path, separable: Callable[[float, int], Encoder]) -> Callable[..., Made]:
    """A function that makes a run with an encoder of that worth, its report and its index, by the real verbs.

    config: of the run, in place of that of the pipeline's own run with another seed.
    """
    from zsbir import evaluate, index
    from zsbir.base.artifact import Artifact
    from zsbir.base.config import digest_of
    from zsbir.base.draft import draft

    base, done = Artifact(run, "run"), {}

    def made(name: str, share: float, seed: int = 0, config: Mapping[str, Any] | None = None) -> Made:
        if name not in done:
            with draft(pipeline_root / "runs" / f"toy-{name}", "run", "toy") as work:
                separable(share, seed).save(work.file("encoder.safetensors"))
                facts = base.manifest
                candidate = work.commit(digest=digest_of(name), inputs=facts.inputs, counts=facts.counts).uri
                assert candidate
            configure(candidate, config or {**base.manifest.config, "seed": seed})
            root = ["--root", str(pipeline_root)]
            report = evaluate._parse([candidate, "--no-tracking", "--grid-rows", "1", "--precision", "fp32", *root])
            done[name] = Made(candidate, report, index._parse([candidate, "--precision", "fp32", *root]))
        return done[name]

    return made


def configure(uri: str, config: Mapping[str, Any]) -> None:
    """Put a configuration into the manifest of an artifact on disk."""
    file = Path(uri, "manifest.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "config": dict(config)}))


@pytest.fixture(scope="session")
def fair(make: Callable[..., Made]) -> Made:
    return make("fair", 0.55)


@pytest.fixture(scope="session")
def good(make: Callable[..., Made]) -> Made:
    return make("good", 0.75)


@pytest.fixture(scope="session")
def bad(make: Callable[..., Made]) -> Made:
    return make("bad", 0.0, 3)
