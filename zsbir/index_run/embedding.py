"""Photos to embeddings and thumbnails, in this process or by Ray workers: the same bytes for any number of them.

Every forward pass has EMBED_BATCH images, the last ones of a chunk blank where photos are missing: kernels for fewer images round
otherwise, and differently with the number of threads. So an embedding depends on its photo and the encoder alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from zsbir.base.artifact import Artifact
from zsbir.data.gallery import Gallery, Item, PhotoSource, Unreadable, read_item
from zsbir.data.loader import STEPS_AHEAD
from zsbir.evaluation.embed import EMBED_BATCH, check_finite, embed_views
from zsbir.index_run.config import IndexConfig, Settings
from zsbir.model.encoder import Encoder
from zsbir.training.context import default_device
from zsbir.training.precision import autocast


@dataclass(frozen=True)
class Chunk:
    """Photos of one forward pass, at most EMBED_BATCH: their paths, and in a data set their positions in the sample table."""

    paths: tuple[str, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Embedded:
    """What a chunk became. places: of each readable photo, its place in the chunk. unreadable: path and reason of the others."""

    vectors: Float32[np.ndarray, "m d"]
    thumbnails: tuple[bytes, ...]
    places: tuple[int, ...]
    unreadable: tuple[tuple[str, str], ...]


def chunks_of(gallery: Gallery) -> Iterator[Chunk]:
    """Yield the photos of a gallery in order, EMBED_BATCH at a time."""
    for start in range(0, len(gallery), EMBED_BATCH):
        entries = gallery.entries[start : start + EMBED_BATCH]
        positions = gallery.positions[start : start + EMBED_BATCH] or (-1,) * len(entries)
        yield Chunk(tuple(path for path, _ in entries), positions)


def embed_gallery(encoder_uri: str, gallery: Gallery, config: IndexConfig, settings: Settings) -> Iterator[Embedded]:
    """Yield what each chunk of a gallery becomes, in order. encoder_uri: of the artifact whose encoder.safetensors embeds.

    config: of the index, which says in what precision and by which views. Raises InputError where an embedding is not finite.
    """
    if not settings.num_workers:
        gallery.source.prefetch(gallery.positions)
        yield from Embedder(encoder_uri, gallery.source, config).embed(chunks_of(gallery))
        return
    from zsbir.edge.ray_map import ray_map  # Ray is loaded only where it is asked for

    yield from ray_map(
        Embedder,
        (encoder_uri, gallery.source, config),
        "embed_fetched",
        chunks_of(gallery),
        workers=settings.num_workers,
        gpus_per_worker=settings.gpus_per_worker,
    )


class Embedder:
    """An encoder and a source of photos; each worker makes one."""

    def __init__(self, encoder_uri: str, source: PhotoSource, config: IndexConfig):
        self._source, self._config, self._device = source, config, default_device()
        self._encoder = Encoder.load(Artifact(encoder_uri).verified("encoder.safetensors")).eval().to(self._device)

    def embed_fetched(self, chunks: list[Chunk]) -> Iterator[Embedded]:
        """Yield what a few chunks become, their shards fetched together first."""
        self._source.prefetch([position for chunk in chunks for position in chunk.positions])
        yield from self.embed(chunks)

    def embed(self, chunks: Iterable[Chunk]) -> Iterator[Embedded]:
        """Yield what each chunk becomes, while threads decode the next ones."""
        for items in self._decoded(chunks):
            places = [place for place, item in enumerate(items) if isinstance(item, Item)]
            readable = [item for item in items if isinstance(item, Item)]
            yield Embedded(
                self._forward(readable),
                tuple(item.thumbnail for item in readable),
                tuple(places),
                tuple((item.path, item.reason) for item in items if isinstance(item, Unreadable)),
            )

    def _forward(self, items: list[Item]) -> Float32[np.ndarray, "m d"]:
        pixels = np.zeros((EMBED_BATCH, 3, self._encoder.image_px, self._encoder.image_px), np.uint8)
        for place, item in enumerate(items):
            pixels[place] = item.pixels
        if not items:
            return np.zeros((0, self._encoder.embedding_dim), np.float32)
        with torch.inference_mode(), autocast(self._config.precision, self._device):
            vectors = embed_views(self._encoder, torch.from_numpy(pixels).to(self._device), flip=self._config.flip)
        check_finite(vectors[: len(items)], "the encoder")
        return vectors[: len(items)]

    def _decoded(self, chunks: Iterable[Chunk]) -> Iterator[list[Item | Unreadable]]:
        """Yield the photos of each chunk, read by threads that work STEPS_AHEAD chunks ahead."""
        waiting: deque[list[Future[Item | Unreadable]]] = deque()
        with ThreadPoolExecutor(self._source.threads, thread_name_prefix="decode") as pool:
            try:
                for chunk in chunks:
                    read = zip(chunk.paths, chunk.positions, strict=True)
                    waiting.append([pool.submit(read_item, self._source, *each, self._encoder.image_px) for each in read])
                    if len(waiting) > STEPS_AHEAD:
                        yield [future.result() for future in waiting.popleft()]
                while waiting:
                    yield [future.result() for future in waiting.popleft()]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
