"""What scores mean: how likely a photo shows what was drawn, and below which best score nothing like it is there.

Both depend on the network and on the search options, and are measured on classes that the network was not trained on
(`zsbir.evaluation.calibration`). A run and its indexes carry them in the facts of their manifests.

The best of many photos scores higher than the best of few, though nothing fits better. For independent scores whose tail falls
exponentially the best of n grows with ln n (Gumbel, Statistics of Extremes, 1958), so the threshold moves with ln n; and where
photos are smoothed over their kin, with the share of these in the mean (this project's choice). How fast is measured.

The probability of a hit is a logistic function of its score (Platt, 1999). It never falls as the score rises. A gallery of other
classes has other odds: they are shifted from those of the calibration to those of the gallery (King and Zeng, Political Analysis 9
(2001) 137), where the gallery's classes are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from zsbir.base.artifact import Artifact
from zsbir.base.config import Config
from zsbir.base.errors import InputError
from zsbir.retrieval.options import SearchOptions

FACT = "calibrations"
"""The name of the calibrations among the facts of a manifest."""

MOST = 16
"""Calibrations that a manifest may state."""


def kin_share(kin: float) -> float:
    """Return which part of a photo and its kin are the kin, for their number: from 0 for none to 1 for any number."""
    return max(kin, 0.0) / (1 + max(kin, 0.0))


class Rate(Config):
    """A share of queries, and its confidence interval over classes."""

    mean: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)


class NoMatch(Config):
    """The best score below which a gallery most likely has nothing like the query, and how often saying so errs."""

    base: float = Field(ge=-10, le=10, description="threshold for a single photo without kin")
    per_photos: float = Field(ge=0, le=1, description="rise for each unit of the logarithm of the number of photos")
    per_kin: float = Field(
        ge=0, le=2, description="rise from a gallery of single photos to one in which every photo has many of its kind"
    )
    false_alarm: Rate = Field(description="said though the thing is there")
    miss: Rate = Field(description="not said though the thing is not there")

    def threshold(self, photos: int, kin: float = 0.0) -> float:
        """Return the threshold for a gallery.

        photos: how many are ranked. kin: how many of its kind a photo has around it, on average; 0 where options ask for none.
        """
        return self.base + self.per_photos * math.log(max(photos, 1)) + self.per_kin * kin_share(kin)


class HitProbability(Config):
    """The probability that a photo is of the drawn class, by its score."""

    intercept: float = Field(ge=-1000, le=1000, description="log odds at a score of 0, beyond those of guessing")
    slope: float = Field(ge=0, le=1000, description="rise of the log odds for each unit of score")
    error: float = Field(ge=0, le=1, description="mean difference between what was promised and what held, in ten bins")

    def at(self, score: float, classes: int) -> float:
        """Return the probability for a photo of a gallery with that many classes, one of them the drawn one; at least two."""
        logit = self.intercept + self.slope * score - math.log(classes - 1)
        return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


class Calibration(Config):
    """What the scores of one way to search mean. Each part is None where the classes it was measured on do not show it."""

    options: SearchOptions = Field(description="the search options whose scores were measured")
    no_match: NoMatch | None = Field(None, description="threshold below which nothing like the query is there")
    hit: HitProbability | None = Field(None, description="probability of a hit")
    classes: int = Field(ge=2, le=1_000_000, description="classes that it was measured on")
    photos: int = Field(ge=2, le=1_000_000_000, description="photos of the largest gallery that it was measured on")

    @property
    def measured_on(self) -> str:
        """What it was measured on, as a phrase."""
        return f"{self.classes} classes the model was not trained on, in galleries of up to {self.photos} photos"


def calibrations_of(artifact: Artifact) -> list[Calibration]:
    """Return the calibrations that the manifest of a run or an index states; none for those of earlier versions.

    Raises InputError where it states something else.
    """
    stated = artifact.manifest.facts.get(FACT)
    if stated is None:
        return []
    if not isinstance(stated, list) or len(stated) > MOST or not all(isinstance(each, dict) for each in stated):
        raise InputError(f"{artifact.uri}: its manifest states calibrations that are no list of at most {MOST} mappings")
    return [Calibration.of(each, where=f"{artifact.uri}: a calibration in its manifest") for each in stated]


def calibration_for(artifact: Artifact, options: SearchOptions) -> Calibration | None:
    """Return the calibration of searches with these options; None where it was not measured. Raises as `calibrations_of` does."""
    return next((each for each in calibrations_of(artifact) if each.options == options), None)


def calibration_facts(calibrations: Sequence[Calibration]) -> dict[str, Any]:
    """Return calibrations as facts of a manifest; nothing where there are none."""
    return {FACT: [each.model_dump(mode="json") for each in calibrations]} if calibrations else {}
