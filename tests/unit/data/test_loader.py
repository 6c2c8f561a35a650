from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.augmentation import Augmentation
from zsbir.data.batches import plan_batches
from zsbir.data.domains import DOMAINS
from zsbir.data.images import eval_image
from zsbir.data.loader import TrainLoader, eval_batches
from zsbir.data.samples import Samples, load_samples
from zsbir.data.schema import shard_name
from zsbir.data.shards import Images
from zsbir.ingest import IngestConfig, Settings, ingest


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    config = IngestConfig(layout="toy", toy_photos_per_class=3, toy_sketches_per_class=3, toy_px=40)
    return ingest(config, "", Settings(root=str(tmp_path_factory.mktemp("root"))))


@pytest.fixture(scope="module")
def samples(dataset: Artifact) -> Samples:
    return load_samples(dataset)


@pytest.fixture
def images(dataset: Artifact, samples: Samples) -> Images:
    return Images(dataset, samples)


def loader(samples: Samples, images: Images, **changes: int) -> TrainLoader:
    positions = samples.select(split="train")
    plan = plan_batches(samples, positions, classes_per_batch=4, per_class=2, steps=6, seed=3)
    return TrainLoader(samples, images, plan, Augmentation(), image_px=32, seed=3, **changes)


def test_one_epoch_is_the_same_for_any_number_of_threads(samples, images):
    one, four = (list(loader(samples, images, threads=threads).batches()) for threads in (1, 4))
    assert len(one) == len(four) == 6
    for ours, theirs in zip(one, four, strict=True):
        assert ours.images.equal(theirs.images)
        assert ours.class_id.equal(theirs.class_id)


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_together_see_the_one_global_batch(samples, images, workers):
    whole = list(loader(samples, images).batches())
    parts = [list(loader(samples, images, rank=rank, world_size=workers).batches()) for rank in range(workers)]
    for step, batch in enumerate(whole):
        assert torch.cat([part[step].images for part in parts]).equal(batch.images)
        assert torch.cat([part[step].domain for part in parts]).equal(batch.domain)


def test_a_resumed_loader_goes_on_with_the_same_images(samples, images):
    whole, rest = list(loader(samples, images).batches()), list(loader(samples, images).batches(first_step=4))
    assert len(rest) == 2
    assert all(ours.images.equal(theirs.images) for ours, theirs in zip(whole[4:], rest, strict=True))


def test_an_image_that_comes_again_is_augmented_anew(samples, images):
    batches = list(loader(samples, images).batches())
    assert not any(batches[0].images.equal(other.images) for other in batches[1:])
    domains = torch.cat([batch.domain for batch in batches])
    assert set(domains.tolist()) == set(range(len(DOMAINS)))


def test_evaluation_batches_are_the_stored_images_in_order(samples, images):
    positions = samples.select(split="unseen")[::-1].copy()
    found = torch.cat(list(eval_batches(images, positions, 32, batch_images=5, threads=3)))
    expected = np.stack([eval_image(images.read(int(position)), 32) for position in positions])
    assert found.numpy().tobytes() == expected.tobytes()


def test_a_damaged_shard_is_refused_by_name(dataset, samples, tmp_path, monkeypatch):
    monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path))
    file = dataset.path / shard_name(0)
    whole = file.read_bytes()
    file.write_bytes(whole[:-100] + bytes(100))
    try:
        with pytest.raises(InputError, match=r"part-00000\.parquet differs from its manifest"):
            Images(dataset, samples).read(0)
    finally:
        file.write_bytes(whole)


def test_the_working_copy_is_made_once_and_holds_the_same_bytes(dataset, samples, tmp_path, monkeypatch):
    monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path))
    first = [Images(dataset, samples).read(position) for position in range(len(samples))]
    copies = list(Path(tmp_path).rglob("*.arrow"))
    assert len(copies) == 1
    made = copies[0].stat().st_mtime_ns
    assert [Images(dataset, samples).read(position) for position in range(len(samples))] == first
    assert copies[0].stat().st_mtime_ns == made
    assert not [
        path for path in Path(tmp_path).rglob("*") if path.is_file() and path.suffix != ".arrow" and path.parent.name != "locks"
    ]
