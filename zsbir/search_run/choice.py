"""Which search options an index is opened with."""

from __future__ import annotations

from typing import Literal

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.segments import ENCODER, holder_of, is_flipped
from zsbir.evaluation.statistics import STATISTICS_FILE
from zsbir.retrieval.options import PLAIN, SearchOptions
from zsbir.retrieval.whitening import DomainStatistics, load_statistics
from zsbir.search_run.hits import AUTO_PHOTOS

Wanted = SearchOptions | Literal["auto", "default", "plain"]
"""Options; or those that are on by default, none of them, or by default only where the index is fit for them (`options_for`)."""


def options_for(index: Artifact, wanted: Wanted, photos: int) -> tuple[SearchOptions, str]:
    """Return the options that an index of so many photos is opened with, and why "auto" leaves everything out, or "".

    Whether mirror images are averaged was decided when the index was made. Raises InputError where options say otherwise, and for
    "default" where the index has no statistics of training embeddings.
    """
    flip = is_flipped(index)
    if isinstance(wanted, SearchOptions):
        if wanted.flip != flip:
            held = "its photos with their mirror images" if flip else "photos embedded one way, without mirror images"
            raise InputError(f"{index.uri} holds {held}, and is searched alike: pass {'--flip' if flip else '--no-flip'}")
        return wanted, ""
    if wanted == "plain":
        return PLAIN.replace(flip=flip), ""
    missing = ""
    if STATISTICS_FILE not in holder_of(index, ENCODER).manifest.files:
        missing = "the index has no statistics of training embeddings; one that is made anew, of a run that has them, does"
    if missing and wanted == "default":
        raise InputError(f"{index.uri} cannot be searched with the default options: {missing}; without them: plain")
    if not missing and wanted == "auto" and photos > AUTO_PHOTOS:
        missing = f"more than {AUTO_PHOTOS:,} photos are prepared for search options only where these are asked for"
    return (PLAIN if missing else SearchOptions()).replace(flip=flip), missing


def statistics_of(index: Artifact, dimensions: int) -> DomainStatistics | None:
    """Return the statistics of an index's encoder; None where its run had none. Raises InputError where they are damaged."""
    holder = holder_of(index, ENCODER)
    if STATISTICS_FILE not in holder.manifest.files:
        return None
    return load_statistics(holder.verified(STATISTICS_FILE), dimensions)
