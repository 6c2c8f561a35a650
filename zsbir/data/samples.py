"""The sample table in memory: what the batch plan, the protocols and the loader know of a data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Int, Int8, Int32

from zsbir.base import limits
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.parquet import read_table
from zsbir.data.domains import DOMAINS, SPLITS
from zsbir.data.schema import SAMPLES_SCHEMA

_COLUMNS = {
    field.name: field.type
    for field in SAMPLES_SCHEMA
    if field.name in {"domain", "class_id", "class_name", "split", "sha256", "path", "shard", "row"}
}


@dataclass(frozen=True)
class Samples:
    """Columns of the sample table, one row an image; everywhere else an image is named by its position in them.

    domain: index into DOMAINS. split: index into SPLITS. shard, row: where the image's bytes are.
    """

    class_id: Int32[np.ndarray, "n"]
    domain: Int8[np.ndarray, "n"]
    split: Int8[np.ndarray, "n"]
    shard: Int32[np.ndarray, "n"]
    row: Int32[np.ndarray, "n"]
    sha256: np.ndarray
    path: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.class_id)

    def select(self, *, split: str | None = None, domain: str | None = None) -> Int[np.ndarray, "m"]:
        """Return the positions of the samples of a split and a domain (None: of all), in table order."""
        mask = np.ones(len(self), bool)
        if split is not None:
            mask &= self.split == SPLITS.index(split)
        if domain is not None:
            mask &= self.domain == DOMAINS.index(domain)
        return np.flatnonzero(mask)

    def classes(self, split: str) -> Int[np.ndarray, "c"]:
        """Return the class ids of a split, sorted."""
        return np.unique(self.class_id[self.select(split=split)])


def load_samples(dataset: Artifact) -> Samples:
    """Read the sample table of a Dataset artifact. Raises InputError for one that no ingest wrote."""
    where = dataset.address("samples.parquet")
    table = read_table(dataset.file("samples.parquet"), _COLUMNS, where)
    _check(table, where)
    ids, names = table["class_id"].to_numpy(), table["class_name"].to_numpy(zero_copy_only=False)
    class_names = [""] * (int(ids.max(initial=-1)) + 1)
    for class_id, first in zip(*np.unique(ids, return_index=True), strict=True):
        class_names[class_id] = str(names[first])
    return Samples(
        class_id=ids.astype(np.int32),
        domain=_codes(table["domain"].to_pylist(), DOMAINS),
        split=_codes(table["split"].to_pylist(), SPLITS),
        shard=table["shard"].to_numpy().astype(np.int32),
        row=table["row"].to_numpy().astype(np.int32),
        sha256=table["sha256"].to_numpy(zero_copy_only=False),
        path=table["path"].to_numpy(zero_copy_only=False),
        class_names=tuple(class_names),
    )


def _check(table: pa.Table, where: str) -> None:
    """Raise InputError for numbers that name no class, shard or row, and for domains and splits that are not known."""
    for name, limit in (("class_id", limits.CLASSES), ("shard", limits.FILES), ("row", limits.TABLE_ROWS)):
        numbers = table[name].to_numpy()
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < limit:
            raise InputError(f"{where}: column {name!r} holds {numbers.min()} to {numbers.max()}, not 0 to {limit - 1}")
    for name, known in (("domain", DOMAINS), ("split", SPLITS)):
        strangers = set(table[name].unique().to_pylist()) - set(known)
        if strangers:
            raise InputError(f"{where}: column {name!r} holds {min(strangers)[:100]!r}, not one of {', '.join(known)}")


def _codes(values: list[str], names: tuple[str, ...]) -> Int8[np.ndarray, "n"]:
    code = {name: number for number, name in enumerate(names)}
    return np.fromiter((code[value] for value in values), np.int8, len(values))
