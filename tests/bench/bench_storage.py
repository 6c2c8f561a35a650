"""What object storage costs beside the local disk, with a real S3 server on this machine."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from servers.moto import moto_server
from servers.rgw import Unavailable, rgw_server

from zsbir.base.artifact import Artifact
from zsbir.data.loader import TrainLoader
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.ingest import IngestConfig, Settings, ingest
from zsbir.model.backbones import network_of
from zsbir.model.weights import open_weights, save_weights
from zsbir.recipes import recipe
from zsbir.storage_admin.copying import copy
from zsbir.teacher import Teacher, TeacherConfig, photo_chunks
from zsbir.training.context import LocalContext
from zsbir.training.inputs import TrainInputs
from zsbir.training.loop import Trainer, plan_training
from zsbir.training.precision import autocast

LABELS = tuple(str(number) for number in range(40))
CONFIG = recipe("caltech_qd60_r18").replace(weight_preservation=0.0, steps=100_000)


@pytest.fixture(scope="module", params=["moto", "rgw"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """The root of a storage in a server that runs in processes of its own."""
    try:
        with moto_server() if request.param == "moto" else rgw_server() as server, pytest.MonkeyPatch.context() as patch:
            for name, value in server.env.items():
                patch.setenv(name, value)
            yield f"s3://{server.new_bucket()}/bench"
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def on_disk(root: Path, shared_or_none: Path | None) -> Artifact:
    """Real photos and sketches where they are there; else drawn ones."""
    if shared_or_none is None:
        return ingest(IngestConfig(layout="toy", toy_px=192), "", Settings(root=str(root)))
    return ingest(IngestConfig(layout="folder", unseen_frac=0.2), str(shared_or_none), Settings(root=str(root)))


@pytest.fixture(scope="module")
def shared_or_none() -> Path | None:
    folder = Path(os.environ.get("ZSBIR_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data" / "caltech_qd60"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="module")
def in_store(on_disk: Artifact, store: str) -> Artifact:
    return Artifact(copy(on_disk.uri, store))


@pytest.fixture(scope="module")
def weights(root: Path) -> str:
    torch.manual_seed(0)
    return save_weights(network_of("resnet18").build(len(LABELS)).state_dict(), backbone="resnet18", labels=LABELS, root=root)[0]


@pytest.fixture
def new_cache(tmp_path, monkeypatch):
    """A function that leaves the cache behind."""
    numbers = itertools.count()
    return lambda: monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path / f"cache{next(numbers)}"))


def trainer_on(dataset: Artifact, weights: str, run: Path) -> Trainer:
    samples = load_samples(dataset)
    inputs = TrainInputs(samples, Images(dataset, samples), open_weights(weights, backbone="resnet18"))
    return Trainer(CONFIG, inputs, LocalContext(), run, log=lambda step, metrics: None)


def test_training_from_a_warm_cache_is_as_fast_as_from_disk(ratio, root, on_disk, in_store, weights):
    def steps_of(dataset: Artifact):
        trainer = trainer_on(dataset, weights, root / "run")
        batches = trainer.loader.batches()
        trainer._step(next(batches), 0)

        def steps() -> int:
            for step in range(4):
                trainer._step(next(batches), step)
            return 4 * CONFIG.batch_images

        return steps

    assert ratio("training, warm S3 over disk", steps_of(in_store), steps_of(on_disk), rounds=7) >= 0.98


def loader_of(dataset: Artifact) -> TrainLoader:
    samples, config = load_samples(dataset), CONFIG.replace(steps=200)
    plan = plan_training(config, samples, 1)
    return TrainLoader(samples, Images(dataset, samples), plan, config, image_px=config.image_px, seed=0)


def test_the_loader_alone_from_a_warm_cache_is_as_fast_as_from_disk(ratio, on_disk, in_store):
    """Without a network that hides it."""

    def work_of(dataset: Artifact):
        return lambda: sum(len(batch.images) for batch in itertools.islice(loader_of(dataset).batches(), 16))

    assert ratio("loader, warm S3 over disk", work_of(in_store), work_of(on_disk), rounds=5) >= 0.95


def test_a_cold_start_is_stated(in_store, on_disk, new_cache, capsys):
    """Seconds from nothing in the cache to the first batch, and to all shards being there."""
    rows = []
    for name, dataset in (("disk", on_disk), ("S3", in_store)):
        new_cache()
        began = time.perf_counter()
        loader = loader_of(dataset)
        next(loader.batches())
        first_s = time.perf_counter() - began
        for position in np.unique(loader.samples.shard, return_index=True)[1].tolist():
            loader.images.read(position)
        rows.append((name, first_s, time.perf_counter() - began))
    size_mb = sum(entry.size for name, entry in in_store.manifest.files.items() if name.startswith("shards/")) / 1e6
    with capsys.disabled():
        for name, first_s, all_s in rows:
            print(f"\ncold from {name}: first batch after {first_s:.2f} s, all {size_mb:.0f} MB after {all_s:.2f} s", end="")
        print()
    assert rows[1][2] < 60


def test_cold_training_against_disk_is_stated(ratio, root, on_disk, in_store, weights, new_cache):
    """The first 16 steps with nothing in the cache, over the same from disk, whose working copies are made anew too."""

    def work_of(dataset: Artifact):
        def work() -> int:
            new_cache()
            trainer = trainer_on(dataset, weights, root / "run")
            batches = trainer.loader.batches()
            for step in range(16):
                trainer._step(next(batches), step)
            return 16 * CONFIG.batch_images

        return work

    assert ratio("training, first 16 steps, cold S3 over cold disk", work_of(in_store), work_of(on_disk), rounds=3) >= 0.7


def test_the_teacher_on_object_storage_reaches_nine_tenths_of_the_bare_forward_pass(ratio, in_store, weights):
    teacher = Teacher(in_store.uri, weights, TeacherConfig(backbone="resnet18", image_px=192))
    chunks = photo_chunks(load_samples(in_store))[:4]
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
    assert ratio("teacher on S3", ours, bare, rounds=7) >= 0.9
