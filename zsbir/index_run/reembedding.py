"""Indexes embedded again with another run's encoder: the same photos and what is known of them, without those that were deleted.

Photos are read where their galleries are now. Those that are gone from there are left out, those that have changed are taken as
they are. A gallery of which nothing is left, such as a drive that is not mounted, is an error: nobody is to lose it unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from zsbir.base import layout, watch
from zsbir.base.artifact import Artifact, exists
from zsbir.base.config import streamed_digest
from zsbir.base.draft import Draft, draft
from zsbir.base.errors import InputError
from zsbir.base.events import Progress, say
from zsbir.data.gallery import Gallery, dataset_gallery
from zsbir.data.index_files import IndexFiles, index_file
from zsbir.data.items import common_kinds
from zsbir.data.originals import DATASET, Source, inputs_of
from zsbir.data.passed_over import PassedOver
from zsbir.data.segment_files import SegmentFiles
from zsbir.data.segments import ENCODER, EXAMPLES, holder_of
from zsbir.index_run.building import check_bad, columns_fact, copy_encoder, facts_of_run, folder_with_source, write_photos
from zsbir.index_run.changes import compared, rows_from
from zsbir.index_run.config import IndexConfig, Settings
from zsbir.index_run.embedding import embed_gallery
from zsbir.index_run.linking import write_graph
from zsbir.index_run.metadata import NONE, PATH, Metadata
from zsbir.index_run.moving import Moving, move_photos, place_of
from zsbir.index_run.writing import SegmentWriter, items_schema, write_passed_over
from zsbir.model.encoder import stated_facts
from zsbir.training.computing import computing

GONE = "gone from its gallery"
"""Why a photo of the index before is not in the new one."""


@dataclass(frozen=True)
class Embedded:
    """Photos that the same run has embedded already. chosen: the rows of an index that are copied, vectors and thumbnails."""

    files: IndexFiles
    chosen: Bool[np.ndarray, "n"]


@dataclass(frozen=True)
class _Part:
    """Photos of one gallery, in its order and as it is now, and what is known of each."""

    source: Source
    photos: Gallery
    metadata: Metadata


def reembed(
    base: IndexFiles,
    run: Artifact,
    how: IndexConfig,
    settings: Settings,
    *,
    max_bad_frac: float,
    wanted: Callable[[Source], bool] = lambda _: True,
    beside: Embedded | None = None,
) -> Artifact:
    """Return the Index artifact of the photos of `base`, embedded with the encoder of `run`; an existing one is found.

    how: by which views, in what precision, and whether with a graph. wanted: which galleries of `base` are embedded; others are
    left out. beside: photos that `run` has embedded already, which come first in the new index. Raises InputError where a gallery
    cannot be read or has none of its photos left, too many cannot be read, or metadata of `beside` are of other types.
    """
    return _Reembedding(base, run, how, settings, beside).written(wanted, max_bad_frac)


def galleries_of(files: IndexFiles) -> Iterator[tuple[Source, SegmentFiles]]:
    """Yield each gallery of which an index has a photo that is not deleted, and a segment that names it, in order of appearance."""
    found: dict[tuple[str, str], tuple[Source, SegmentFiles]] = {}
    for number, segment in enumerate(files.segments):
        numbers = segment.source_numbers()
        if files.alive is not None:
            numbers = numbers[files.alive[files.starts[number] : files.starts[number + 1]]]
        for place in np.unique(numbers).tolist():
            source = segment.sources[place]
            found.setdefault((source.kind, source.uri), (source, segment))
    yield from found.values()


class _Reembedding:
    """The making of an index of `base`'s photos with another encoder."""

    def __init__(self, base: IndexFiles, run: Artifact, how: IndexConfig, settings: Settings, beside: Embedded | None):
        self._base, self._run, self._how, self._settings, self._beside = base, run, how, settings, beside
        others = beside.files.kinds if beside else {}
        self._kinds = common_kinds([base.kinds, others], base.index.uri)
        self._passed = PassedOver()
        """What the galleries hold besides photos, and photos that are gone from them."""

    def written(self, wanted: Callable[[Source], bool], max_bad_frac: float) -> Artifact:
        """Return the new index; an existing one is found."""
        parts = self._parts(wanted)
        digest = self._digest(parts)
        name = self._base.index.manifest.name
        uri = layout.index_uri(self._settings.root, name, digest)
        if exists(uri):
            watch.record_found(uri)
            return Artifact(uri, "index")
        sources = [*self._copied_sources(), *(part.source for part in parts)]
        with draft(uri, "index", name) as work, computing():
            encoder = self._run.verified(ENCODER)
            dimensions = int(stated_facts(encoder)["embedding_dim"])
            unread = PassedOver()
            photos = self._write_segment(work, dimensions, sources, parts, unread)
            unread.show("photos that cannot be read")
            check_bad(unread, sum(len(part.photos) for part in parts), max_bad_frac)
            write_passed_over(work, unread, self._passed)
            copy_encoder(work, self._run)
            self._copy_examples(work)
            links = write_graph(work, dimensions, self._how) if self._how.graph else {}
            return work.commit(
                digest=digest,
                config=self._how,
                inputs={"run": self._run.reference(), **inputs_of(sources)},
                counts={
                    "photos": photos,
                    "dimensions": dimensions,
                    "unreadable": len(unread),
                    "passed_over": len(self._passed),
                },
                facts={**self._facts(unread), **links},
            )

    def _parts(self, wanted: Callable[[Source], bool]) -> list[_Part]:
        """Return the photos to embed, by gallery. Says how many are gone or changed."""
        base, parts, changed = self._base, [], 0
        gone: list[str] = []
        for source, segment in galleries_of(base):
            if not wanted(source):
                continue
            rows = rows_from(base, source)
            gallery, now = self._read_again(source, segment, len(rows))
            found, same = compared(base, rows, gallery)
            there = np.flatnonzero(found >= 0)
            known = base.stamps()[1][found[there]] > 0
            changed += int((known & ~same[there]).sum()) if gallery.stamps else 0
            lost = np.setdiff1d(rows, found[there])
            gone += base.paths.take(pa.array(lost)).to_pylist()
            if not len(there):
                raise InputError(
                    f"none of the {len(rows)} photos of {base.index.uri} that come from {source.uri} is left there: bring them"
                    " back, or delete them from it"
                )
            photos = gallery.chosen(there.tolist())
            parts.append(_Part(now, photos, _metadata_of(base, found[there], photos)))
        self._passed.show(f"passed over in the galleries of {base.index.uri}")
        self._passed.add_all(gone, GONE)
        if gone or changed:
            say(f"{base.index.uri}: {len(gone)} photos are gone and left out, {changed} have changed and are taken as they are now")
        return parts

    def _read_again(self, source: Source, segment: SegmentFiles, photos: int) -> tuple[Gallery, Source]:
        """Return a gallery and its source as they are now."""
        try:
            if source.kind == DATASET:
                dataset = segment.artifact.input(source.role, "dataset")
                return dataset_gallery(dataset, "all"), Source(DATASET, dataset.uri, dataset.digest)
            return folder_with_source(source.uri, self._passed)
        except InputError as error:
            raise InputError(
                f"{error}: {photos} photos of {self._base.index.uri} come from there; bring them back, or delete them from it"
            ) from None

    def _digest(self, parts: list[_Part]) -> str:
        """Return the identity of the new index: that of the one before, the encoder, and the photos as they are now."""
        of_parts = (iter([part.source.uri, part.source.digest, iter(part.photos.positions)]) for part in parts)
        stamps = (list(stamp) for part in parts for stamp in part.photos.stamps)
        beside = iter([self._beside.files.index.digest, iter(np.flatnonzero(self._beside.chosen).tolist())] if self._beside else [])
        how = [self._how.precision, self._how.flip, self._how.graph]
        return streamed_digest(["reembedded", self._base.index.digest, self._run.digest, how, of_parts, stamps, beside])

    def _copied_sources(self) -> list[Source]:
        """Return the galleries of the photos that are copied, each once."""
        if not self._beside:
            return []
        files, chosen = self._beside.files, self._beside.chosen
        spans = zip(files.starts[:-1], files.starts[1:], strict=True)
        copied = [part for part, (start, stop) in zip(files.segments, spans, strict=True) if chosen[start:stop].any()]
        return list({(source.kind, source.uri): source for part in copied for source in part.sources}.values())

    def _write_segment(self, work: Draft, dimensions: int, sources: list[Source], parts: list[_Part], unread: PassedOver) -> int:
        """Write the only segment of the new index. Return how many photos it has."""
        schema = items_schema(self._kinds, stamps=any(source.folder for source in sources), sources=len(sources) > 1)
        with SegmentWriter(work, dimensions, schema) as writer:
            if self._beside:
                files, chosen = self._beside.files, self._beside.chosen
                with Progress("copy", total=int(chosen.sum()), unit="photo") as progress:
                    known = np.full(len(files), -1, np.int64)
                    move_photos(writer, files, chosen, Moving(sources, NONE, known, progress.advance))
            for part in parts:
                embedded = embed_gallery(self._run.uri, part.photos, self._how, self._settings)
                place = place_of(sources, part.source)
                write_photos(writer, part.photos, embedded, part.metadata, unread=unread, source=place)
        return writer.photos

    def _copy_examples(self, work: Draft) -> None:
        """Copy the sketches that the index before offers, or those of the photos beside."""
        for index in [self._base.index, *([self._beside.files.index] if self._beside else [])]:
            if EXAMPLES in holder_of(index, EXAMPLES).manifest.files:
                work.file(EXAMPLES).write_bytes(index_file(index, EXAMPLES).read_bytes())
                return

    def _facts(self, unread: PassedOver) -> dict[str, Any]:
        own = {"unreadable": unread.facts(), "passed_over": self._passed.facts(), **columns_fact(self._kinds)}
        return {**own, **facts_of_run(self._run)}


def _metadata_of(base: IndexFiles, rows: Int64[np.ndarray, "m"], photos: Gallery) -> Metadata:
    """Return what an index knows of photos, in their order: rows of the index."""
    if not base.columns:
        return NONE
    paths = pa.array([path for path, _ in photos.entries], pa.string())
    wanted = pa.array(rows)
    return Metadata(pa.table({PATH: paths, **{name: column.take(wanted) for name, column in base.columns.items()}}))
