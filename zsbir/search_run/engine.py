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
from zsbir.evaluation.embed import check_finite
from zsbir.model.encoder import Encoder
from zsbir.retrieval.scan import Scan
from zsbir.search_run.hits import Hit, SearchOptions
from zsbir.training.config import PRECISIONS, Precision
from zsbir.training.precision import autocast


class Engine:
    """An opened index. Every method may be called from several threads.

    threads: how many threads torch computes with in this process; None leaves them as they are. Raises InputError for an index that
    is damaged or asks for more than `zsbir.base.limits` allows.
    """

    def __init__(self, index_uri: str, *, threads: int | None = None):
        if threads is not None:
            torch.set_num_threads(threads)
        self.index = Artifact(index_uri, "index")
        self.encoder = Encoder.load(index_file(self.index, ENCODER)).eval()
        self.files = IndexFiles(self.index, self.encoder.embedding_dim)
        self.ink = ink_of(self.index)
        """How strokes are drawn for this encoder."""
        self._scan = Scan(self.files.parts, alive=self.files.alive, threads=threads)
        self._precision = _precision(self.index)

    def embed(self, images: Sequence[Image.Image], options: SearchOptions | None = None) -> Float32[np.ndarray, "q d"]:  # noqa: ARG002
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
        rows, scores = self._scan.search(queries, k, among=among)
        return [self._hits(zip(*pair, strict=True), min_score) for pair in zip(rows.tolist(), scores.tolist(), strict=True)]

    def neighbours(self, row: int, k: int, **options: Any) -> list[Hit]:
        """Return the k photos nearest to a photo of the index, itself left out. Takes the options of `find`.

        Raises InputError for a row that the index does not have.
        """
        found = self.find(self.vector(row)[None], k + 1, **options)[0]
        others = [hit for hit in found if hit.item_id != row][:k]
        return [Hit(rank, hit.score, hit.item_id, hit.class_name, hit.path) for rank, hit in enumerate(others, start=1)]

    def _hits(self, found: Iterable[tuple[int, float]], min_score: float | None) -> list[Hit]:
        paths, names = self.files.paths, self.files.class_names
        good = [(row, score) for row, score in found if min_score is None or score >= min_score]
        return [Hit(rank, score, row, names[row].as_py(), paths[row].as_py()) for rank, (row, score) in enumerate(good, start=1)]


def _precision(index: Artifact) -> Precision:
    precision: Precision = index.manifest.config["precision"]
    if precision not in PRECISIONS:
        raise InputError(f"{index.uri} was embedded in a precision that is not known: {str(precision)[:100]!r}")
    return precision
