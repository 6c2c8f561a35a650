"""What a training reads, and which of its samples it trains on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from zsbir.data.samples import Samples
from zsbir.data.shards import Images
from zsbir.model.weights import Weights
from zsbir.training.config import TrainConfig


@dataclass(frozen=True)
class TrainInputs:
    """What a training reads: samples with their images, pre-trained weights, and the teacher's knowledge by class id.

    same_labels: the weights' own classifier has the teacher's labels, so the preservation head starts from it. class_features: the
    teacher's mean features, by class id. same_network: the teacher is the network with these weights.
    """

    samples: Samples
    images: Images
    weights: Weights
    knowledge: dict[int, Float[np.ndarray, "t"]] | None = None
    same_labels: bool = False
    class_features: dict[int, Float[np.ndarray, "f"]] | None = None
    same_network: bool = False


def train_positions(config: TrainConfig, samples: Samples) -> Int[np.ndarray, "n"]:
    """Return the samples that are trained on: the train split, and with `train_on_dev` the dev split too, ascending."""
    splits = ("train", "dev") if config.train_on_dev else ("train",)
    return np.sort(np.concatenate([samples.select(split=split) for split in splits]))
