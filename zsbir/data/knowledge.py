"""The Knowledge artifact: per seen class, the teacher's mean distribution over its own labels, as one Parquet table."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.parquet import read_table
from zsbir.data.requirements import check_knowledge

TOP_LABELS = 5
_ROUNDING = 1e-3

KNOWLEDGE_SCHEMA = pa.schema(
    [
        ("class_id", pa.int32()),
        ("class_name", pa.string()),
        ("photos", pa.int64()),
        ("entropy_nats", pa.float64()),
        ("top_labels", pa.list_(pa.string())),
        ("top_probabilities", pa.list_(pa.float64())),
        ("distribution", pa.list_(pa.float64())),
        ("mean_features", pa.list_(pa.float64())),
    ]
)


@dataclass(frozen=True)
class ClassKnowledge:
    """The teacher's answers for one class: the sums of its distributions and of its pooled features over that many photos.

    features: empty where they were not asked for.
    """

    class_id: int
    class_name: str
    photos: int
    total: Float[np.ndarray, "t"]
    features: Float[np.ndarray, "f"] = field(default_factory=lambda: np.zeros(0))

    def row(self, labels: tuple[str, ...]) -> dict[str, object]:
        """Return the class's row of the table."""
        distribution = self.total / self.photos
        top = np.argsort(-distribution, kind="stable")[:TOP_LABELS]
        positive = distribution[distribution > 0]
        return {
            "class_id": self.class_id,
            "class_name": self.class_name,
            "photos": self.photos,
            "entropy_nats": float(-(positive * np.log(positive)).sum()),
            "top_labels": [labels[label] for label in top],
            "top_probabilities": distribution[top].tolist(),
            "distribution": distribution.tolist(),
            "mean_features": (self.features / self.photos).tolist() if len(self.features) else None,
        }


def load_knowledge(knowledge: Artifact, dataset: Artifact) -> dict[int, Float[np.ndarray, "t"]]:
    """Read the distribution of each class, by class id.

    Raises InputError when it was made from another data set, or holds no probabilities.
    """
    check_knowledge(knowledge, dataset)
    where = knowledge.address("knowledge.parquet")
    columns = {name: KNOWLEDGE_SCHEMA.field(name).type for name in ("class_id", "distribution")}
    table = read_table(knowledge.file("knowledge.parquet"), columns, where)
    labels = set(pc.list_value_length(table["distribution"]).to_pylist())
    if len(labels) != 1 or pc.list_flatten(table["distribution"]).null_count:
        raise InputError(f"{where}: the distributions are not over the same labels; make it again with python -m zsbir.teacher")
    rows = zip(table["class_id"].to_pylist(), table["distribution"].to_pylist(), strict=True)
    distributions = {class_id: np.asarray(distribution, np.float64) for class_id, distribution in rows}
    if not all(is_distribution(distribution) for distribution in distributions.values()):
        raise InputError(
            f"{knowledge.uri} holds no probabilities for some classes: its teacher's weights were damaged; run"
            f" python -m zsbir.teacher {dataset.uri} with other weights"
        )
    return distributions


def load_mean_features(knowledge: Artifact) -> dict[int, Float[np.ndarray, "f"]]:
    """Read the mean of the teacher's pooled features of each class, by class id.

    Raises InputError where the knowledge holds none, or they are damaged.
    """
    file, where = knowledge.file("knowledge.parquet"), knowledge.address("knowledge.parquet")
    columns = {name: KNOWLEDGE_SCHEMA.field(name).type for name in ("class_id", "mean_features")}
    remedy = "make it again with python -m zsbir.teacher ... --mean-features"
    if not knowledge.manifest.config.get("mean_features"):
        raise InputError(f"{knowledge.uri} holds no mean features of its classes: {remedy}")
    table = read_table(file, columns, where)
    lengths = set(pc.list_value_length(table["mean_features"]).to_pylist())
    if len(lengths) != 1 or None in lengths or 0 in lengths:
        raise InputError(f"{where}: the mean features are not of one length: {remedy}")
    found = np.array(table["mean_features"].to_pylist(), np.float64)
    if not np.isfinite(found).all():
        raise InputError(f"{where}: the mean features are not finite: {remedy}")
    return dict(zip(table["class_id"].to_pylist(), found, strict=True))


def is_distribution(values: Float[np.ndarray, "t"]) -> bool:
    """Return whether values are finite, not negative, and sum to one (within rounding)."""
    return bool(np.isfinite(values).all() and values.min(initial=0) >= 0 and abs(values.sum() - 1) < _ROUNDING)
