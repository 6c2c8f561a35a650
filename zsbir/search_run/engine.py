"""One opened index with its encoder: images in, ranked photos out. The verb `search` and the search service use the same one.

Letters of shapes: q queries, d dimensions, n rows of the index, deleted photos included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

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
from zsbir.data.segments import holder_of
from zsbir.evaluation.embed import check_finite
from zsbir.evaluation.statistics import STATISTICS_FILE
from zsbir.model.encoder import Encoder
from zsbir.retrieval.calibration import calibration_for
from zsbir.retrieval.options import PLAIN, SearchOptions
from zsbir.retrieval.prepared import PreparedGallery, prepare_gallery
from zsbir.retrieval.scan import Scan
from zsbir.retrieval.whitening import DomainStatistics, load_statistics
from zsbir.search_run.hits import Hit
from zsbir.search_run.meaning import Meaning
from zsbir.training.config import PRECISIONS, Precision
from zsbir.training.precision import autocast


class Engine:
    """An opened index. Every method may be called from several threads.

    threads: how many threads torch computes with in this process; None leaves them as they are. options: what raises quality, made
    of the index's vectors when it is opened. Raises InputError for an index that is damaged, asks for more than `zsbir.base.limits`
    allows, or lacks the statistics that options need, and for `flip`: its photos are embedded one way.
    """

    def __init__(self, index_uri: str, *, threads: int | None = None, options: SearchOptions = PLAIN):
        if threads is not None:
            torch.set_num_threads(threads)
        self.index = Artifact(index_uri, "index")
        self.encoder = Encoder.load(index_file(self.index, ENCODER)).eval()
        self.files = IndexFiles(self.index, self.encoder.embedding_dim)
        self.ink = ink_of(self.index)
        """How strokes are drawn for this encoder."""
        self.options = options
        self._prepared = self._prepare() if options.changes_ranking else None
        parts = [self._prepared.vectors] if self._prepared else self.files.parts
        self._scan = Scan(parts, alive=self.files.alive, threads=threads)
        self._precision = _precision(self.index)
        kin = self._prepared.near if self._prepared else np.zeros(0, np.float32)
        self.meaning = Meaning(calibration_for(self.index, options), self.files, kin)
        """What the scores of searches by drawings mean."""

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
            found: np.ndarray = self.encoder(pixels)[0].float().numpy()
        check_finite(found, "the encoder")
        return found

    @property
    def photos(self) -> int:
        """Photos that are not deleted."""
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
    ) -> list[list[Hit]]:
        """Return the k nearest photos of each query, best first: fewer where fewer remain.

        among: the photos to rank, by row, as `among` returns them. min_score: lowest cosine similarity of a hit. Raises InputError
        for k below 1.
        """
        if self._prepared:
            queries = self._prepared.queries(queries, lambda asked, count: self._scan.search(asked, count, among=among))
        return [self.meaning.explained(hits) for hits in self._ranked(queries, k, among, min_score)]

    def _ranked(
        self, queries: Float32[np.ndarray, "q d"], k: int, among: Bool[np.ndarray, "n"] | None, min_score: float | None
    ) -> list[list[Hit]]:
        """Rank the photos for vectors that are prepared as the photos are."""
        rows, scores = self._scan.search(queries, k, among=among)
        return [self._hits(zip(*pair, strict=True), min_score) for pair in zip(rows.tolist(), scores.tolist(), strict=True)]

    def neighbours(self, row: int, k: int, **options: Any) -> list[Hit]:
        """Return the k photos nearest to a photo of the index, itself left out. Takes the options of `find`.

        Raises InputError for a row that the index does not have.
        """
        vector = self.vector(row) if self._prepared is None else self._prepared.vectors[row]
        found = self._ranked(vector[None], k + 1, options.get("among"), options.get("min_score"))[0]
        others = [hit for hit in found if hit.item_id != row][:k]
        return [Hit(rank, hit.score, hit.item_id, hit.class_name, hit.path) for rank, hit in enumerate(others, start=1)]

    def _prepare(self) -> PreparedGallery:
        """Return the photos as the options have them ranked, by row; deleted ones have no part in it, and rows of zeros."""
        if self.options.flip:
            raise InputError("an index holds photos embedded one way, so its search cannot average mirror images: pass --no-flip")
        vectors, rows = self.files.living()
        made = prepare_gallery(np.ascontiguousarray(vectors), self.options, self._statistics())
        if len(rows) == len(self.files):
            return made
        spread, near = np.zeros((len(self.files), vectors.shape[1]), np.float32), np.zeros(len(self.files), np.float32)
        spread[rows], near[rows] = made.vectors, made.near
        return PreparedGallery(spread, near, made.options, made.statistics)

    def _statistics(self) -> DomainStatistics | None:
        """Return the statistics of the index's encoder; None where its run had none."""
        holder = holder_of(self.index, ENCODER)
        if STATISTICS_FILE not in holder.manifest.files:
            return None
        return load_statistics(holder.verified(STATISTICS_FILE), self.encoder.embedding_dim)

    def _hits(self, found: Iterable[tuple[int, float]], min_score: float | None) -> list[Hit]:
        paths, names = self.files.paths, self.files.class_names
        good = [(row, score) for row, score in found if min_score is None or score >= min_score]
        return [Hit(rank, score, row, names[row].as_py(), paths[row].as_py()) for rank, (row, score) in enumerate(good, start=1)]


def _precision(index: Artifact) -> Precision:
    precision: Precision = index.manifest.config["precision"]
    if precision not in PRECISIONS:
        raise InputError(f"{index.uri} was embedded in a precision that is not known: {str(precision)[:100]!r}")
    return precision
