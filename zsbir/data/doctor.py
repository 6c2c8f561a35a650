"""The data doctor: what in a data set makes its numbers mean something else than one thinks. It finds, it changes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zsbir.base.config import Config
from zsbir.data.layouts import fold
from zsbir.data.schema import DOMAINS

FEW_IMAGES = 10
TRAIN_PX = 224
IMBALANCE = 10.0


class Finding(Config):
    """One thing worth knowing. `warning`: numbers on this data may mislead; `note`: good to know."""

    severity: Literal["warning", "note"]
    check: str
    message: str


def examine(samples: pa.Table, quarantine: pa.Table, *, imagenet: bool = True) -> list[Finding]:
    """All findings on a sample table (SAMPLES_SCHEMA) and the images refused (QUARANTINE_SCHEMA), warnings first.

    `imagenet` compares the unseen classes with ImageNet's: it loads torchvision, which takes seconds.
    """
    rows = samples.select(["domain", "class_name", "split", "width", "height", "sha256", "path"]).to_pylist()
    found = [
        *_refused(quarantine, len(rows)),
        *_same_bytes(rows),
        *_same_photo_twice(rows),
        *(_known_to_imagenet(sorted({row["class_name"] for row in rows if row["split"] == "unseen"})) if imagenet else ()),
        *_few_images(samples),
        *_imbalance(samples),
        *_small_images(rows),
    ]
    return sorted(found, key=lambda finding: finding.severity == "note")


def _refused(quarantine: pa.Table, good: int) -> Iterator[Finding]:
    count = quarantine.num_rows
    if count:
        first = quarantine.slice(0, 1).to_pylist()[0]
        yield Finding(
            severity="warning",
            check="quarantine",
            message=f"{count} of {good + count} images were refused, the first {first['path']}: {first['reason']}",
        )


def _same_bytes(rows: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """Equal sha256: within a class, in two classes, and (worst) on both sides of the split."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["sha256"]].append(row)
    repeated = [group for group in groups.values() if len(group) > 1]
    within = sum(len(group) - len({row["class_name"] for row in group}) for group in repeated)
    across = [group for group in repeated if len({row["class_name"] for row in group}) > 1]
    leaking = [group for group in across if len({row["split"] == "unseen" for row in group}) > 1]
    if within:
        yield Finding(
            severity="warning", check="repeated images", message=f"{within} images have the bytes of another one of their class"
        )
    if across:
        yield Finding(severity="warning", check="one image, two classes", message=_two_classes(across, len(leaking)))


def _two_classes(groups: Sequence[Sequence[dict[str, Any]]], leaking: int) -> str:
    first, second = sorted({row["class_name"]: row["path"] for row in groups[0]}.values())[:2]
    return f"{len(groups)} images stand in more than one class, {leaking} of them in a seen and an unseen one; {first} is {second}"


def _same_photo_twice(rows: Iterable[dict[str, Any]]) -> Iterator[Finding]:
    """The trap of the published Sketchy lists: one file name, in two folders of the same class."""
    photos = [row for row in rows if row["domain"] == "photo"]
    for scope, chosen in (("photos", photos), ("unseen gallery photos", [row for row in photos if row["split"] == "unseen"])):
        folders: dict[tuple[str, str], set[str]] = defaultdict(set)
        for row in chosen:
            path = PurePosixPath(row["path"])
            folders[row["class_name"], path.name].add(str(path.parent))
        twice = sum(len(places) - 1 for places in folders.values())
        if twice:
            yield Finding(
                severity="warning",
                check="one photo, two folders",
                message=f"{len(chosen)} {scope} are {len(chosen) - twice} distinct file names; --dedup keeps one of each",
            )


def _known_to_imagenet(unseen: Sequence[str]) -> Iterator[Finding]:
    known = [f"{name} ({label})" for name in unseen if (label := imagenet_label(name))]
    if known:
        yield Finding(
            severity="note",
            check="known to ImageNet",
            message=f"{len(known)} of {len(unseen)} unseen classes are ImageNet-1k labels, or end one: {', '.join(known)}",
        )


def imagenet_label(class_name: str) -> str | None:
    """An ImageNet-1k label that is the class's name, or ends in it (`fan`: `electric fan`). By name alone: no synonyms."""
    return _imagenet_endings().get(fold(class_name))


@cache
def _imagenet_endings() -> dict[str, str]:
    """Every ending of whole words of every label, a whole label winning over an ending."""
    from torchvision.models import ResNet50_Weights  # loads torch: seconds that only this check needs

    labels: list[str] = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    endings: dict[str, str] = {}
    for label in labels:
        words = fold(label).split("_")
        for start in range(1, len(words)):
            endings.setdefault("_".join(words[start:]), label)
    return {**endings, **{fold(label): label for label in labels}}


def _counts(samples: pa.Table) -> dict[str, Counter[str]]:
    return {domain: Counter(samples.filter(pc.equal(samples["domain"], domain))["class_name"].to_pylist()) for domain in DOMAINS}


def _few_images(samples: pa.Table) -> Iterator[Finding]:
    for domain, counts in _counts(samples).items():
        few = sorted(name for name, count in counts.items() if count < FEW_IMAGES)
        if few:
            yield Finding(
                severity="warning",
                check=f"few {domain} images",
                message=f"{len(few)} classes have fewer than {FEW_IMAGES}: {', '.join(few[:5])}{', ...' if len(few) > 5 else ''}",
            )


def _imbalance(samples: pa.Table) -> Iterator[Finding]:
    for domain, counts in _counts(samples).items():
        if not counts:
            continue
        (most, high), (least, low) = counts.most_common()[0], counts.most_common()[-1]
        if high > IMBALANCE * low:
            yield Finding(severity="note", check=f"uneven {domain} classes", message=f"{most} has {high}, {least} has {low}")


def _small_images(rows: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    for domain in DOMAINS:
        sides = np.array([min(row["width"], row["height"]) for row in rows if row["domain"] == domain])
        small = int((sides < TRAIN_PX / 2).sum())
        if small:
            yield Finding(
                severity="note",
                check=f"small {domain} images",
                message=f"{small} of {len(sides)} have a short side under {TRAIN_PX // 2} px, half of the usual {TRAIN_PX}",
            )
