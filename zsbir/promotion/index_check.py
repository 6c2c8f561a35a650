"""A check of an index before it serves: photos and sketches are embedded again, and search must find what it should.

What is judged is the index itself: its vectors and their exact ranking, without anything that search options make of them.
A checksum shows that the files are those that were written; this check shows that what was written is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.images import BadImage, eval_image
from zsbir.data.index_files import ENCODER, IndexFiles, index_file
from zsbir.data.originals import NoOriginal
from zsbir.data.samples import load_samples
from zsbir.data.segments import is_flipped
from zsbir.data.shards import Images
from zsbir.evaluation.embed import EMBED_BATCH, embed_views
from zsbir.evaluation.protocol import Protocol, select
from zsbir.model.encoder import Encoder, saved_facts
from zsbir.retrieval.exact import search
from zsbir.retrieval.recall import find_themselves, recall_at

SAMPLE = 64
"""Photos, and sketches, that are checked at most."""

K = 10
"""Results compared for each sketch."""

TOLERANCE = {"fp32": 1e-5}
OTHER_TOLERANCE = 1e-3
"""Tolerance of a cosine between an index and its photos embedded again; bfloat16, here or where it was made, needs more."""

Arithmetic = Callable[[Any, torch.device], AbstractContextManager[object]]
"""A function from precision and device to an autocast context; the implementation is `zsbir.training.precision`."""


@dataclass(frozen=True)
class Verdict:
    """The result of the check: the share of photos that found themselves, and recall@10 of sketches against a slow ranking.

    first_lost: path of the first photo that did not find itself.
    """

    photos: int
    photos_found_frac: float
    sketches: int
    recall_at_10: float
    first_lost: str = ""

    def passed(self, least: float) -> bool:
        """Return whether every photo found itself, and recall@10 is at least `least`."""
        return self.photos_found_frac == 1 and self.recall_at_10 >= least

    def reason(self) -> str:
        """Return the result in one sentence."""
        lost = f" (first lost: {self.first_lost})" if self.first_lost else ""
        return (
            f"{round(self.photos * self.photos_found_frac)} of {self.photos} photos find themselves in the index{lost};"
            f" recall@{K} of {self.sketches} sketches {self.recall_at_10:.4f}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return all numbers as plain values."""
        return dict(vars(self))


def try_index(
    index: Artifact, run: Artifact, protocol: Protocol, *, seed: int, device: torch.device, arithmetic: Arithmetic
) -> Verdict:
    """Search the index for photos of its own gallery, and for a protocol's sketches from the run's data set.

    Raises InputError where the index was made by another run or encoder, its files do not belong together, or its gallery is gone.
    """
    encoder = _same_encoder(index, run).eval().to(device)
    files, vectors, rows = _contents(index, encoder)
    random = np.random.default_rng(seed)
    positions = _sample(len(vectors), random)
    photos = [_photo(files, row) for row in rows[positions].tolist()]
    precision, flip = str(index.manifest.config["precision"]), is_flipped(index)

    def embed(images: Sequence[bytes | None]) -> Float[np.ndarray, "n d"]:
        with torch.inference_mode(), arithmetic(precision, device):
            return _embed(encoder, images, device, flip=flip)

    found = find_themselves(embed(photos), positions, vectors, TOLERANCE.get(precision, OTHER_TOLERANCE))
    sketches = embed(_sketches(run, protocol, random))
    ranked, _ = search(sketches, vectors, K)
    lost = positions[~found]
    return Verdict(
        photos=len(positions),
        photos_found_frac=float(found.mean()),
        sketches=len(sketches),
        recall_at_10=float(recall_at(ranked, sketches, vectors).mean()),
        first_lost=files.paths[int(rows[lost[0]])].as_py() if len(lost) else "",
    )


def _same_encoder(index: Artifact, run: Artifact) -> Encoder:
    made_by = index.manifest.named("run")
    if made_by.digest != run.digest:
        raise InputError(
            f"{index.uri} was made by {made_by.uri}, not by {run.uri}: pass as --index what python -m zsbir.index {run.uri} prints"
        )
    of_run, of_index = run.verified(ENCODER), index_file(index, ENCODER)
    wanted, found = load_file(of_run), load_file(of_index)
    same = saved_facts(of_run) == saved_facts(of_index) and wanted.keys() == found.keys()
    if not same or not all(torch.equal(wanted[name], found[name]) for name in wanted):
        raise InputError(
            f"{index.uri} names {run.uri} as its run, but holds another encoder:"
            f" remove it, and make it again with python -m zsbir.index {run.uri}"
        )
    return Encoder.load(of_run)


def _contents(index: Artifact, encoder: Encoder) -> tuple[IndexFiles, Float[np.ndarray, "g d"], Int[np.ndarray, "g"]]:
    """Return the opened index, the vectors of its photos, and the row of each."""
    files = IndexFiles(index, encoder.embedding_dim)
    vectors, rows = files.living()
    if not np.isfinite(vectors).all():
        raise InputError(f"{index.uri} holds vectors that are not numbers; make the index again with python -m zsbir.index")
    return files, vectors, rows


def _photo(files: IndexFiles, row: int) -> bytes | None:
    """Return the encoded bytes of a photo, by its path, whatever counts as a photo by now; None for one that cannot be read."""
    try:
        return files.original(row)
    except NoOriginal:
        return None


def _sketches(run: Artifact, protocol: Protocol, random: np.random.Generator) -> list[bytes]:
    dataset = run.input("dataset", "dataset")
    samples = load_samples(dataset)
    queries, _ = select(samples, protocol)
    images = Images(dataset, samples)
    return [images.read(int(queries[position])) for position in _sample(len(queries), random)]


def _sample(total: int, random: np.random.Generator) -> Int[np.ndarray, "n"]:
    return np.sort(random.choice(total, min(SAMPLE, total), replace=False))


def _embed(encoder: Encoder, images: Sequence[bytes | None], device: torch.device, *, flip: bool) -> Float[np.ndarray, "n d"]:
    """Embed images by the views of the index; those that are gone or no longer readable become zeros, which match nothing."""
    pixels = np.zeros((len(images), 3, encoder.image_px, encoder.image_px), np.uint8)
    readable = np.zeros(len(images), bool)
    for number, data in enumerate(images):
        try:
            if data is not None:
                pixels[number], readable[number] = eval_image(data, encoder.image_px), True
        except BadImage:
            continue  # the photo was readable when the index was made, so it has changed since, and must not find itself
    starts = range(0, len(images), EMBED_BATCH)
    parts = [embed_views(encoder, torch.from_numpy(pixels[start : start + EMBED_BATCH]).to(device), flip=flip) for start in starts]
    vectors: np.ndarray = np.concatenate(parts) * readable[:, None]
    return vectors
