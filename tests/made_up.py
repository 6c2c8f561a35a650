"""Made-up artifacts for tests that need no images: data sets with a sample table alone, their runs, reports with given values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zsbir.base.config import Config
from zsbir.base.draft import draft
from zsbir.data.domains import DOMAINS, SPLITS
from zsbir.data.samples import Samples
from zsbir.data.schema import SAMPLES_SCHEMA
from zsbir.evaluation.metrics import METRICS
from zsbir.recipes import recipe

QUERIES, CLASSES = 60, 5
BASE = np.random.default_rng(7).uniform(0.2, 0.8, QUERIES)
"""A value for each query of a made-up report."""


def samples(*rows):
    """A sample table in memory, of (class name, split, domain, bytes)."""
    names = sorted({name for name, *_ in rows})
    columns = list(zip(*rows, strict=True))
    return Samples(
        class_id=np.array([names.index(name) for name in columns[0]], np.int32),
        split=np.array([SPLITS.index(split) for split in columns[1]], np.int8),
        domain=np.array([DOMAINS.index(domain) for domain in columns[2]], np.int8),
        shard=np.zeros(len(rows), np.int32),
        row=np.arange(len(rows), dtype=np.int32),
        sha256=np.array(columns[3], object),
        path=np.array([f"{number}" for number in range(len(rows))], object),
        class_names=tuple(names),
    )


def classes(*names, split="unseen", images=2):
    """Rows of classes with so many photos and sketches each, all of different bytes."""
    return [(name, split, domain, f"{name}-{domain}-{n}") for name in names for domain in DOMAINS for n in range(images)]


def stored(root, name, *rows):
    """A Dataset artifact that holds a sample table alone, and the Run of a training on it."""
    table = samples(*rows)
    columns = {
        "sample_id": range(len(rows)),
        "domain": [row[2] for row in rows],
        "class_id": table.class_id,
        "class_name": [row[0] for row in rows],
        "split": [row[1] for row in rows],
        "width": [1] * len(rows),
        "height": [1] * len(rows),
        "sha256": [row[3] for row in rows],
        "path": table.path,
        "shard": table.shard,
        "row": table.row,
    }
    with draft(root / "datasets/x" / name, "dataset", "x") as work:
        pq.write_table(pa.table(columns, schema=SAMPLES_SCHEMA), work.file("samples.parquet"))
        dataset = work.commit(digest=name * 8)
    with draft(root / "runs" / f"x-{name}", "run", "x") as work:
        return work.commit(digest=f"run{name}" * 8, inputs={"dataset": dataset.reference()})


class Asked(Config):
    protocol: str


def report(
    folder,
    name,
    trained,
    *,
    frozen=BASE,
    label="zero_shot v1",
    protocol="zero_shot",
    data="d" * 64,
    paths=None,
    labels=None,
    run=None,
):
    """A Report artifact with those values of every metric."""
    columns = {
        "path": paths or [f"sketch/{number:03}" for number in range(len(trained))],
        "class_id": labels or [number % CLASSES for number in range(len(trained))],
        "sha256": [f"{number:064x}" for number in range(len(trained))],
    }
    columns |= {f"{model}/{metric}": values for model, values in (("trained", trained), ("frozen", frozen)) for metric in METRICS}
    with draft(folder / "reports" / name, "report", name) as work:
        pq.write_table(pa.table(columns), work.file("per_query.parquet"))
        return work.commit(
            digest=name * 8,
            config=Asked(protocol=protocol),
            inputs={"run": run or {"uri": f"runs/{name}", "digest": name}, "dataset": {"uri": "datasets/toy/1", "digest": data}},
            facts={"protocol": label},
        )


def class_gains(gains, seed=0, spread=0.02):
    """A gain for each query: its class's own, and noise that averages out in each class."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, spread, QUERIES)
    labels = np.arange(QUERIES) % CLASSES
    means = np.bincount(labels, weights=noise) / np.bincount(labels)
    return np.asarray(gains)[labels] + noise - means[labels]


def trained(folder, name, values, *, seed=0, knowledge="k" * 64, **changes):
    """A Report with those values, of a Run of the recipe toy with that seed and these changes, which has no files."""
    fields = recipe("toy").replace(seed=seed, **changes)
    made_from = {"dataset": "d" * 64, "weights": "w" * 64, **({"knowledge": knowledge} if knowledge else {})}
    with draft(folder / "runs" / name, "run", "toy") as work:
        inputs = {role: {"uri": f"{role}s/1", "digest": digest} for role, digest in made_from.items()}
        run = work.commit(digest=name * 8, config=fields, inputs=inputs)
    return report(folder, name, values, run=run.reference())
