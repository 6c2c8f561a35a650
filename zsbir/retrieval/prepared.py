"""A gallery made ready for search with options, and the queries that are asked of it: what index, search and evaluate share.

Letters: q queries, n photos, d dimensions.

    prepared = prepare_gallery(embeddings, options, statistics)
    exact.search(prepared.queries(sketch_embeddings), prepared.vectors, k)

The embeddings stay the truth: what is prepared can be made of them again, and has to be when photos come or go. Every step computes
a row in the same order of operations whatever stands beside it, so one query gives the same bits as a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from zsbir.base.errors import InputError
from zsbir.retrieval.expansion import expanded, most_results
from zsbir.retrieval.options import SearchOptions
from zsbir.retrieval.scan import Scan
from zsbir.retrieval.smoothing import SearchFunction, kinship, neighbours, smoothed
from zsbir.retrieval.whitening import Domain, DomainStatistics, unit_rows


@dataclass(frozen=True)
class PreparedGallery:
    """What is ranked in place of the embeddings of a gallery.

    vectors: one for each photo, in the same order. near: how many photos of its own kind stand around each photo, at most as many
    as the options look at; zeros where no option asks. statistics: None where no option needs them.
    """

    vectors: Float32[np.ndarray, "n d"]
    near: Float32[np.ndarray, "n"]
    options: SearchOptions
    statistics: DomainStatistics | None = None

    def queries(self, embeddings: Float32[np.ndarray, "q d"], search: SearchFunction | None = None) -> Float32[np.ndarray, "q d"]:
        """Return what to rank `vectors` by, for embeddings of sketches (the mean of both views where the options have `flip`).

        search: finds in `vectors`, and decides by which photos a query is expanded; None: all of them, by a scan of its own.
        Raises InputError for embeddings of another encoder.
        """
        queries = centred(embeddings, "sketch", self.options, self.statistics)
        most = most_results(self.near, self.options.expand)
        if not most:
            return queries
        return expanded(queries, self.vectors, self.near, most, search or searching(self.vectors))


def prepare_gallery(
    embeddings: Float32[np.ndarray, "n d"],
    options: SearchOptions,
    statistics: DomainStatistics | None = None,
    search: SearchFunction | None = None,
) -> PreparedGallery:
    """Return a gallery made ready for search.

    embeddings: of the photos (the mean of both views where the options have `flip`). search: finds in the centred embeddings; None:
    an exact scan. Neighbours take a search for each photo. Raises InputError where statistics are needed and there are none.
    """
    if options.needs_statistics and statistics is None:
        raise InputError(
            "these search options need statistics of the training embeddings, and there are none; without them: --centring off"
            " --smooth 0 --expand 0"
        )
    vectors = centred(embeddings, "photo", options, statistics)
    if not options.needs_neighbours or len(vectors) < 2:
        return PreparedGallery(vectors, np.zeros(len(vectors), np.float32), options, statistics)
    ids, similarities = neighbours(vectors, max(options.smooth, options.expand), search or searching(vectors))
    decoys = centred(statistics.decoys, "photo", options, statistics) if statistics else vectors[:0]
    weights = kinship(vectors, similarities, decoys, options.caution)
    near = sum(weights.T, start=np.zeros(len(weights), np.float32))
    if options.smooth:
        vectors = smoothed(vectors, ids[:, : options.smooth], weights[:, : options.smooth])
    return PreparedGallery(vectors, near, options, statistics)


def centred(
    embeddings: Float32[np.ndarray, "n d"], domain: Domain, options: SearchOptions, statistics: DomainStatistics | None
) -> Float32[np.ndarray, "n d"]:
    """Return embeddings of one domain as `options.centring` says. Raises InputError as `DomainStatistics.centred` does."""
    if options.centring == "off" or statistics is None:
        return embeddings
    return statistics.centred(embeddings, domain) if options.centring == "centre" else statistics.whitened(embeddings, domain)


def searching(gallery: Float32[np.ndarray, "n d"]) -> SearchFunction:
    """Return the exact search of a gallery as a function of queries and k, by a scan that is made once."""
    return Scan([gallery]).search


def mean_of_views(views: Float32[np.ndarray, "n e"]) -> Float32[np.ndarray, "n d"]:
    """Return unit rows: the mean of the two embeddings that each row holds, one after the other (e = 2 d)."""
    half = views.shape[1] // 2
    return unit_rows(views[:, :half].astype(np.float64) + views[:, half:])
