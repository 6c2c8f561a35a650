"""Centring and mild whitening of embeddings by statistics of training data, the sketches and the photos each by their own mean.

Letters: n rows, c classes, d dimensions.

The mean sketch and the mean photo of a trained network differ, and so do the directions in which the two kinds vary. Each embedding
loses the mean of its kind and is multiplied by the inverse fourth root of what should not matter: the covariance within classes,
plus that of the differences between a class's mean sketch and its mean photo. The square root would whiten fully; the fourth root
takes half of that way and amplifies less noise (this project's choice; docs/benchmarks/2026-11-30-search-quality.md). Only images
that the network was trained on count, so a search with these statistics is as much a zero-shot search as one without.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int32

from zsbir.base.errors import InputError
from zsbir.retrieval.exact import NORMALISE_ROWS, grid_scores, on_grid

Domain = Literal["sketch", "photo"]

SHRINK = 0.3
"""Share of the covariance that is replaced by the same variance in every direction."""

MOST_DECOYS = 1000
"""Training photos that are kept: a file of them is twice the size of the whitening matrix, for 512 dimensions."""

_HEADER_BYTES = 4096
"""Bytes that a file of statistics may have beside its numbers."""


@dataclass(frozen=True)
class DomainStatistics:
    """What is kept of the embeddings of training images.

    sketch_mean, photo_mean: the mean of each domain. root: the matrix that whitens; its largest eigenvalue is 1. decoys: embeddings
    of training photos as they are, by which `smoothing` judges neighbours.
    """

    sketch_mean: Float32[np.ndarray, "d"]
    photo_mean: Float32[np.ndarray, "d"]
    root: Float32[np.ndarray, "d d"]
    decoys: Float32[np.ndarray, "m d"]

    @property
    def dimensions(self) -> int:
        """Dimensions of the embeddings that these statistics are of."""
        return len(self.sketch_mean)

    def centred(self, embeddings: Float32[np.ndarray, "n d"], domain: Domain) -> Float32[np.ndarray, "n d"]:
        """Return unit rows: the embeddings minus the mean of their domain. The bits of a row do not depend on the other rows.

        Raises InputError for another number of dimensions, and for NaN.
        """
        mean = self.sketch_mean if domain == "sketch" else self.photo_mean
        if embeddings.shape[1:] != mean.shape:
            raise InputError(
                f"embeddings of {embeddings.shape[1:]} dimensions, but statistics of {len(mean)}; take both from one encoder"
            )
        return unit_rows(embeddings - mean)

    def whitened(self, embeddings: Float32[np.ndarray, "n d"], domain: Domain) -> Float32[np.ndarray, "n d"]:
        """Return unit rows: the embeddings centred, and multiplied by `root`. Bits and errors as of `centred`."""
        cosines = grid_scores(on_grid(self.centred(embeddings, domain)), self._root_grid)
        return unit_rows((cosines * self._root_lengths).astype(np.float32))

    def save(self, path: Path) -> None:
        """Write one safetensors file that `load_statistics` reads."""
        from safetensors.numpy import save_file

        save_file({field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}, path)

    @cached_property
    def _root_grid(self) -> Int32[np.ndarray, "d d"]:
        """The directions of the matrix's rows as integers, made once: it takes longer than the search of a query."""
        return on_grid(self.root, name="whitening")

    @cached_property
    def _root_lengths(self) -> Float64[np.ndarray, "d"]:
        rows = self.root.astype(np.float64)
        lengths: np.ndarray = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        return lengths


def load_statistics(path: Path, dimensions: int) -> DomainStatistics:
    """Read statistics of embeddings with that many dimensions.

    Raises InputError for any other file; one that asks for more memory than such statistics take is not read.
    """
    from safetensors import SafetensorError

    try:
        return DomainStatistics(**_tensors(path, dimensions))
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no statistics of embeddings ({error})") from None


def _tensors(path: Path, dimensions: int) -> dict[str, np.ndarray]:
    """Read the tensors of a file of statistics. Raises ValueError where they are others."""
    from safetensors import safe_open

    if path.stat().st_size > 4 * dimensions * (dimensions + 2 + MOST_DECOYS) + _HEADER_BYTES:
        raise ValueError(f"it has more bytes than those of {dimensions} dimensions")
    with safe_open(path, framework="numpy") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a mapping
        decoys = shapes.get("decoys", [0])[0]
        fixed = {"sketch_mean": [dimensions], "photo_mean": [dimensions], "root": [dimensions, dimensions]}
        if shapes != {**fixed, "decoys": [decoys, dimensions]} or decoys > MOST_DECOYS:
            raise ValueError(f"its tensors are not those of {dimensions} dimensions")
        tensors = {name: file.get_tensor(name) for name in shapes}
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise ValueError(f"{name} is not of finite float32 numbers")
    return tensors


def measure_statistics(
    sketches: Float32[np.ndarray, "n d"],
    sketch_classes: Int[np.ndarray, "n"],
    photos: Float32[np.ndarray, "m d"],
    photo_classes: Int[np.ndarray, "m"],
    *,
    shrink: float = SHRINK,
) -> DomainStatistics:
    """Return the statistics of training embeddings. Classes that lack sketches or photos count for the rest alone.

    shrink: share of the covariance to replace by the same variance in every direction, above 0: few images leave directions in
    which nothing varies. Raises InputError where there is no sketch or no photo.
    """
    if not len(sketches) or not len(photos):
        raise InputError("statistics of embeddings need training sketches and training photos")
    both = [(sketches.astype(np.float64), sketch_classes), (photos.astype(np.float64), photo_classes)]
    sketch_means, photo_means = (_class_means(rows, classes) for rows, classes in both)
    residuals = np.concatenate([_residuals(rows, classes) for rows, classes in both])
    common, mine, theirs = np.intersect1d(np.unique(sketch_classes), np.unique(photo_classes), return_indices=True)
    between = sketch_means[mine] - photo_means[theirs]
    covariance = residuals.T @ residuals / len(residuals)
    if len(common) > 1:
        covariance += np.cov(between, rowvar=False, bias=True)
    return DomainStatistics(
        sketch_mean=both[0][0].mean(axis=0).astype(np.float32),
        photo_mean=both[1][0].mean(axis=0).astype(np.float32),
        root=_inverse_fourth_root(covariance, shrink),
        decoys=photos[_spread(len(photos), MOST_DECOYS)].astype(np.float32),
    )


def unit_rows(rows: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Scale rows to length 1; a row of zeros stays zero. Computed in float64, row by row, and rounded once."""
    result = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), NORMALISE_ROWS):
        part = rows[start : start + NORMALISE_ROWS].astype(np.float64)
        squares = np.einsum("nd,nd->n", part, part)
        result[start : start + NORMALISE_ROWS] = part / np.sqrt(np.where(squares > 0, squares, 1.0))[:, None]
    return result


def _spread(count: int, most: int) -> Int[np.ndarray, "m"]:
    """Return at most that many of `count` positions, evenly spread."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)


def _inverse_fourth_root(covariance: Float64[np.ndarray, "d d"], shrink: float) -> Float32[np.ndarray, "d d"]:
    """Return the symmetric root of the shrunk covariance, scaled so that its largest eigenvalue is 1."""
    variance = np.trace(covariance) / len(covariance)
    shrunk = (1 - shrink) * covariance + shrink * (variance or 1.0) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(shrunk)
    root = np.maximum(values, values[-1] * 1e-12) ** -0.25
    matrix = (vectors * (root / root.max())) @ vectors.T
    symmetric: np.ndarray = (matrix + matrix.T) / 2
    return symmetric.astype(np.float32)


def _class_means(rows: Float64[np.ndarray, "n d"], classes: Int[np.ndarray, "n"]) -> Float64[np.ndarray, "c d"]:
    return np.stack([rows[classes == label].mean(axis=0) for label in np.unique(classes)])


def _residuals(rows: Float64[np.ndarray, "n d"], classes: Int[np.ndarray, "n"]) -> Float64[np.ndarray, "n d"]:
    residuals: np.ndarray = rows - _class_means(rows, classes)[np.unique(classes, return_inverse=True)[1]]
    return residuals
