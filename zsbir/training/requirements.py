"""What must be true of a training's configuration and inputs before it is worth starting, judged without loading torch or data.

The command asks here first, and so does the job queue when a training is submitted.
"""

from __future__ import annotations

from collections.abc import Mapping

from zsbir.base.artifact import Artifact
from zsbir.base.config import Address
from zsbir.base.errors import FieldError
from zsbir.data.requirements import check_knowledge, check_training_classes
from zsbir.losses.registry import fields_of
from zsbir.training.config import TrainConfig

MEAN_FEATURES_STARTS = ("prototypes", "fixed_prototypes")
"""The starts of the classifier that are the teacher's mean features of each class."""


def check_workers(config: TrainConfig, num_workers: int, gpus_per_worker: float) -> None:
    """Raise FieldError where the workers cannot share a batch, or would share a GPU. num_workers: 0: in one process."""
    check_shares(config, max(1, num_workers))
    if num_workers > 1 and gpus_per_worker % 1:  # NCCL, over which workers exchange gradients, does not let them share one
        raise FieldError(
            "gpus_per_worker",
            f"gpus_per_worker {gpus_per_worker:g} lets workers share a GPU, which NCCL refuses;"
            " give each a whole one, or train with one worker",
        )


def check_shares(config: TrainConfig, workers: int) -> None:
    """Raise FieldError where a batch cannot be dealt to so many workers."""
    if config.batch_images % workers:
        raise FieldError(
            "num_workers",
            f"a batch of {config.batch_images} images cannot be dealt to {workers} workers; "
            "change classes_per_batch, per_class or the number of workers",
        )


def check_addresses(config: TrainConfig) -> None:
    """Raise FieldError for a further loss that lacks the address of something that it cannot work without."""
    for name, field in fields_of(config.losses).items():
        required = any(isinstance(mark, Address) and mark.required for mark in field.metadata)
        if required and not getattr(config, name):
            raise FieldError(name, f"no {name} given: pass --{name.replace('_', '-')}, {field.description}")


def check_has_knowledge(config: TrainConfig, *, given: bool) -> None:
    """Raise FieldError for a training that is to preserve knowledge and gets none."""
    if needs_distributions(config) and not given:
        without = "--weight-preservation 0" if config.weight_preservation else "--margin-ambiguity 0"
        raise FieldError(
            "knowledge",
            "no knowledge given: pass --knowledge URI, as python -m zsbir.teacher prints it (if you did, did the command before"
            f" fail?), or {without}",
        )
    if needs_mean_features(config) and not given:
        raise FieldError(
            "knowledge",
            f"no knowledge given, and classifier_start {config.classifier_start} begins with what a teacher saw: pass --knowledge"
            " URI, as python -m zsbir.teacher ... --mean-features prints it",
        )


def needs_distributions(config: TrainConfig) -> bool:
    """Return whether a training reads the teacher's distributions over its own labels."""
    return config.weight_preservation > 0 or config.margin_ambiguity > 0


def needs_mean_features(config: TrainConfig) -> bool:
    """Return whether a training starts its classifier from the teacher's mean features."""
    return config.classifier_start in MEAN_FEATURES_STARTS


def check_counts(config: TrainConfig, counts: Mapping[str, int]) -> None:
    """Raise FieldError where a data set of these counts has too few classes for a batch."""
    check_training_classes(counts, config.classes_per_batch, train_on_dev=config.train_on_dev)


def check_inputs(config: TrainConfig, dataset: Artifact, knowledge: Artifact | None, *, must_say: bool = True) -> None:
    """Raise FieldError where the data set has too few classes, or the knowledge is of another one.

    must_say: also for knowledge that does not say of which data set it is.
    """
    check_counts(config, dataset.manifest.counts)
    if knowledge is not None:
        check_knowledge(knowledge, dataset, must_say=must_say)
        if needs_mean_features(config) and not knowledge.manifest.config.get("mean_features"):
            raise FieldError(
                "knowledge",
                f"{knowledge.uri} holds no mean features, from which classifier_start {config.classifier_start} begins: make it"
                " again with python -m zsbir.teacher ... --mean-features",
            )
