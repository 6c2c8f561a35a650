"""What trainings have seen, and what of a data set is left to evaluate them on: classes by name, images by their bytes.

A run has seen the classes and the images in `train` and `dev` of the data set that it was made from: it was trained on the first,
and its checkpoint and settings were chosen by the second. Two runs of different data sets can be compared fairly only on what
neither has seen. Names are compared folded (`zsbir.data.names`), images by the sha256 of their stored bytes; a photo that two data
sets store at different sizes is not recognised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.domains import DOMAINS, SPLITS
from zsbir.data.names import fold
from zsbir.evaluation.protocol import Protocol, select

if TYPE_CHECKING:
    from zsbir.data.samples import Samples

NAMES_RECORDED = 100
"""Names of classes left out that a report records; the count is always whole."""

NAMES_SHOWN = 8


@dataclass(frozen=True)
class Seen:
    """What is in train and dev of data sets: folded names of classes, and the sha256 of images.

    datasets: URI and digest of each of them, ordered by digest, so that the order in which runs are named does not matter.
    """

    datasets: tuple[dict[str, str], ...] = ()
    classes: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()

    def digests(self) -> list[str]:
        """Return the digests of the data sets, sorted: they decide everything else."""
        return [dataset["digest"] for dataset in self.datasets]


@dataclass(frozen=True)
class LeftOut:
    """What of a protocol's queries and gallery an evaluation leaves out, as seen in training.

    classes: names of classes that were seen. sketches, photos: images of these classes. repeated_sketches, repeated_photos: images
    of other classes whose bytes were seen. emptied: names of classes of which then no sketch or no photo is left, whose sketches
    are not asked about either; their photos stay in the gallery.
    """

    classes: tuple[str, ...] = ()
    sketches: int = 0
    photos: int = 0
    repeated_sketches: int = 0
    repeated_photos: int = 0
    emptied: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.classes or self.repeated_sketches or self.repeated_photos)

    def as_json(self) -> dict[str, Any]:
        """Return counts, and the first names, as plain values."""
        names = {"classes": list(self.classes[:NAMES_RECORDED]), "emptied": list(self.emptied[:NAMES_RECORDED])}
        return {**vars(self), **names, "class_count": len(self.classes), "emptied_count": len(self.emptied)}

    def text(self) -> str:
        """Return it in a few words: "nothing", or counts and names."""
        parts = []
        if self.classes:
            images = f"{self.sketches:,} sketches and {self.photos:,} photos"
            parts.append(f"{_classes(self.classes)} seen in training, with {images}")
        if self.repeated_sketches or self.repeated_photos:
            parts.append(
                f"{self.repeated_sketches:,} sketches and {self.repeated_photos:,} photos whose bytes were seen in training"
            )
        if self.emptied:
            parts.append(f"{_classes(self.emptied)} without a sketch or a photo since")
        return "; ".join(parts) or "nothing"


@dataclass(frozen=True)
class Left:
    """What is left of a protocol's queries and gallery, as positions in the sample table, and what is left out.

    classes: how many classes the queries are of.
    """

    queries: Int[np.ndarray, "q"]
    gallery: Int[np.ndarray, "g"]
    classes: int
    out: LeftOut


def seen_by(runs: Sequence[Artifact]) -> Seen:
    """Return what runs have seen. Raises InputError where the data set of one is gone or damaged."""
    from zsbir.data.samples import load_samples

    datasets = {dataset.digest: dataset for dataset in (run.input("dataset", "dataset") for run in runs)}
    classes: set[str] = set()
    images: set[str] = set()
    for dataset in datasets.values():
        samples = load_samples(dataset)
        seen = samples.split < SPLITS.index("unseen")
        classes.update(fold(samples.class_names[number]) for number in np.unique(samples.class_id[seen]))
        images.update(samples.sha256[seen].tolist())
    return Seen(tuple(datasets[digest].reference() for digest in sorted(datasets)), frozenset(classes), frozenset(images))


def what_is_left(samples: Samples, protocol: Protocol, seen: Seen) -> Left:
    """Return what a protocol asks of a data set, without what was seen; positions ascend, as `select` returns them.

    Only classes of the split `unseen` count, so that a number under a protocol's name means the same wherever it comes from. Raises
    InputError for a protocol that is not about unseen classes alone, once something is named that was seen.
    """
    queries, gallery = select(samples, protocol)
    if not seen.datasets:
        return Left(queries, gallery, len(np.unique(samples.class_id[queries])), LeftOut())
    if protocol.setting != "zero_shot" or protocol.split != "unseen":
        raise InputError(
            f"protocol {protocol.name} shows seen classes too, so it cannot leave out what other data sets hold of them:"
            " pass --protocol zero_shot"
        )
    known = np.array([fold(name) in seen.classes for name in samples.class_names], bool)[samples.class_id]
    repeated = ~known & np.fromiter((value in seen.images for value in samples.sha256), bool, len(samples))
    fresh = ~known & ~repeated
    asked, answers = queries[fresh[queries]], gallery[fresh[gallery]]
    answered = np.isin(samples.class_id[asked], samples.class_id[answers])
    before, after = samples.class_id[queries[~known[queries]]], samples.class_id[asked[answered]]
    out = _left_out(samples, np.concatenate([queries, gallery]), known, repeated, np.setdiff1d(before, after))
    return Left(asked[answered], answers, len(np.unique(after)), out)


def _left_out(
    samples: Samples,
    asked: Int[np.ndarray, "m"],
    known: Bool[np.ndarray, "n"],
    repeated: Bool[np.ndarray, "n"],
    emptied: Int[np.ndarray, "c"],
) -> LeftOut:
    """Count what is left out of the images at the positions `asked`."""

    def count(which: Bool[np.ndarray, "n"], domain: str) -> int:
        return int((which[asked] & (samples.domain[asked] == DOMAINS.index(domain))).sum())

    def names(numbers: Int[np.ndarray, "c"]) -> tuple[str, ...]:
        return tuple(sorted(samples.class_names[number] for number in numbers))

    return LeftOut(
        classes=names(np.unique(samples.class_id[asked[known[asked]]])),
        sketches=count(known, "sketch"),
        photos=count(known, "photo"),
        repeated_sketches=count(repeated, "sketch"),
        repeated_photos=count(repeated, "photo"),
        emptied=names(emptied),
    )


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
    return f"{len(names):,} class{'' if len(names) == 1 else 'es'} ({shown})"
