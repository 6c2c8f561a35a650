"""Galleries that stay searched when the model changes: the champion's photos, embedded with the new model before it is champion.

A model is promoted with an index of some photos, most often those of its data set that no training saw. What the champion's index
has besides, such as a team's own folders, would be gone from every search. So each gallery of the champion's index that the new
one lacks is embedded again. Compared are galleries, not photos: an index that was made of a gallery says what is in it by now.

- A folder is the same gallery by its address.
- A data set is the same by its name: another ingest is a newer state of it. The new index has to be of the same split, or of all.

Photos of galleries that both have are taken from the new index, and so are its folders, which somebody chose to index. Photos of a
data set that the champion does not show are left out: they are there because a promotion needs an index to check.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import below_root
from zsbir.base.text import clean
from zsbir.data.index_files import IndexFiles
from zsbir.data.originals import DATASET, Source
from zsbir.index_run.changes import rows_from
from zsbir.index_run.config import IndexConfig
from zsbir.index_run.config import Settings as IndexSettings
from zsbir.index_run.growing import config_of, open_base
from zsbir.index_run.reembedding import Embedded, galleries_of, reembed
from zsbir.promotion.address import artifact_of

if TYPE_CHECKING:
    from zsbir.edge.releases import Release
    from zsbir.promotion_run.config import Permitted

WAY_OUT = (
    "The champion stays as it is, since its photos would be gone from searches: mend this and give the same command again, or"
    " promote with --gallery index, after which only the photos of --index are searched"
)

SHOWN = 3
"""Galleries that a message names."""


@dataclass(frozen=True)
class GalleryOf:
    """A gallery in an index. split: the photos of a data set that the index takes."""

    source: Source
    split: str

    @property
    def name(self) -> str:
        """What it is called for people: the address of a folder, or the name of a data set."""
        return self.source.folder or f"data set {self._dataset}"

    def covers(self, other: GalleryOf) -> bool:
        """Return whether it is a state of the other gallery, with all that the other shows."""
        if (self.source.kind, self._dataset) != (other.source.kind, other._dataset):
            return False
        if self.source.kind == DATASET:
            return self.split in (other.split, "all")
        return self.source.uri.rstrip("/") == other.source.uri.rstrip("/")

    @property
    def _dataset(self) -> str:
        """The name of the data set, which is that of the folder of all its states; "" for a folder."""
        return "" if self.source.folder else below_root(self.source.uri).rpartition("/")[0].rpartition("/")[2]


@dataclass(frozen=True)
class Kept:
    """The champion's galleries that a new index lacks. photos: how many there are in them."""

    champion: str
    base: IndexFiles
    ready: IndexFiles
    lacking: tuple[GalleryOf, ...]
    photos: int

    def sentence(self) -> str:
        """Return in one line what has to be embedded, and why."""
        return clean(
            f"{self.champion} shows {self.photos:,} photos of {_names(self.lacking)}, which {self.ready.index.uri} lacks:"
            " they are embedded with the new model before it is champion (--gallery index: not kept)"
        )

    def embedded(self, run: Artifact, settings: IndexSettings) -> Artifact:
        """Return the index that is searched afterwards: the champion's photos by the encoder of `run`; an existing one is found.

        Raises InputError or RunError, with the way out, where that fails.
        """
        lacking = {(each.source.kind, each.source.uri) for each in self.lacking}
        with champion_stays():
            how = self._how()
            chosen = self._ready_rows()
            return reembed(
                self.base,
                run,
                how,
                settings,
                max_bad_frac=how.max_bad_frac,
                wanted=lambda source: (source.kind, source.uri) in lacking,
                beside=Embedded(self.ready, chosen) if chosen.any() else None,
            )

    def _how(self) -> IndexConfig:
        """Return how the photos are embedded: as those of the new index, under the name of the champion's.

        They are linked where either index has a graph. It states the split of all photos of data sets, so that the next promotion
        compares with it.
        """
        base = config_of(self.base.index)
        splits = {each.split for each in (*self.lacking, *self._shown_too()) if each.source.kind == DATASET}
        split = splits.pop() if len(splits) == 1 else "all" if splits else base.split
        how = config_of(self.ready.index)
        return how.replace(name=base.name, gallery=base.gallery, split=split, graph=how.graph or base.graph)

    def _shown_too(self) -> list[GalleryOf]:
        """Return the galleries of the new index whose photos are searched as they are in it."""
        theirs = _galleries(self.base)
        return [each for each in _galleries(self.ready) if each.source.folder or any(each.covers(other) for other in theirs)]

    def _ready_rows(self) -> Bool[np.ndarray, "n"]:
        """Return which photos of the new index these are."""
        chosen = np.zeros(len(self.ready), bool)
        for each in self._shown_too():
            chosen[rows_from(self.ready, each.source)] = True
        return chosen


def galleries_to_keep(champion: Release, candidate: Artifact, root: str, permitted: Permitted | None = None) -> Kept | None:
    """Return what a candidate's index lacks of the galleries that the champion shows; None where it has them all.

    permitted: checks what is read for somebody else. Raises InputError or RunError, with the way out, where the champion's index
    cannot be opened, or it and the galleries may not be read. A champion that was set by hand has none.
    """
    if not champion.tags.get("index"):
        return None
    with champion_stays():
        base = open_base(_index_of(champion, root, permitted))
        ready = open_base(candidate)
        lacking = lacking_galleries(base, ready)
        if permitted:
            check_places(base, permitted, only=lacking)
        photos = sum(len(rows_from(base, each.source)) for each in lacking)
    return Kept(champion.uri, base, ready, tuple(lacking), photos) if lacking else None


def check_places(files: IndexFiles, permitted: Permitted, only: Sequence[GalleryOf] | None = None) -> None:
    """Raise InputError where segments of an index, or the galleries of its photos, may not be read. only: of these galleries."""
    wanted = None if only is None else {(each.source.kind, each.source.uri) for each in only}
    for part in files.segments:
        permitted(f"a segment of {files.index.uri}", part.artifact.uri)
    for source, segment in galleries_of(files):
        if wanted is None or (source.kind, source.uri) in wanted:
            where = source.folder or segment.artifact.input(source.role, "dataset").uri
            permitted(f"a gallery of {files.index.uri}", where)


def no_longer_shown(champion: Release, candidate: Artifact, root: str) -> str:
    """Return the galleries that are searched no more once the champion has another index, in words; "" where there is none.

    Says nothing about an index before that cannot be opened.
    """
    try:
        lacking = lacking_galleries(open_base(_index_of(champion, root)), open_base(candidate))
    except (InputError, RunError):
        return ""
    return _names(lacking)


def _index_of(champion: Release, root: str, permitted: Permitted | None = None) -> Artifact:
    """Return the index that a champion's version names."""
    check = partial(permitted, f"the index of {champion.uri}") if permitted else None
    return artifact_of(champion.uri, champion.tags, "index", root=root, permitted=check)


def lacking_galleries(base: IndexFiles, ready: IndexFiles) -> list[GalleryOf]:
    """Return the galleries of an index that another one lacks."""
    there = _galleries(ready)
    return [each for each in _galleries(base) if not any(other.covers(each) for other in there)]


@contextmanager
def champion_stays() -> Iterator[None]:
    """Add to an error that nothing has changed, and what can be done."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}. {WAY_OUT}") from None
    except RunError as error:
        raise type(error)(f"{error}. {WAY_OUT}") from None


def _names(galleries: Sequence[GalleryOf]) -> str:
    more = f" and {len(galleries) - SHOWN} more" if len(galleries) > SHOWN else ""
    return clean(", ".join(each.name for each in galleries[:SHOWN]) + more)


def _galleries(files: IndexFiles) -> Sequence[GalleryOf]:
    found = galleries_of(files)
    return [GalleryOf(source, str(segment.artifact.manifest.config.get("split", "unseen"))) for source, segment in found]
