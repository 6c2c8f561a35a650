"""The data doctor: reports what in a data set would make its numbers misleading. It changes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from zsbir.base.config import Config
from zsbir.data.domains import DOMAINS
from zsbir.data.names import fold, spelled_alike

FEW_IMAGES = 10
TRAIN_PX = 224
IMBALANCE = 10.0


class Finding(Config):
    """One finding. `warning`: numbers on this data may mislead; `note`: good to know."""

    severity: Literal["warning", "note"]
    check: str
    message: str


@dataclass(frozen=True)
class Inverted:
    """The paths of sketches that came as light strokes on a dark ground. mended: they are stored dark on light."""

    paths: Sequence[str] = ()
    mended: bool = False


NONE_INVERTED = Inverted()


def examine(samples: pa.Table, quarantine: pa.Table, *, inverted: Inverted = NONE_INVERTED, imagenet: bool = True) -> list[Finding]:
    """Return all findings on a sample table (SAMPLES_SCHEMA) and the refused images (QUARANTINE_SCHEMA), warnings first.

    inverted: the sketches of light strokes on a dark ground. `imagenet` compares the unseen classes with ImageNet's.
    Rows become Python objects only where bytes repeat.
    """
    unseen = pc.unique(samples["class_name"].filter(pc.equal(samples["split"], "unseen"))).to_pylist()
    found = [
        *_refused(quarantine, samples.num_rows),
        *_spelled_alike(samples),
        *_inverted(samples, inverted),
        *_same_bytes(samples),
        *_same_photo_twice(samples),
        *(_known_to_imagenet(sorted(unseen)) if imagenet else ()),
        *_few_images(samples),
        *_imbalance(samples),
        *_small_images(samples),
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


def _spelled_alike(samples: pa.Table) -> Iterator[Finding]:
    """Find classes whose names differ in case, blanks, hyphens or invisible characters alone."""
    classes = samples.select(["class_name", "split"]).group_by(["class_name", "split"]).aggregate([])
    split_of = dict(zip(classes["class_name"].to_pylist(), classes["split"].to_pylist(), strict=True))
    groups = spelled_alike(split_of)
    if groups:
        first = " and ".join(f"{name!r} ({split_of[name]})" for name in groups[0])
        yield Finding(
            severity="warning",
            check="one class, two spellings",
            message=f"{len(groups)} groups of classes differ in their spelling alone, such as {first}: put their images into one"
            " folder if they are one class",
        )


def _inverted(samples: pa.Table, inverted: Inverted) -> Iterator[Finding]:
    """Find sketches that differ from what people search with, which is dark strokes on a light ground."""
    if not inverted.paths:
        return
    sketches = pc.sum(pc.equal(samples["domain"], "sketch")).as_py()
    classes = pc.unique(samples["class_name"].filter(pc.is_in(samples["path"], value_set=pa.array(inverted.paths, pa.string()))))
    which = f"{len(inverted.paths)} of {sketches} sketches, in {len(classes)} classes, such as {inverted.paths[0]}"
    if inverted.mended:
        yield Finding(severity="note", check="inverted sketches", message=f"{which}, were light on dark and are stored inverted")
        return
    yield Finding(
        severity="warning",
        check="inverted sketches",
        message=f"{which}, are light strokes on a dark ground, while drawings to search with are dark on light: pass"
        " --invert-sketches to store them so, or delete them",
    )


def _same_bytes(samples: pa.Table) -> Iterator[Finding]:
    """Find images of equal sha256: within a class, in two classes, and (worst) on both sides of the split."""
    start = pc.utf8_slice_codeunits(samples["sha256"], 0, 16)  # tells nearly all apart, in a quarter of the memory
    counts = pc.value_counts(start)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    chosen = samples.select(["sha256", "class_name", "split", "path"]).filter(pc.is_in(start, value_set=repeated))
    by_sha256: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in chosen.to_pylist():
        by_sha256[row["sha256"]].append(row)
    groups = [group for group in by_sha256.values() if len(group) > 1]
    within = sum(len(group) - len({row["class_name"] for row in group}) for group in groups)
    across = [group for group in groups if len({row["class_name"] for row in group}) > 1]
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


def _same_photo_twice(samples: pa.Table) -> Iterator[Finding]:
    """Find the trap of the published Sketchy lists: one file name in two folders of the same class."""
    photos = samples.select(["path", "class_name", "split"]).filter(pc.equal(samples["domain"], "photo"))
    for scope, chosen in (("photos", photos), ("unseen gallery photos", photos.filter(pc.equal(photos["split"], "unseen")))):
        name = pc.replace_substring_regex(chosen["path"], "^.*/", "")
        folder = pc.replace_substring_regex(chosen["path"], "[^/]*$", "")
        files = pa.table({"class": chosen["class_name"], "name": name, "folder": folder})
        twice = _distinct(files, "class", "name", "folder") - _distinct(files, "class", "name")
        if twice:
            yield Finding(
                severity="warning",
                check="one photo, two folders",
                message=f"{len(chosen)} {scope} are {len(chosen) - twice} distinct file names; --dedup keeps one of each",
            )


def _distinct(table: pa.Table, *columns: str) -> int:
    """Count the distinct combinations of values."""
    return int(table.group_by(columns).aggregate([]).num_rows)


def _known_to_imagenet(unseen: Sequence[str]) -> Iterator[Finding]:
    known = [f"{name} ({label})" for name in unseen if (label := imagenet_label(name))]
    if known:
        yield Finding(
            severity="note",
            check="known to ImageNet",
            message=f"{len(known)} of {len(unseen)} unseen classes are ImageNet-1k labels, or end one: {', '.join(known)}",
        )


def imagenet_label(class_name: str) -> str | None:
    """Find an ImageNet-1k label that is the class's name, or ends in it (`fan`: `electric fan`); synonyms are not known."""
    return _imagenet_endings().get(fold(class_name))


@cache
def _imagenet_endings() -> dict[str, str]:
    """Map every ending of whole words of every label to that label; a whole label wins over an ending."""
    labels = _imagenet_labels()
    endings: dict[str, str] = {}
    for label in labels:
        words = fold(label).split("_")
        for start in range(1, len(words)):
            endings.setdefault("_".join(words[start:]), label)
    return {**endings, **{fold(label): label for label in labels}}


def _imagenet_labels() -> list[str]:
    """Read torchvision's labels from its file: importing it would take seconds and 400 MB that nothing else here needs."""
    spec = find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    labels: list[str] = run_path(str(Path(spec.origin).parent / "models" / "_meta.py"))["_IMAGENET_CATEGORIES"]
    return labels


def _counts(samples: pa.Table) -> dict[str, Counter[str]]:
    def count(domain: str) -> Counter[str]:
        found = pc.value_counts(samples["class_name"].filter(pc.equal(samples["domain"], domain)))
        return Counter({row["values"]: row["counts"] for row in found.to_pylist()})

    return {domain: count(domain) for domain in DOMAINS}


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


def _small_images(samples: pa.Table) -> Iterator[Finding]:
    sides = pc.min_element_wise(samples["width"], samples["height"])
    for domain in DOMAINS:
        chosen = sides.filter(pc.equal(samples["domain"], domain))
        small = pc.sum(pc.less(chosen, TRAIN_PX / 2)).as_py() or 0
        if small:
            yield Finding(
                severity="note",
                check=f"small {domain} images",
                message=f"{small} of {len(chosen)} have a short side under {TRAIN_PX // 2} px, half of the usual {TRAIN_PX}",
            )
