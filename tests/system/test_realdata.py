"""On real photos, real sketches and real ImageNet weights, where they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from zsbir.base.artifact import Artifact
from zsbir.data.images import eval_image
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.evaluation.embed import embed, features_of
from zsbir.evaluation.metrics import evaluate_embeddings
from zsbir.evaluation.protocol import find_protocol, select
from zsbir.ingest import IngestConfig, ingest
from zsbir.ingest import Settings as IngestSettings
from zsbir.model.backbones import network_of
from zsbir.model.encoder import Encoder, Normalise
from zsbir.model.weights import Weights, load_weights
from zsbir.recipes import recipe
from zsbir.train import InputUris, Settings, train

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

R18_SHA256 = "0397f3e51667569be260b8711c716896ee60ec56cd68761689890ef607a52943"


@pytest.fixture(scope="module")
def root(module_path: Path) -> Path:
    return module_path


@pytest.fixture(scope="module")
def caltech(shared: Path, root: Path) -> Artifact:
    folder = shared / "data" / "caltech_qd60"
    config = IngestConfig(
        layout="folder", name="caltech_qd60", unseen_classes=(str(folder / "split_nonimagenet.json"),), dev_frac=0.2
    )
    return ingest(config, str(folder), IngestSettings(root=str(root)))


@pytest.fixture(scope="module")
def resnet18(shared: Path, root: Path) -> Weights:
    return load_weights(str(shared / "weights" / "resnet18_pqf_fp16.pth"), backbone="resnet18", root=root, sha256=R18_SHA256)


def test_every_image_is_read_and_the_split_is_the_published_one(caltech: Artifact) -> None:
    samples = load_samples(caltech)
    assert caltech.manifest.counts["photos"] == 6353
    assert caltech.manifest.counts["sketches"] == 2833
    assert caltech.manifest.counts["quarantined"] == 0
    assert len(samples.classes("unseen")) == 15
    assert len(samples.classes("train")) + len(samples.classes("dev")) == 45
    queries, gallery = select(samples, find_protocol("zero_shot"))
    assert (len(queries), len(gallery)) == (758, 1252)


@pytest.mark.parametrize(
    ("backbone", "file", "image_px", "least"),
    [
        ("resnet18", "resnet18_pqf_fp16.pth", 224, 0.6),
        ("timm:tf_efficientnet_lite2", "tf_efficientnet_lite2_fp16.safetensors", 260, 0.75),
    ],
)
def test_imagenet_weights_and_preprocessing_name_imagenet_photos(
    shared: Path, root: Path, backbone: str, file: str, image_px: int, least: float
) -> None:
    """One photo of each of 200 classes. Squeezed whole, not cropped, so below the stated 73 and 88.5 %.

    With the mean and deviation of the other network Lite2 names 72.5 %, with its own 78.5 %.
    """
    weights = load_weights(str(shared / "weights" / file), backbone=backbone, root=root)
    kind = network_of(backbone)
    network = torch.nn.Sequential(Normalise(kind.mean, kind.std), kind.build(len(weights.labels)))
    network[1].load_state_dict(weights.state)
    network.eval()
    files = sorted((shared / "data" / "imagenet_samples").glob("*.jpg"))
    wnids = (shared / "weights" / "imagenet_wnids.txt").read_text().split()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(files), 50):
            part = files[start : start + 50]
            pixels = torch.from_numpy(np.stack([eval_image(photo.read_bytes(), image_px) for photo in part]))
            named = network(pixels).argmax(dim=1).tolist()
            right += sum(wnids[label] == photo.name.split("_")[0] for photo, label in zip(part, named, strict=True))
    assert right / len(files) > least


def test_the_frozen_backbone_is_worth_what_was_measured_without_this_project(caltech: Artifact, resnet18: Weights) -> None:
    """mAP@all .218 and P@100 .148 for pooled features at 128 px: an independent figure for data, transform and metric.

    To a hundredth: how that measurement resized its images is not known.
    """
    samples = load_samples(caltech)
    queries, gallery = select(samples, find_protocol("zero_shot"))
    encoder = Encoder("resnet18", image_px=128)
    encoder.load_trunk(resnet18)
    encoder.eval()
    images, device = Images(caltech, samples), torch.device("cpu")
    both = embed(features_of(encoder), images, np.concatenate([queries, gallery]), image_px=128, device=device)
    result = evaluate_embeddings(
        both[: len(queries)], samples.class_id[queries], both[len(queries) :], samples.class_id[gallery]
    ).summary()
    assert result["map_all"] == pytest.approx(0.218, abs=0.01)
    assert result["p_at_100"] == pytest.approx(0.148, abs=0.01)


def test_forty_small_steps_beat_the_frozen_backbone_on_dev_classes(caltech: Artifact, shared: Path, root: Path) -> None:
    weights = str(shared / "weights" / "resnet18_pqf_fp16.pth")
    changes = {
        "weight_preservation": 0.0,
        "steps": 40,
        "image_px": 96,
        "classes_per_batch": 8,
        "per_class": 3,
        "eval_every_steps": 40,
    }
    uris = InputUris(dataset=caltech.uri, weights=weights)
    settings = Settings(root=str(root), tracking=False)
    run = train(recipe("caltech_qd60_r18").replace(**changes, checkpoint_every_steps=1000), uris, settings)
    samples = load_samples(caltech)
    queries, gallery = select(samples, find_protocol("dev"))
    encoder = Encoder("resnet18", image_px=96)
    encoder.load_trunk(load_weights(weights, backbone="resnet18", root=root))
    both = embed(
        features_of(encoder.eval()),
        Images(caltech, samples),
        np.concatenate([queries, gallery]),
        image_px=96,
        device=torch.device("cpu"),
    )
    frozen = evaluate_embeddings(
        both[: len(queries)], samples.class_id[queries], both[len(queries) :], samples.class_id[gallery]
    ).summary()["map_all"]
    assert run.manifest.facts["best_dev_map_all"] > 1.1 * frozen
