"""What is said of a sample table as a whole: its counts, its classes, and the digest of its content.

A table may have a million rows: it is counted as it lies in memory, and only a few rows at a time become Python objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from zsbir.base.config import streamed_digest
from zsbir.base.errors import InputError
from zsbir.data import splits
from zsbir.data.domains import DOMAINS, SPLITS

_PLURAL = {"photo": "photos", "sketch": "sketches"}
_CONTENT = ["path", "domain", "class_name", "split", "sha256"]
_ROWS_AT_ONCE = 4096


def counts_of(samples: pa.Table, split_of: Mapping[str, str]) -> dict[str, int]:
    """The counts of a manifest: samples, photos, sketches and classes, in all and by split."""
    found = _count(samples, "split", "domain")
    return {
        "samples": samples.num_rows,
        **{_PLURAL[domain]: sum(found[split, domain] for split in SPLITS) for domain in DOMAINS},
        "classes": len(split_of),
        **splits.count_by_split(split_of),
        **{f"{split}_{_PLURAL[domain]}": found[split, domain] for split in SPLITS for domain in DOMAINS},
    }


def class_rows(samples: pa.Table, classes: Mapping[str, tuple[int, str]]) -> list[dict[str, Any]]:
    """The rows of classes.json. classes: id and split by name. InputError when no photo or no sketch of a class is there."""
    found = _count(samples, "class_name", "domain")
    rows = []
    for name, (number, split) in classes.items():
        by_domain = {_PLURAL[domain]: found[name, domain] for domain in DOMAINS}
        for plural, count in by_domain.items():
            if not count:
                raise InputError(f"all {plural} of class {name!r} are bad: replace them, or remove the class")
        rows.append({"class_id": number, "name": name, "split": split, **by_domain})
    return rows


def content_digest(samples: pa.Table, quarantine: pa.Table, *how: Any) -> str:
    """What the images are and how they are split, on whatever machine and in whatever shards: 64 hex digits.

    `how` they were stored comes first: `digest_of([*how, rows, refused paths])`.
    """
    return streamed_digest([*how, _rows(samples.select(_CONTENT)), quarantine["path"].to_pylist()])


def _count(table: pa.Table, *columns: str) -> Counter[tuple[str, ...]]:
    """How many rows there are of each combination of values."""
    groups = table.select(columns).group_by(columns).aggregate([([], "count_all")])
    values = zip(*(groups[column].to_pylist() for column in columns), strict=True)
    return Counter(dict(zip(values, groups["count_all"].to_pylist(), strict=True)))


def _rows(table: pa.Table) -> Iterator[list[Any]]:
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield from map(list, zip(*(column.to_pylist() for column in batch.columns), strict=True))
