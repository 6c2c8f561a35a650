"""An index of a whole gallery, made anew."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from zsbir.base import layout, watch
from zsbir.base.artifact import Artifact, exists
from zsbir.base.config import digest_of, streamed_digest
from zsbir.base.draft import Draft, draft
from zsbir.base.errors import InputError
from zsbir.base.events import Progress, warn
from zsbir.data.gallery import FolderSource, Gallery, dataset_gallery, folder_gallery
from zsbir.data.ink import ink_facts
from zsbir.data.measured_ink import run_ink
from zsbir.data.originals import DATASET, FOLDER, Source
from zsbir.data.passed_over import PassedOver
from zsbir.data.segments import ENCODER
from zsbir.evaluation.statistics import STATISTICS_FILE
from zsbir.index_run.config import IndexConfig, Settings
from zsbir.index_run.embedding import Embedded, chunks_of, embed_gallery
from zsbir.index_run.examples import write_examples
from zsbir.index_run.linking import write_graph
from zsbir.index_run.metadata import Metadata, read_metadata
from zsbir.index_run.writing import SegmentWriter, items_schema, write_passed_over
from zsbir.model.encoder import stated_facts
from zsbir.retrieval.calibration import calibration_facts, calibrations_of
from zsbir.training.computing import computing


def build_index(run_uri: str, config: IndexConfig, settings: Settings) -> Artifact:
    """Return the Index artifact of a gallery and a run's encoder; an existing one is found if no photo has changed.

    Raises InputError for an empty gallery, too many unreadable photos, or metadata that cannot be used.
    """
    run = Artifact(run_uri, "run")
    passed = PassedOver()
    gallery, source = _gallery(run, config, passed)
    passed.show(f"passed over in {source.uri}")
    metadata = read_metadata(config.metadata)
    warn_of_unknown(metadata, gallery)
    digest = digest_of([config.identity(), run.digest, source.digest, *([metadata.sha256] if metadata.sha256 else [])])
    name = config.name or run.manifest.name
    uri = layout.index_uri(settings.root, name, digest)
    if exists(uri):
        watch.record_found(uri)
        return Artifact(uri, "index")
    with draft(uri, "index", name) as work, computing():
        encoder = run.verified(ENCODER)
        dimensions = int(stated_facts(encoder)["embedding_dim"])
        unread = PassedOver()
        schema = items_schema(metadata.kinds, stamps=bool(gallery.stamps), sources=False)
        with SegmentWriter(work, dimensions, schema) as writer:
            embedded = embed_gallery(run.uri, gallery, config, settings)
            write_photos(writer, gallery, embedded, metadata, unread=unread)
        unread.show("photos that cannot be read")
        check_bad(unread, len(gallery), config.max_bad_frac)
        write_passed_over(work, unread, passed)
        if source.kind == DATASET:
            write_examples(work, run.input("dataset", "dataset"), {name for _, name in gallery.entries})
        copy_encoder(work, run)
        graph = write_graph(work, dimensions, config) if config.graph else {}
        return work.commit(
            digest=digest,
            config=config,
            inputs={"run": run.reference(), "gallery": {"uri": source.uri, "digest": source.digest}},
            counts={
                "photos": writer.photos,
                "dimensions": dimensions,
                "unreadable": len(unread),
                "passed_over": len(passed),
            },
            facts={
                "unreadable": unread.facts(),
                "passed_over": passed.facts(),
                **columns_fact(metadata.kinds),
                **facts_of_run(run),
                **graph,
            },
        )


def copy_encoder(work: Draft, run: Artifact) -> None:
    """Copy into an index what it needs of its run: the encoder, and the statistics that search options use."""
    for name in (ENCODER, STATISTICS_FILE):
        if name in run.manifest.files:
            shutil.copyfile(run.verified(name), work.file(name))


def facts_of_run(run: Artifact) -> dict[str, Any]:
    """Return what an index says of its run: how the sketches of its training are drawn, and what scores mean."""
    return {**ink_facts(run_ink(run)), **calibration_facts(calibrations_of(run))}


def columns_fact(kinds: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return what a manifest says about columns of metadata; nothing where there are none."""
    return {"columns": kinds} if kinds else {}


def _gallery(run: Artifact, config: IndexConfig, passed: PassedOver) -> tuple[Gallery, Source]:
    """Return the photos to index, and where they come from."""
    if not config.gallery:
        dataset = run.input("dataset", "dataset")
        return dataset_gallery(dataset, config.split), Source(DATASET, dataset.uri, dataset.digest)
    return folder_with_source(config.gallery, passed)


def folder_with_source(uri: str, passed: PassedOver) -> tuple[Gallery, Source]:
    """Return the photos of a folder, and the folder as their source, with the digest of their paths, sizes and times."""
    gallery = folder_gallery(uri, passed)
    assert isinstance(gallery.source, FolderSource)
    return gallery, Source(FOLDER, gallery.source.folder.uri, streamed_digest(list(stamp) for stamp in gallery.stamps))


def warn_of_unknown(metadata: Metadata, gallery: Gallery) -> None:
    """Warn where metadata name paths that are no photos of a gallery."""
    rows = metadata.rows_of([path for path, _ in gallery.entries])
    if unknown := len(metadata.table) - len(np.unique(rows[rows >= 0])):
        warn(f"metadata: {unknown} of {len(metadata.table)} paths are not photos of the gallery")


def write_photos(
    writer: SegmentWriter,
    gallery: Gallery,
    embedded: Iterable[Embedded],
    metadata: Metadata,
    *,
    unread: PassedOver,
    source: int = 0,
) -> None:
    """Write what the photos of a gallery have become; unreadable ones are noted in `unread`. source: number of their gallery."""
    rows = metadata.rows_of([path for path, _ in gallery.entries])
    start = 0
    with Progress("index", total=len(gallery), unit="photo") as progress:
        for chunk, part in zip(chunks_of(gallery), embedded, strict=True):
            for path, reason in part.unreadable:
                unread.add(path, reason)
            numbers = start + np.array(part.places, np.int64)
            items = {**_items(gallery, part, numbers), "source": np.full(len(numbers), source), **metadata.columns(rows[numbers])}
            writer.add(part.vectors, pa.table(items))
            start += len(chunk.paths)
            progress.advance(len(chunk.paths))


def _items(gallery: Gallery, part: Embedded, numbers: Int64[np.ndarray, "m"]) -> dict[str, pa.Array]:
    """Return columns of items.parquet for a chunk's readable photos. numbers: of these photos in the gallery."""
    entries = [gallery.entries[number] for number in numbers.tolist()]
    stamps = [gallery.stamps[number] for number in numbers.tolist()] if gallery.stamps else [("", 0, 0)] * len(entries)
    return {
        "path": pa.array([path for path, _ in entries], pa.string()),
        "class_name": pa.array([name for _, name in entries], pa.string()),
        "thumbnail": pa.array(part.thumbnails, pa.binary()),
        "size": pa.array([size for _, size, _ in stamps], pa.int64()),
        "time_ns": pa.array([time for _, _, time in stamps], pa.int64()),
    }


def check_bad(unread: PassedOver, total: int, max_bad_frac: float, *, others: int = 0) -> None:
    """Raise InputError where too many of `total` photos cannot be read, or all and there are no others in the index."""
    empty = len(unread) == total and not others
    if total and (len(unread) > max_bad_frac * total or empty):
        first = next(unread.rows())
        why = "none would be left" if empty else f"more than --max-bad-frac {max_bad_frac:g} allows"
        raise InputError(f"{len(unread)} of {total} photos cannot be read, {why}; first: {first['path']}: {first['reason']}")
