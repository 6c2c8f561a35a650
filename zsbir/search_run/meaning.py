"""What the scores of one opened index mean: the probability of a hit, and whether there is nothing like the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32

from zsbir.base.artifact import Artifact
from zsbir.data.index_files import IndexFiles
from zsbir.retrieval.calibration import Calibration, calibration_for
from zsbir.retrieval.options import SearchOptions
from zsbir.search_run.hits import Hit


class Meaning:
    """The calibration of an index for the search options that it is opened with.

    calibration: None where the scores are not calibrated; then nothing is said. near: how many of its kind each photo has around
    it, by row; None where no option asks.
    """

    def __init__(self, calibration: Calibration | None, files: IndexFiles, near: Float32[np.ndarray, "n"] | None = None):
        self.calibration = calibration
        self._photos = files.photos
        self._kin = float(near.sum()) / files.photos if near is not None and files.photos else 0.0
        self._classes = guessed_among(files.class_names, calibration.classes) if calibration and calibration.hit else 2

    @property
    def has_probabilities(self) -> bool:
        """Whether hits have a probability."""
        return self.calibration is not None and self.calibration.hit is not None

    def explained(self, hits: Sequence[Hit]) -> list[Hit]:
        """Return hits with the probability that each is of what was drawn, supposing that the index has such photos."""
        found = self.calibration.hit if self.calibration else None
        return [replace(hit, probability=found.at(hit.score, self._classes)) for hit in hits] if found else list(hits)

    def threshold(self, photos: int | None = None) -> float | None:
        """Return the best score below which most likely nothing like the query is there; None where that is not known.

        photos: how many are ranked; None: all.
        """
        found = self.calibration.no_match if self.calibration else None
        return found.threshold(self._photos if photos is None else photos, self._kin) if found else None

    def nothing_like(self, hits: Sequence[Hit], among: Bool[np.ndarray, "n"] | None = None) -> bool | None:
        """Return whether most likely nothing like the query is there; None where that is not known, or nothing was found.

        hits: of a drawing, best first. among: the photos that were ranked; None: all.
        """
        threshold = self.threshold(None if among is None else int(among.sum()))
        return hits[0].score < threshold if hits and threshold is not None else None


def meanings(
    index: Artifact, files: IndexFiles, options: Sequence[SearchOptions], near: Float32[np.ndarray, "n"]
) -> dict[SearchOptions, Meaning]:
    """Return what scores mean with each of several options. Raises InputError for a manifest that states no calibrations.

    near: as for Meaning, of the prepared photos.
    """
    return {
        each: Meaning(calibration_for(index, each), files, near if each.needs_neighbours and len(near) else None)
        for each in options
    }


def guessed_among(names: pa.ChunkedArray, otherwise: int) -> int:
    """Return how many classes photos are of, by their class names; `otherwise` where some have none, or all the same."""
    known = pc.count_distinct(names).as_py()
    return known if known > 1 and not pc.any(pc.equal(names, "")).as_py() else otherwise
