"""What the pipeline adds to the bare work of the network, the decoder and the matrix product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from zsbir.base.artifact import Artifact
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.evaluation.metrics import evaluate_embeddings
from zsbir.ingest import IngestConfig, Settings, ingest
from zsbir.model.backbones import network_of
from zsbir.model.weights import load_weights, save_weights
from zsbir.recipes import recipe
from zsbir.teacher import Teacher, TeacherConfig, photo_chunks
from zsbir.training.context import LocalContext
from zsbir.training.inputs import TrainInputs
from zsbir.training.loop import Trainer
from zsbir.training.precision import autocast

LABELS = tuple(str(number) for number in range(40))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def dataset(root: Path) -> Artifact:
    return ingest(IngestConfig(layout="toy", toy_px=192), "", Settings(root=str(root)))


@pytest.fixture(scope="module")
def weights(root: Path) -> str:
    torch.manual_seed(0)
    state = network_of("resnet18").build(len(LABELS)).state_dict()
    return str(save_weights(state, backbone="resnet18", labels=LABELS, root=root)[0])


def test_training_costs_little_beside_the_bare_step(ratio, root, dataset, weights):
    """Decoding, augmentation, planning, losses and bookkeeping against forward, backward and optimiser on one fixed batch."""
    samples = load_samples(dataset)
    config = recipe("caltech_qd60_r18").replace(weight_preservation=0.0, steps=100_000)
    inputs = TrainInputs(samples, Images(dataset, samples), load_weights(weights, backbone="resnet18", root=root))
    trainer = Trainer(config, inputs, LocalContext(), root / "run", log=lambda step, metrics: None)
    batches = trainer.loader.batches()
    fixed = next(batches)

    def ours() -> int:
        for step in range(4):
            trainer._step(next(batches), step)
        return 4 * config.batch_images

    def bare() -> int:
        for _ in range(4):
            with autocast(config.precision, trainer.context.device):
                embeddings = trainer.encoder(fixed.images).embeddings
            trainer.optimiser.zero_grad(set_to_none=True)
            embeddings.square().sum().backward()
            trainer.optimiser.step()
        return 4 * config.batch_images

    bare()
    assert ratio("training", ours, bare) >= 0.85


def test_the_teacher_reaches_nine_tenths_of_the_bare_forward_pass(ratio, dataset, weights):
    teacher = Teacher(dataset.uri, weights, TeacherConfig(backbone="resnet18", image_px=192))
    chunks = photo_chunks(load_samples(dataset))[:4]
    fixed = torch.zeros(len(chunks[0]), 3, 192, 192, dtype=torch.uint8)

    def ours() -> int:
        list(teacher.sums(chunks))
        return sum(map(len, chunks))

    def bare() -> int:
        with torch.inference_mode(), autocast("auto", teacher.device):
            for _ in chunks:
                teacher.network(fixed)
        return sum(map(len, chunks))

    bare()
    assert ratio("teacher", ours, bare) >= 0.9


def test_all_metrics_cost_at_most_four_times_the_matrix_product(ratio):
    """Against torch's float32 product of the same embeddings, 1,000 x 20,000 x 512."""
    rng = np.random.default_rng(0)
    queries, gallery = (rng.standard_normal((count, 512)).astype(np.float32) for count in (1000, 20_000))
    queries, gallery = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (queries, gallery))
    query_labels, gallery_labels = rng.integers(0, 30, 1000), rng.integers(0, 30, 20_000)
    ours_q, ours_g = torch.from_numpy(queries), torch.from_numpy(gallery).T.contiguous()

    def ours() -> int:
        evaluate_embeddings(queries, query_labels, gallery, gallery_labels)
        return 1000

    def bare() -> int:
        for start in range(0, 1000, 100):
            ours_q[start : start + 100] @ ours_g
        return 1000

    assert ratio("metrics", ours, bare, rounds=3) >= 0.25
