"""What a stage needs of a data set, judged by the counts of its manifest: checks that load no table and no library.

Stages make them before they work, and the job queue when a job is submitted. Counts that a manifest does not have are not judged:
an earlier version wrote fewer.
"""

from __future__ import annotations

from collections.abc import Mapping

from zsbir.base.artifact import Artifact
from zsbir.base.errors import FieldError


def check_batch_classes(present: int, classes_per_batch: int) -> None:
    """Raise FieldError unless a batch of so many different classes can be drawn from those that are trained on."""
    if present < classes_per_batch or classes_per_batch < 2:
        raise FieldError(
            "classes_per_batch",
            f"classes_per_batch is {classes_per_batch}, the training split has {present} classes; "
            f"choose a number from 2 to {present}",
        )


def check_training_classes(counts: Mapping[str, int], classes_per_batch: int, *, train_on_dev: bool) -> None:
    """Do the same by a manifest's counts. train_on_dev: whether dev classes are trained on, too."""
    splits = ("train", "dev") if train_on_dev else ("train",)
    numbers = [counts.get(f"{split}_classes") for split in splits]
    known = [number for number in numbers if number is not None]
    if len(known) == len(splits):
        check_batch_classes(sum(known), classes_per_batch)


def check_split(counts: Mapping[str, int], split: str, asker: str, *, field: str) -> None:
    """Raise FieldError where a split has no sketch or no photo. asker: who needs it, as in "protocol dev v1 needs ..."."""
    for side, counted in (("sketch", "sketches"), ("photo", "photos")):
        number = counts.get(f"{split}_{counted}", counts.get(f"{split}_classes"))
        if number == 0:
            raise FieldError(field, missing_side(asker, split, side))


def missing_side(asker: str, split: str, side: str) -> str:
    """Return the words for a split without any image of one domain."""
    return f"{asker} needs the split {split!r}, and the data set has no {side} in it"


def check_knowledge(knowledge: Artifact, dataset: Artifact, *, must_say: bool = True) -> None:
    """Raise FieldError for knowledge of another data set. must_say: also for knowledge that does not say of which it is."""
    reference = knowledge.manifest.inputs.get("dataset")
    made_from = reference.get("digest") if isinstance(reference, Mapping) else None
    if made_from != dataset.digest and (must_say or made_from is not None):
        raise FieldError(
            "knowledge",
            f"{knowledge.uri} is knowledge of another data set ({str(made_from)[:12]}, this one is {dataset.digest[:12]}); "
            f"run python -m zsbir.teacher {dataset.uri}",
        )
