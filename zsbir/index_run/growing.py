"""Indexes that grow: photos added, deleted and replaced, and compaction. Each makes a new Index artifact; the one before stays.

The new index names the segments before it and holds one of its own, with the photos that are new. What is deleted or replaced
before it is named in tombstones. So that segments stay few, the photos of those before that are no larger than the new one are
copied into it, vectors and thumbnails, and the new index does without them: each segment is larger than all after it together, and
n photos have at most log2(n) + 1. Where no segment is left before it, the new index is one that was made in one go; compaction
makes that of any.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64

from zsbir.base import layout, watch
from zsbir.base.artifact import Artifact, exists
from zsbir.base.config import streamed_digest
from zsbir.base.draft import Draft, draft
from zsbir.base.errors import InputError
from zsbir.base.events import Progress, say
from zsbir.data.gallery import Gallery
from zsbir.data.index_files import IndexFiles
from zsbir.data.items import common_kinds
from zsbir.data.originals import Source, inputs_of
from zsbir.data.passed_over import PassedOver
from zsbir.data.segments import ENCODER, GRAPH, OWN_FILES, TOMBSTONES, TOMBSTONES_SCHEMA, holder_of, index_file
from zsbir.index_run.building import check_bad, columns_fact, write_photos
from zsbir.index_run.config import GrowthConfig, IndexConfig, Settings
from zsbir.index_run.embedding import embed_gallery
from zsbir.index_run.linking import write_graph
from zsbir.index_run.metadata import NONE, Metadata
from zsbir.index_run.moving import Moving, move_photos, place_of
from zsbir.index_run.writing import SegmentWriter, items_schema, write_passed_over
from zsbir.model.encoder import stated_facts
from zsbir.retrieval import graph_facts
from zsbir.training.computing import computing

OWN_FACTS = frozenset({"unreadable", "passed_over", "columns", graph_facts.FACT})
"""Facts about a segment's own photos and their links; others, such as how sketches look, are about the whole index."""


def _no_rows() -> Int64[np.ndarray, "0"]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Change:
    """What a new index has otherwise than the one before.

    deleted: rows that go, ascending, those of replaced photos among them. added, source: photos that are new, and their gallery.
    metadata: what is known of them, and of the rows `renewed`, which stay but get other metadata: its rows `renewed_by`.
    """

    deleted: Int64[np.ndarray, "m"] = field(default_factory=_no_rows)
    renewed: Int64[np.ndarray, "r"] = field(default_factory=_no_rows)
    renewed_by: Int64[np.ndarray, "r"] = field(default_factory=_no_rows)
    added: Gallery | None = None
    source: Source | None = None
    metadata: Metadata = NONE
    passed: PassedOver = field(default_factory=PassedOver)

    def __bool__(self) -> bool:
        return bool(len(self.deleted) or len(self.renewed) or (self.added and len(self.added)))

    def digest(self, base: Artifact) -> str:
        """Return the identity of the index that this change makes of `base`."""
        stamps = self.added.stamps if self.added else ()
        source = self.source.uri if self.source else ""
        of_photos = [source, (list(stamp) for stamp in stamps), self.metadata.sha256]
        return streamed_digest(["grown", base.digest, iter(self.deleted.tolist()), iter(self.renewed.tolist()), iter(of_photos)])


def open_base(index: Artifact) -> IndexFiles:
    """Open an index whose photos are to be added to, deleted or copied into a new one."""
    return IndexFiles(index, int(stated_facts(index_file(index, ENCODER))["embedding_dim"]))


def grow(base: IndexFiles, change: Change, config: GrowthConfig, settings: Settings) -> Artifact:
    """Return the Index artifact that a change makes; an existing one is found, and `base` itself where nothing changes.

    Raises InputError where no photo would be left, too many new ones cannot be read, or metadata do not fit those that are there.
    """
    if not change:
        say(f"nothing has changed since {base.index.uri} was made")
        watch.record_found(base.index.uri)
        return base.index
    alive = np.ones(len(base), bool) if base.alive is None else base.alive.copy()
    alive[change.deleted] = False
    if not alive.any() and not (change.added and len(change.added)):
        raise InputError(f"this would leave no photo in {base.index.uri}; make an index of other photos with python -m zsbir.index")
    moved = np.zeros(len(base), bool)
    moved[change.renewed] = True
    first = _first_to_merge(base, alive, moved, len(change.added) if change.added else 0)
    plan = _Plan(base, alive, moved, first)
    return _Growth(base, change, plan, settings).written(change.digest(base.index), config.max_bad_frac)


def compact(base: IndexFiles, settings: Settings, *, graph: bool = False) -> Artifact:
    """Return an index of the same photos that is one segment, without tombstones; `base` itself where it is that already.

    graph: whether its photos are to be linked.
    """
    single = len(base.segments) == 1 and base.segments[0].artifact.digest == base.index.digest
    if single and (GRAPH in base.index.manifest.files or not graph):
        say(f"{base.index.uri} is one segment without deleted photos already{', with a graph' if graph else ''}")
        watch.record_found(base.index.uri)
        return base.index
    alive = np.ones(len(base), bool) if base.alive is None else base.alive
    plan = _Plan(base, alive, np.zeros(len(base), bool), 0)
    digest = streamed_digest(["compacted", base.index.digest, *(["graph"] if graph else [])])
    return _Growth(base, Change(), plan, settings).written(digest, 1, graph=graph)


class _Plan:
    """Which rows of the index before are kept where they are, and which are copied into the new segment.

    alive: rows that are not deleted. moved: rows to copy in any case. first: the segment from which on all are copied.
    """

    def __init__(self, base: IndexFiles, alive: Bool[np.ndarray, "n"], moved: Bool[np.ndarray, "n"], first: int):
        self.first = first
        kept = int(base.starts[first])
        self.copied = (moved | (np.arange(len(base)) >= kept)) & alive
        self.tombstones = np.flatnonzero(~alive[:kept] | self.copied[:kept])
        self.kept = kept - len(self.tombstones)


def _first_to_merge(base: IndexFiles, alive: Bool[np.ndarray, "n"], moved: Bool[np.ndarray, "n"], added: int) -> int:
    """Return the number of the first segment whose photos are copied into the new one, with all after it."""
    first, size = len(base.segments), added + int((moved & alive).sum())
    while size and first:
        start, stop = int(base.starts[first - 1]), int(base.starts[first])
        left = int((alive & ~moved)[start:stop].sum())
        if left > size:
            break
        size, first = size + left, first - 1
    return first


class _Growth:
    """The making of a new index of `base`, a change and a plan."""

    def __init__(self, base: IndexFiles, change: Change, plan: _Plan, settings: Settings):
        self._base, self._change, self._plan, self._settings = base, change, plan, settings
        self._added = change.added if change.added is not None and len(change.added) else None
        spans = zip(base.starts[:-1], base.starts[1:], strict=True)
        self._copied = [part for part, (start, stop) in zip(base.segments, spans, strict=True) if plan.copied[start:stop].any()]
        """The segments of which photos are copied."""
        self._sources = self._galleries()
        common_kinds([base.kinds, change.metadata.kinds], base.index.uri)
        self._kinds = common_kinds([*(part.kinds for part in self._copied), change.metadata.kinds], base.index.uri)

    def written(self, digest: str, max_bad_frac: float, *, graph: bool = False) -> Artifact:
        """Return the new index; an existing one is found. graph: whether its photos, all in one segment, are to be linked."""
        base, plan = self._base, self._plan
        name = base.index.manifest.name
        uri = layout.index_uri(self._settings.root, name, digest)
        if exists(uri):
            watch.record_found(uri)
            return Artifact(uri, "index")
        with draft(uri, "index", name) as work, computing():
            unread = PassedOver()
            own = self._write_segment(work, unread)
            unread.show("photos that cannot be read")
            check_bad(unread, len(self._added or ()), max_bad_frac, others=plan.kept + int(plan.copied.sum()))
            write_passed_over(work, unread, self._change.passed)
            if len(plan.tombstones):
                pq.write_table(pa.table({"row": plan.tombstones}, TOMBSTONES_SCHEMA), work.file(TOMBSTONES))
            if not plan.first:
                _copy_shared_files(work, base.index)
            if GRAPH in base.index.manifest.files and not graph:
                say("the new index has no graph, so its searches rank all photos: python -m zsbir.index compact --graph links them")
            config = config_of(base.index).replace(graph=graph)
            links = write_graph(work, base.parts[0].shape[1], config) if graph else {}
            return work.commit(
                digest=digest,
                config=config,
                inputs=self._inputs(),
                counts=self._counts(own, unread),
                facts={**self._facts(unread), **links},
            )

    def _write_segment(self, work: Draft, unread: PassedOver) -> int:
        """Write the new segment: photos copied from those before, then new ones. Return how many; no file where there is none."""
        base, change, copied = self._base, self._change, self._plan.copied
        if not self._copied and not self._added:
            return 0
        schema = items_schema(self._kinds, stamps=any(each.folder for each in self._sources), sources=len(self._sources) > 1)
        known = np.full(len(base), -1, np.int64)
        known[change.renewed] = change.renewed_by
        with SegmentWriter(work, base.parts[0].shape[1], schema) as writer:
            with Progress("copy", total=int(copied.sum()), unit="photo", quiet=not self._copied) as progress:
                moving = Moving(self._sources, change.metadata, known, progress.advance)
                move_photos(writer, base, copied, moving)
            if self._added and change.source:
                encoder = holder_of(base.index, ENCODER).uri
                embedded = embed_gallery(encoder, self._added, config_of(base.index), self._settings)
                place = place_of(self._sources, change.source)
                write_photos(writer, self._added, embedded, change.metadata, unread=unread, source=place)
        return writer.photos

    def _galleries(self) -> list[Source]:
        """Return the galleries of the new segment's photos, each once; a folder that was read again, as it is now.

        A new index without photos of its own names those of the first segment.
        """
        found = {(source.kind, source.uri): source for part in self._copied for source in part.sources}
        if self._change.source and self._added:
            found[self._change.source.kind, self._change.source.uri] = self._change.source
        return list(found.values()) or self._base.segments[0].sources

    def _inputs(self) -> dict[str, Any]:
        segments = [segment.artifact.reference() for segment in self._base.segments[: self._plan.first]]
        return {
            "run": self._base.index.manifest.inputs["run"],
            **inputs_of(self._sources),
            **({"segments": segments} if segments else {}),
        }

    def _counts(self, own: int, unread: PassedOver) -> dict[str, int]:
        plan = self._plan
        of_segments = {"own_photos": own, "segments": plan.first + bool(own), "deleted": len(plan.tombstones)}
        return {
            "photos": plan.kept + own,
            "dimensions": self._base.parts[0].shape[1],
            "unreadable": len(unread),
            "passed_over": len(self._change.passed),
            **(of_segments if plan.first else {}),
        }

    def _facts(self, unread: PassedOver) -> dict[str, Any]:
        kept = {name: fact for name, fact in self._base.index.manifest.facts.items() if name not in OWN_FACTS}
        own = {"unreadable": unread.facts(), "passed_over": self._change.passed.facts(), **columns_fact(self._kinds)}
        return {**kept, **own}


def config_of(index: Artifact) -> IndexConfig:
    """Return how the photos of an index are embedded. Raises InputError where its manifest says something else."""
    return IndexConfig.of(index.manifest.config, where=index.uri)


def _copy_shared_files(work: Draft, index: Artifact) -> None:
    """Copy what is about the whole index, such as its encoder, from where it lies."""
    holder = holder_of(index, ENCODER)
    for name in holder.manifest.files:
        if name not in OWN_FILES:
            shutil.copyfile(holder.verified(name), work.file(name))
