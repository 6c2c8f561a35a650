"""One opened index with its encoder: images in, ranked photos out. The verb `search` and the search service use the same one.

Letters of shapes: q queries, d dimensions, n rows of the index, deleted photos included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32
from PIL import Image

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.images import eval_array
from zsbir.data.index_files import ENCODER, IndexFiles, index_file
from zsbir.data.ink import ink_of
from zsbir.data.items import Filter
from zsbir.data.segments import GRAPH, is_flipped
from zsbir.evaluation.embed import check_finite, embed_views
from zsbir.model.encoder import Encoder
from zsbir.retrieval.graph import Graph
from zsbir.retrieval.graph_facts import GraphFacts, graph_facts_of
from zsbir.retrieval.options import PLAIN, SearchOptions
from zsbir.retrieval.prepared import PreparedGallery, prepare_gallery
from zsbir.retrieval.scan import Scan
from zsbir.search_run.choice import Wanted, options_for, statistics_of
from zsbir.search_run.hits import Hit
from zsbir.search_run.meaning import Meaning, meanings
from zsbir.training.config import PRECISIONS, Precision
from zsbir.training.precision import autocast


class Engine:
    """An opened index. Every method may be called from several threads.

    threads: how many threads torch computes with in this process; None leaves them as they are. wanted: what raises quality
    (`zsbir.search_run.choice`). The photos are prepared by it once, when the index is opened, and kept beside the plain ones: five
    bytes a number more in memory. Each search is one with these options, with `expand` below theirs, or a plain one. exact: plain
    searches rank all photos, also where the index has a graph, which may miss some.

    Raises InputError for an index that is damaged, asks for more than `zsbir.base.limits` allows, or lacks the statistics that
    options need, and for options whose `flip` is not that of the index.
    """

    def __init__(self, index_uri: str, *, threads: int | None = None, wanted: Wanted = "plain", exact: bool = False):
        if threads is not None:
            torch.set_num_threads(threads)
        self.index = Artifact(index_uri, "index")
        self.encoder = Encoder.load(index_file(self.index, ENCODER)).eval()
        self.files = IndexFiles(self.index, self.encoder.embedding_dim)
        self.ink = ink_of(self.index)
        """How strokes are drawn for this encoder."""
        self._precision = _precision(self.index)
        self._flip = is_flipped(self.index)
        self.options, self.why_plain = options_for(self.index, wanted, self.photos)
        """The options of a search that names none; and why these are plain although better ones were wanted if possible."""
        self._scan = Scan(self.files.parts, alive=self.files.alive, threads=threads)
        self.graph = None if exact or GRAPH not in self.index.manifest.files else graph_facts_of(self.index)
        """How the photos are linked, where plain searches go by links; None where they rank all photos."""
        self._graph = self._linked(self.graph, threads) if self.graph else None
        self._prepared = self._prepare() if self.is_prepared else None
        self._prepared_scan = (
            Scan([self._prepared.vectors], alive=self.files.alive, threads=threads) if self._prepared else self._scan
        )
        kin = self._prepared.near if self._prepared else np.zeros(0, np.float32)
        self._meanings = meanings(self.index, self.files, [self.plain, self.options, self.switched(expand=False)], kin)

    @property
    def plain(self) -> SearchOptions:
        """The options of a plain search: the vectors of the index as they are."""
        return PLAIN.replace(flip=self._flip)

    @property
    def is_prepared(self) -> bool:
        """Whether photos are prepared, so that searches may be other than plain."""
        return self.options.centring != "off" or self.options.needs_neighbours

    def switched(self, *, improve: bool = True, expand: bool = True) -> SearchOptions:
        """Return the options of one search: those of this index, without expansion, or (`improve` off) plain ones."""
        if not (improve and self.is_prepared):
            return self.plain
        return self.options if expand else self.options.replace(expand=0)

    def meaning(self, options: SearchOptions | None = None) -> Meaning:
        """Return what scores of drawings mean. options: of the searches; None for those of this index."""
        asked = self.options if options is None else options
        return self._meanings.get(asked) or Meaning(None, self.files)

    def embed(self, images: Sequence[Image.Image]) -> Float32[np.ndarray, "q d"]:
        """Return the embeddings of images, by one forward pass for all. Raises InputError where one is not finite."""
        return self.embed_pixels([self.pixels(image) for image in images])

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Return an image as the encoder takes it: uint8, channels first, the encoder's side."""
        return eval_array(image.convert("RGB"), self.encoder.image_px)

    def embed_pixels(self, images: Sequence[np.ndarray]) -> Float32[np.ndarray, "q d"]:
        """Return the embeddings of images that `pixels` made, by one forward pass for all. Raises InputError as `embed` does."""
        pixels = torch.from_numpy(np.stack(images))
        # The same precision as for the index: drawing and photos must be embedded in the same way.
        with torch.inference_mode(), autocast(self._precision, torch.device("cpu")):
            found = embed_views(self.encoder, pixels, flip=self._flip)
        check_finite(found, "the encoder")
        return found

    @property
    def photos(self) -> int:
        """How many photos the index has, deleted ones left out."""
        return self.files.photos

    def vector(self, row: int) -> Float32[np.ndarray, "d"]:
        """Return the embedding of a photo of the index. Raises InputError for a row that is none, or that of a deleted photo."""
        alive = self.files.alive
        if not 0 <= row < len(self.files) or (alive is not None and not alive[row]):
            raise InputError(f"the index has no photo {row}")
        part = int(np.searchsorted(self.files.starts, row, side="right")) - 1
        return np.asarray(self.files.parts[part][row - int(self.files.starts[part])])

    def among(self, chosen: Filter | None) -> Bool[np.ndarray, "n"] | None:
        """Return the photos that meet a filter; None where all do. Raises InputError for a column that the index lacks."""
        return self.files.mask(chosen) if chosen else None

    def find(
        self,
        queries: Float32[np.ndarray, "q d"],
        k: int,
        *,
        among: Bool[np.ndarray, "n"] | None = None,
        min_score: float | None = None,
        options: SearchOptions | None = None,
    ) -> list[list[Hit]]:
        """Return the k nearest photos of each query, best first: fewer where fewer remain.

        among: the photos to rank, by row, as `among` returns them. min_score: lowest cosine similarity of a hit. options: None for
        those of this index. Raises InputError for k below 1, and for options that the photos are not prepared by.
        """
        scan, prepared = self._ranking(options)
        if prepared:
            queries = prepared.queries(queries, lambda asked, count: scan.search(asked, count, among=among))
        explained = self.meaning(options).explained
        return [explained(hits) for hits in self._ranked(scan, queries, k, among, min_score)]

    def neighbours(
        self,
        row: int,
        k: int,
        *,
        among: Bool[np.ndarray, "n"] | None = None,
        min_score: float | None = None,
        options: SearchOptions | None = None,
    ) -> list[Hit]:
        """Return the k photos nearest to a photo of the index, itself left out. Takes the options of `find`.

        Raises InputError for a row that the index does not have, and as `find` does.
        """
        scan, prepared = self._ranking(options)
        own = self.vector(row)
        found = self._ranked(scan, (prepared.vectors[row] if prepared else own)[None], k + 1, among, min_score)[0]
        others = [hit for hit in found if hit.item_id != row][:k]
        return [dataclasses.replace(hit, rank=rank) for rank, hit in enumerate(others, start=1)]

    def ranking(self, k: int, *, among: Bool[np.ndarray, "n"] | None = None, options: SearchOptions | None = None) -> str:
        """Return how a search ranks: "exact", or "graph, recall 0.98" where it may miss photos. Takes the options of `find`."""
        ranks = self._ranking(options)[0]
        return self.graph.text if self.graph and isinstance(ranks, Graph) and ranks.answers(k, among=among) else "exact"

    def _linked(self, facts: GraphFacts, threads: int | None) -> Graph:
        file, where = self.index.verified(GRAPH), self.index.address(GRAPH)
        return Graph.load(self._scan, file, where=where, effort=facts.effort, threads=threads)

    def _ranking(self, options: SearchOptions | None) -> tuple[Scan | Graph, PreparedGallery | None]:
        """Return what ranks by these options. Raises InputError where the photos are not prepared by them."""
        asked = self.options if options is None else options
        if asked == self.plain or self._prepared is None:
            if asked not in (self.plain, self.options):
                raise InputError(f"this index is searched with the options {self.plain.text()} alone, not {asked.text()}")
            return self._graph or self._scan, None
        # Expansion is of the query, and needs the number of kin among as many neighbours as the photos were prepared by, or none.
        looked = max(asked.smooth, asked.expand) == max(self.options.smooth, self.options.expand)
        if asked.replace(expand=self.options.expand) != self.options or not (looked or not asked.expand):
            raise InputError(
                f"this index is searched with the options {self.options.text()}, or {self.plain.text()}, not {asked.text()}"
            )
        return self._prepared_scan, dataclasses.replace(self._prepared, options=asked)

    def _ranked(
        self,
        scan: Scan | Graph,
        queries: Float32[np.ndarray, "q d"],
        k: int,
        among: Bool[np.ndarray, "n"] | None,
        min_score: float | None,
    ) -> list[list[Hit]]:
        """Rank the photos for vectors that are prepared as the photos of the scan, or the graph, are."""
        rows, scores = scan.search(queries, k, among=among)
        return [self._hits(zip(*pair, strict=True), min_score) for pair in zip(rows.tolist(), scores.tolist(), strict=True)]

    def _prepare(self) -> PreparedGallery:
        """Return the photos as the options have them ranked, by row; deleted ones have no part in it, and rows of zeros."""
        vectors, rows = self.files.living()
        made = prepare_gallery(np.ascontiguousarray(vectors), self.options, statistics_of(self.index, self.encoder.embedding_dim))
        if len(rows) == len(self.files):
            return made
        spread, near = np.zeros((len(self.files), vectors.shape[1]), np.float32), np.zeros(len(self.files), np.float32)
        spread[rows], near[rows] = made.vectors, made.near
        return PreparedGallery(spread, near, made.options, made.statistics)

    def _hits(self, found: Iterable[tuple[int, float]], min_score: float | None) -> list[Hit]:
        paths, names = self.files.paths, self.files.class_names
        good = [(row, score) for row, score in found if min_score is None or score >= min_score]
        return [Hit(rank, score, row, names[row].as_py(), paths[row].as_py()) for rank, (row, score) in enumerate(good, start=1)]


def _precision(index: Artifact) -> Precision:
    precision: Precision = index.manifest.config["precision"]
    if precision not in PRECISIONS:
        raise InputError(f"{index.uri} was embedded in a precision that is not known: {str(precision)[:100]!r}")
    return precision
