"""What scores mean, measured of a network on a whole data set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from zsbir import train
from zsbir.base.artifact import Artifact
from zsbir.data.domains import SPLITS
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.evaluation.calibration import MEASURED, calibration_images, measured_calibrations
from zsbir.evaluation.embed import embed
from zsbir.retrieval.calibration import Calibration, HitProbability, calibrations_of
from zsbir.retrieval.options import PLAIN
from zsbir.retrieval.whitening import measure_statistics
from zsbir.training_run import worker

PX, CPU = 16, torch.device("cpu")


def pixels(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1).float()


@pytest.fixture(scope="module")
def data(dataset: str):
    """The drawn data set with half of its training classes as dev classes, its images, and a network that knows its dev classes.

    It is fitted to the very images that it is asked about, so that it is surely better than guessing.
    """
    artifact = Artifact(dataset, "dataset")
    samples = load_samples(artifact)
    more = np.isin(samples.class_id, samples.classes("train")[::2])
    samples = replace(samples, split=np.where(more, SPLITS.index("dev"), samples.split).astype(np.int8))
    images = Images(artifact, samples)
    places = samples.select(split="dev")
    targets = np.eye(samples.class_id.max() + 1)[samples.class_id[places]]
    rows = embed(pixels, images, places, image_px=PX, device=CPU).astype(np.float64)
    weights = torch.from_numpy(np.linalg.lstsq(rows, targets, rcond=1e-6)[0].astype(np.float32))

    def output(batch: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(pixels(batch) @ weights + 1e-3)

    train = [samples.select(split="train", domain=domain) for domain in ("sketch", "photo")]
    sketches, photos = (embed(output, images, each, image_px=PX, device=CPU) for each in train)
    statistics = measure_statistics(sketches, samples.class_id[train[0]], photos, samples.class_id[train[1]])
    return samples, images, output, statistics


def test_it_is_measured_on_dev_classes_alone(data):
    samples, *_ = data
    sketches, photos = calibration_images(samples)
    dev = set(samples.classes("dev").tolist())
    assert set(samples.class_id[sketches].tolist()) == set(samples.class_id[photos].tolist()) == dev


@pytest.mark.slow
def test_a_network_that_knows_its_dev_classes_is_calibrated_for_each_way_to_search(data):
    samples, images, output, statistics = data
    found = measured_calibrations(output, samples, images, statistics, image_px=PX, device=CPU)
    ways = [options.replace(flip=flip) for flip in (False, True) for options in MEASURED]
    assert [each.options for each in found] == ways
    assert found[0].options == PLAIN
    assert found[0].hit is not None
    assert all(each.no_match or each.hit for each in found)


@pytest.mark.slow
def test_a_network_that_draws_lots_is_not_calibrated(data):
    samples, images, _, statistics = data
    lots = torch.Generator().manual_seed(0)

    def output(batch: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(len(batch), statistics.dimensions, generator=lots))

    assert measured_calibrations(output, samples, images, statistics, image_px=PX, device=CPU) == []


@pytest.mark.slow
@pytest.mark.parametrize("train_on_dev", [False, True])
def test_a_run_carries_what_was_measured_and_measures_nothing_on_classes_it_was_trained_on(
    dataset, knowledge, tmp_path, monkeypatch, train_on_dev
):
    made = Calibration(options=PLAIN, hit=HitProbability(intercept=0, slope=1, error=0), classes=4, photos=20)
    monkeypatch.setattr(worker, "measured_calibrations", lambda *_, **__: [made])
    options = ["--steps", "1", "--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--no-tracking"]
    options += ["--train-on-dev"] if train_on_dev else []
    uri = train._parse(["toy", "--dataset", dataset, "--knowledge", knowledge, *options, "--root", str(tmp_path)])
    assert calibrations_of(Artifact(uri, "run")) == ([] if train_on_dev else [made])


def test_a_run_states_what_was_measured_and_nothing_for_an_encoder_that_learned_nothing(run):
    assert calibrations_of(Artifact(run, "run")) == []
