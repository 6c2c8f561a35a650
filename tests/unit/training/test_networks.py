"""The networks of a training, built from its configuration: where the classifier begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.model.weights import load_weights
from zsbir.training.config import TrainConfig
from zsbir.training.inputs import TrainInputs
from zsbir.training.networks import build_networks
from zsbir.training.prototypes import prototypes


@pytest.fixture(scope="module")
def inputs(dataset, weights, module_path):
    opened = Artifact(dataset, "dataset")
    samples = load_samples(opened)
    random = np.random.default_rng(0)
    return TrainInputs(
        samples=samples,
        images=Images(opened, samples),
        weights=load_weights(weights, backbone="resnet18", root=module_path),
        class_features={class_id: random.random(512) for class_id in range(len(samples.class_names))},
    )


def start(inputs: TrainInputs, *, same_network: bool, **changes) -> tuple[torch.Tensor, torch.Tensor]:
    """The classifier's first weights, and the embedding layer's."""
    config = TrainConfig(
        backbone="resnet18", image_px=16, embedding_dim=64, weight_preservation=0, classifier_start="prototypes", **changes
    )
    given = TrainInputs(**{**vars(inputs), "same_network": same_network})
    encoder, objective = build_networks(config, given, torch.device("cpu"), threads=1)
    return objective.heads.classifier.weight.detach(), encoder.embedding.weight.detach()


def test_the_means_of_the_network_itself_go_through_its_embedding(inputs):
    found, embedding = start(inputs, same_network=True)
    ids = inputs.samples.classes("train")
    means = np.stack([inputs.class_features[int(class_id)] for class_id in ids])
    torch.testing.assert_close(found, torch.from_numpy(prototypes(means @ embedding.double().numpy().T)).float())


def test_a_learned_pooling_makes_another_network_of_the_teacher(inputs):
    assert start(inputs, same_network=True, pooling="gem")[0].equal(start(inputs, same_network=False, pooling="gem")[0])


def test_a_class_without_a_mean_is_told_with_the_way_out(inputs):
    bare = TrainInputs(**{**vars(inputs), "class_features": {}})
    with pytest.raises(InputError, match="classifier_start prototypes needs knowledge with the mean features of every class"):
        start(bare, same_network=True)
