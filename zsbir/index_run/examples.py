"""Sketches that an index keeps so that a page can offer them: of the classes of its photos, from the same data set."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zsbir.base.artifact import Artifact
from zsbir.base.draft import Draft
from zsbir.data.images import BadImage, decode
from zsbir.data.samples import Samples, load_samples
from zsbir.data.segments import EXAMPLES
from zsbir.data.shards import Images

MOST = 12
SIDE_PX = 256
"""Longest side of a kept sketch."""

_TRIES = 3
_SCHEMA = pa.schema([("class_name", pa.string()), ("image", pa.binary())])


def write_examples(work: Draft, dataset: Artifact, class_names: set[str]) -> None:
    """Write up to MOST sketches of these classes, one a class and of classes spread evenly; no file where there is none."""
    samples = load_samples(dataset)
    sketches = samples.select(domain="sketch")
    names = [samples.class_names[class_id] for class_id in np.unique(samples.class_id[sketches]).tolist()]
    shown = [name for name in names if name in class_names]
    chosen = [shown[number] for number in np.unique(np.linspace(0, len(shown) - 1, min(MOST, len(shown))).astype(int))]
    images = Images(dataset, samples)
    rows = [{"class_name": name, "image": data} for name in chosen if (data := _sketch_of(name, samples, images))]
    if rows:
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), work.file(EXAMPLES))


def _sketch_of(name: str, samples: Samples, images: Images) -> bytes:
    """Return the first sketch of a class that can be read, as a small PNG file; b"" where none of the first few can."""
    of_class = samples.select(domain="sketch")
    of_class = of_class[samples.class_id[of_class] == samples.class_names.index(name)]
    for position in of_class[:_TRIES].tolist():
        try:
            image = decode(images.read(position))
        except BadImage:
            continue
        image.thumbnail((SIDE_PX, SIDE_PX))
        target = io.BytesIO()
        image.convert("L").save(target, "PNG")
        return target.getvalue()
    return b""
