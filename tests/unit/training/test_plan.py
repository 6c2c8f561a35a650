from __future__ import annotations

import numpy as np
import pytest

from zsbir.base.errors import InputError
from zsbir.data.domains import DOMAINS, SPLITS
from zsbir.data.samples import Samples
from zsbir.training.config import TrainConfig
from zsbir.training.inputs import train_positions
from zsbir.training.loop import plan_training

CLASSES_OF = {"train": 4, "dev": 2, "unseen": 1}
PER_GROUP = 3
"""Images of each class and domain."""


@pytest.fixture
def samples() -> Samples:
    """Four train classes, two dev classes and an unseen one, shuffled."""
    splits = [name for name, count in CLASSES_OF.items() for _ in range(count)]
    rows = [
        (label, domain, SPLITS.index(split))
        for label, split in enumerate(splits)
        for domain in range(len(DOMAINS))
        for _ in range(PER_GROUP)
    ]
    label, domain, split = np.array(rows)[np.random.default_rng(0).permutation(len(rows))].T
    names = np.array([str(number) for number in range(len(rows))], object)
    return Samples(
        class_id=label.astype(np.int32),
        domain=domain.astype(np.int8),
        split=split.astype(np.int8),
        shard=np.zeros(len(rows), np.int32),
        row=np.arange(len(rows), dtype=np.int32),
        sha256=names,
        path=names,
        class_names=tuple(f"class{number}" for number in range(len(splits))),
    )


def config(**changes) -> TrainConfig:
    return TrainConfig(**{"classes_per_batch": 3, "per_class": 2, "steps": 7, "seed": 3} | changes)


def trained_on(samples: Samples, **changes) -> set[str]:
    return {SPLITS[split] for split in samples.split[train_positions(config(**changes), samples)]}


def test_a_training_sees_the_train_split_alone(samples):
    positions = train_positions(config(), samples)
    assert positions.tolist() == np.flatnonzero(samples.split == SPLITS.index("train")).tolist()
    assert trained_on(samples) == {"train"}


def test_a_final_training_sees_dev_too_and_never_the_unseen_classes(samples):
    positions = train_positions(config(train_on_dev=True), samples)
    assert positions.tolist() == np.flatnonzero(samples.split != SPLITS.index("unseen")).tolist()
    assert trained_on(samples, train_on_dev=True) == {"train", "dev"}


@pytest.mark.parametrize(("train_on_dev", "splits"), [(False, {"train"}), (True, {"train", "dev"})])
def test_the_batch_plan_draws_from_these_alone(samples, train_on_dev, splits):
    plan = plan_training(config(train_on_dev=train_on_dev, steps=20), samples, workers=1)
    assert {SPLITS[split] for split in samples.split[plan].ravel()} == splits


def test_steps_are_those_given_else_epochs_over_the_images_trained_on(samples):
    images = CLASSES_OF["train"] * len(DOMAINS) * PER_GROUP
    assert len(plan_training(config(), samples, workers=1)) == 7
    assert len(plan_training(config(steps=0, epochs=5), samples, workers=1)) == 5 * round(images / 12)
    assert len(plan_training(config(steps=0, epochs=2.5), samples, workers=1)) == 5


def test_the_plan_is_the_same_for_any_number_of_workers_that_can_share_a_batch(samples):
    assert np.array_equal(plan_training(config(), samples, workers=1), plan_training(config(), samples, workers=4))
    with pytest.raises(InputError, match="a batch of 12 images cannot be dealt to 5 workers"):
        plan_training(config(), samples, workers=5)
