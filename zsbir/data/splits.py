"""Which classes are trained on, held out as `dev`, or unseen: decided once, at ingest, and written into the sample table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zsbir.base.errors import InputError
from zsbir.base.filetypes import what_is
from zsbir.base.seeds import stream
from zsbir.base.storage import split_file
from zsbir.base.strict_json import parse_json
from zsbir.base.textfile import decode_text, text_lines
from zsbir.data.names import match_names, spelled_alike


@dataclass(frozen=True)
class ClassLists:
    """Class names as a user gives them. Empty `seen`: every class that is not unseen. Empty `dev`: drawn at random."""

    unseen: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()


def read_lists(uri: str | Path) -> ClassLists:
    """Read a split file: JSON with "unseen" and optional "seen" and "dev", or text with an unseen class a line.

    The file is given by path or `s3://` URI. Raises InputError when it is neither of the two.
    """
    folder, name = split_file(uri)
    try:
        data = folder.read(name)
    except OSError as error:
        raise InputError(f"cannot read the split file {str(uri)!r}: {error}") from None
    text = decode_text(data, f"the split file {str(uri)!r}")
    if name.lower().endswith(".json"):
        return _from_json(text, str(uri))
    unseen = _names([line for line in text_lines(text) if line], str(uri))
    if not unseen:
        raise InputError(f"the split file {str(uri)!r} names no class: it holds an unseen class on each line")
    return ClassLists(unseen=unseen)


def _from_json(text: str, where: str) -> ClassLists:
    try:
        values: Any = parse_json(text.encode())
    except ValueError as error:
        raise InputError(f"{where} is {what_is(text.encode('utf-8', 'replace')) or f'not JSON: {error}'}") from None
    if not isinstance(values, dict) or "unseen" not in values:
        raise InputError(f'{where} must be {{"unseen": [...]}}, with "seen" and "dev" lists where wanted')
    return ClassLists(**{key: _names(values.get(key, []), f"{where}, {key!r}") for key in ("unseen", "seen", "dev")})


def _names(values: Any, where: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(name, str) and name.strip() for name in values):
        raise InputError(f"{where} must be a list of class names")
    return tuple(values)


def hinted(hints: Iterable[tuple[str, str | None]]) -> ClassLists | None:
    """Return the unseen classes that the data set's own lists name, from (class, hint) pairs; None where they name none.

    Raises InputError where a class is in a list of seen and in one of unseen classes.
    """
    by_hint: dict[str, set[str]] = {"seen": set(), "unseen": set()}
    for name, hint in hints:
        if hint:
            by_hint[hint].add(name)
    both = sorted(by_hint["seen"] & by_hint["unseen"])
    if both:
        raise InputError(f"class {both[0]!r} is in a list of seen and in one of unseen classes ({len(both)} such classes)")
    return ClassLists(unseen=tuple(sorted(by_hint["unseen"]))) if by_hint["unseen"] else None


def draw_unseen(present: Sequence[str], frac: float, seed: int) -> ClassLists:
    """Draw a share of the classes as unseen, at least two, since retrieval among one class is always right."""
    return ClassLists(unseen=_drawn(sorted(present), max(2, round(frac * len(present))), stream("unseen classes", seed)))


def assign(present: Sequence[str], lists: ClassLists, *, dev_frac: float, seed: int) -> dict[str, str]:
    """Return the split of each class that takes part. Raises InputError for names that are unknown or in two lists."""
    unseen = match_names(lists.unseen, present, what="unseen class")
    seen = match_names(lists.seen, present, what="seen class") if lists.seen else sorted(set(present) - set(unseen))
    both = sorted(set(seen) & set(unseen))
    if both:
        raise InputError(f"class {both[0]!r} is named both seen and unseen ({len(both)} such classes)")
    dev = (
        match_names(lists.dev, seen, what="dev class (dev classes are seen ones)") if lists.dev else _draw_dev(seen, dev_frac, seed)
    )
    train = sorted(set(seen) - set(dev))
    _check_sizes(train, dev, unseen)
    _check_spellings(unseen, seen)
    return {**dict.fromkeys(train, "train"), **dict.fromkeys(dev, "dev"), **dict.fromkeys(unseen, "unseen")}


def _check_spellings(unseen: Sequence[str], seen: Sequence[str]) -> None:
    """Refuse a class that is seen under one spelling and unseen under another: what is measured on it would be learned."""
    for group in spelled_alike([*unseen, *seen]):
        here, there = [name for name in group if name in unseen], [name for name in group if name not in unseen]
        if here and there:
            raise InputError(
                f"classes {here[0]!r} (unseen) and {there[0]!r} (seen) differ in their spelling alone: if they are one class, put"
                " its images into one folder, or name both as unseen; if they are two, give them names that differ"
            )


def _check_sizes(train: Sequence[str], dev: Sequence[str], unseen: Sequence[str]) -> None:
    counts = f"train {len(train)}, dev {len(dev)}, unseen {len(unseen)}"
    if len(train) < 2:
        raise InputError(f"training needs at least 2 classes ({counts}): name fewer unseen or dev classes")
    if not unseen:
        raise InputError(f"no class is unseen ({counts}): name some with --unseen-classes, or a share with --unseen-frac")


def lonely(split_of: Mapping[str, str]) -> list[str]:
    """Return a line for each split of a single class that something is measured on: every search among one class is right."""
    ways_out = {
        "unseen": "evaluate will refuse it: name a second one with --unseen-classes, or draw several with --unseen-frac",
        "dev": "it chooses no checkpoint: name a second one with --dev-classes, or hold none out with --dev-frac 0",
    }
    lines = []
    for split, way_out in ways_out.items():
        names = [name for name, its in split_of.items() if its == split]
        if len(names) == 1:
            lines.append(f"{names[0]!r} is the only {split} class, and every score of a search among one class is 1; {way_out}")
    return lines


def _draw_dev(seen: Sequence[str], frac: float, seed: int) -> tuple[str, ...]:
    """Draw dev classes, at least two, since retrieval among one class is always right."""
    return _drawn(seen, max(2, round(frac * len(seen))), stream("dev classes", seed)) if frac else ()


def _drawn(names: Sequence[str], count: int, rng: np.random.Generator) -> tuple[str, ...]:
    order = rng.permutation(len(names))[:count]
    return tuple(sorted(names[index] for index in order))


def count_by_split(splits: Mapping[str, str]) -> dict[str, int]:
    """Count `train_classes`, `dev_classes` and `unseen_classes`, as manifests do."""
    values = list(splits.values())
    return {f"{split}_classes": values.count(split) for split in ("train", "dev", "unseen")}
