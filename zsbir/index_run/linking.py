"""A graph over the photos of a new index: links between them, and how many of the right photos a search by these finds.

Recall is measured on the sketches that the index keeps as examples, where it has any. Drawings lie outside of the cloud of photos,
and a graph finds less by them than by photos. An index of a folder has none: there photos are moved half-way to anywhere
(cosine about .7, as a drawing and a fitting photo may have), which says less about drawings.

Letters: q queries, n photos, d dimensions.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from zsbir.base.draft import Draft
from zsbir.base.events import Progress, say
from zsbir.base.seeds import stream
from zsbir.data.images import decode, eval_array
from zsbir.data.index_files import read_examples
from zsbir.data.segment_files import open_vectors
from zsbir.data.segments import ENCODER, EXAMPLES, GRAPH, VECTORS
from zsbir.evaluation.embed import embed_views
from zsbir.index_run.config import IndexConfig
from zsbir.model.encoder import Encoder
from zsbir.retrieval.graph import BUILD_EFFORT, EFFORT, LINKS, Graph
from zsbir.retrieval.graph_facts import GraphFacts
from zsbir.retrieval.scan import Scan
from zsbir.retrieval.whitening import unit_rows
from zsbir.training.context import default_device
from zsbir.training.precision import autocast

MOVED = 200
"""Photos that are moved to be queries, at most."""


def write_graph(work: Draft, dimensions: int, config: IndexConfig) -> dict[str, Any]:
    """Link the photos of an index whose other files are written, and return what its manifest says about that."""
    threads = torch.get_num_threads()
    scan = Scan([open_vectors(work.file(VECTORS), dimensions, VECTORS)], threads=threads)
    began_s = time.monotonic()
    with Progress("link", total=len(scan), unit="photo") as progress:
        graph = Graph.build(scan, threads=threads, advance=progress.advance)
    build_s = round(time.monotonic() - began_s, 1)
    graph.save(work.file(GRAPH))
    queries, measured_on = _queries(work, scan, config)
    facts = GraphFacts(
        links=LINKS,
        build_effort=BUILD_EFFORT,
        effort=EFFORT,
        recall_at_10=round(float(graph.recall(queries, 10).mean()), 4),
        recall_at_100=round(float(graph.recall(queries, 100).mean()), 4),
        measured_on=measured_on,
        build_s=build_s,
        threads=threads,
    )
    say(f"searches by the graph: recall@10 {facts.recall_at_10:.4f}, recall@100 {facts.recall_at_100:.4f}, of {measured_on}")
    return facts.as_facts()


def _queries(work: Draft, scan: Scan, config: IndexConfig) -> tuple[Float32[np.ndarray, "q d"], str]:
    """Return the queries to measure recall on, and what they are."""
    examples = work.file(EXAMPLES)
    if examples.exists():
        images = [example.image for example in read_examples(examples, EXAMPLES)]
        return _embedded(work, images, config), f"{len(images)} sketches of the data set"
    random = stream("queries of a graph", len(scan))
    rows = np.sort(random.choice(len(scan), min(MOVED, len(scan)), replace=False))
    photos = unit_rows(scan.rows.take(rows))
    moved = photos + random.standard_normal(photos.shape) / np.sqrt(photos.shape[1])
    return moved.astype(np.float32), f"{len(rows)} of its photos, moved at random"


def _embedded(work: Draft, images: list[bytes], config: IndexConfig) -> Float32[np.ndarray, "q d"]:
    device = default_device()
    encoder = Encoder.load(work.file(ENCODER)).eval().to(device)
    pixels = torch.from_numpy(np.stack([eval_array(decode(image).convert("RGB"), encoder.image_px) for image in images]))
    with torch.inference_mode(), autocast(config.precision, device):
        return embed_views(encoder, pixels.to(device), flip=config.flip)
