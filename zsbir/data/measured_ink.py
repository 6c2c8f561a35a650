"""The ink of a data set's sketches, measured from their pixels: width of the lines, place of the drawing, grey levels.

Each quantity is the median over a sample of drawings, so single ones that are filled in, or came from elsewhere, do not count. Of a
data set that mixes sketches of several renderers, the result is that of the majority. The method is this project's choice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int
from PIL import Image, ImageFilter

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError, RunError
from zsbir.base.seeds import stream
from zsbir.data.images import BLANK_SPREAD, BadImage, decode
from zsbir.data.ink import Ink, stated_ink
from zsbir.data.samples import Samples, load_samples
from zsbir.data.shards import Images

SAMPLE = 64
"""Sketches that are measured; 5 to 10 ms of one core each."""

SHARDS = 4
"""Shards that they are taken from."""

LEAST = 8
"""Sketches below which nothing is said."""

_LARGEST_PX = 512  # sketches are reduced to this before they are measured
_ENLARGED = 2  # lines of one or two pixels have no slopes to measure otherwise
_SHADE = 0.1  # share of the contrast at either end that is noise, as JPEG leaves around lines
_SLACK = 0.1  # share of a side that must be free for a drawing to tell where it is put
_STRETCHED = 0.97  # ratio of shorter to longer extent above which a drawing fills the picture both ways
_STEP = 0.05  # places are rounded to this: a drawing in the middle lies half a pixel off it


@dataclass(frozen=True)
class _Look:
    """What one sketch looks like. Lengths are shares of the sides, across and down; free: what is left before and after the ink."""

    line_width: float
    before: Float[np.ndarray, "2"]
    after: Float[np.ndarray, "2"]
    paper: float
    level: float

    @property
    def extent(self) -> Float[np.ndarray, "2"]:
        extent: np.ndarray = 1 - self.before - self.after
        return extent


def measure(images: Iterable[Image.Image]) -> Ink | None:
    """Return the ink of sketches, grey or RGB; None where fewer than LEAST of them show anything, or they share no ink.

    They share none where half are light on dark and half dark on light, or where what they show is no drawing at all.

    Lines of 2 to 8 px are found within 8 % of their width, thinner ones come out up to .4 px too wide; places within .05.
    """
    looks = [look for look in map(_look, images) if look is not None]
    if len(looks) < LEAST:
        return None
    paper, level = (round(float(np.median(values))) for values in zip(*((look.paper, look.level) for look in looks), strict=True))
    if abs(paper - level) <= BLANK_SPREAD:
        return None
    line = float(np.median([look.line_width for look in looks]))
    extents = np.array([look.extent for look in looks])
    free = float(np.median((1 - extents.max(1)) / 2))
    stretched = float(np.median(extents.min(1) / extents.max(1))) > _STRETCHED
    across, down = (0.5 if stretched else _place(looks, axis, free) for axis in (0, 1))
    return Ink(
        line_width=round(float(np.clip(line, 1 / 1024, 0.25)), 4),
        margin=round(float(np.clip(free + line / 2, 0, 0.45)), 4),
        across=across,
        down=down,
        keeps_proportions=not stretched,
        paper=paper,
        level=level,
    )


def _place(looks: list[_Look], axis: int, free: float) -> float:
    """Return where drawings lie that are shorter than their box along an axis: 0 at its start, 1 at its end."""
    before = np.array([look.before[axis] for look in looks]) - free
    slack = before + np.array([look.after[axis] for look in looks]) - free
    told = slack > _SLACK
    if not told.any():
        return 0.5
    place = float(np.median(np.clip(before[told] / slack[told], 0, 1)))
    return round(round(place / _STEP) * _STEP, 2)


def _look(image: Image.Image) -> _Look | None:
    """Measure one sketch; None for one that shows nothing."""
    grey = image.convert("L")
    grey.thumbnail((_LARGEST_PX, _LARGEST_PX), Image.Resampling.BOX)
    pixels = np.asarray(grey, np.float64)
    paper = float(np.median(pixels))
    low, high = float(pixels.min()), float(pixels.max())
    strongest = low - paper if paper - low >= high - paper else high - paper
    if abs(strongest) <= BLANK_SPREAD:
        return None
    drawn = (pixels - paper) / strongest
    # The lightest pixels of a line are its rims, and single ones are noise: its level is near the strongest end, not at it.
    strength = float(np.percentile(drawn[drawn > 0.5], 90))
    contrast = strongest * strength
    rows, columns = np.nonzero(drawn > strength / 2)
    sides = np.array([grey.width, grey.height], float)
    return _Look(
        line_width=_line_px(grey, paper, contrast) / float(np.sqrt(sides.prod())),
        before=np.array([columns.min(), rows.min()]) / sides,
        after=1 - (np.array([columns.max(), rows.max()]) + 1) / sides,
        paper=paper,
        level=paper + contrast,
    )


def _line_px(grey: Image.Image, paper: float, contrast: float) -> float:
    """Return the mean width of the lines in pixels: twice their area over the length of their boundary.

    A first look says how wide they are; at the second, a blur of a sixth of that has smoothed the steps of the boundary, which
    make it longer, and left lines of this width as dark as they were.
    """
    size = (grey.width * _ENLARGED, grey.height * _ENLARGED)
    large = grey.resize(size, Image.Resampling.BICUBIC)
    rough = _twice_area_over_boundary(large, paper, contrast)
    smooth = large.filter(ImageFilter.GaussianBlur(rough / 6))
    return _twice_area_over_boundary(smooth, paper, contrast) / _ENLARGED


def _twice_area_over_boundary(image: Image.Image, paper: float, contrast: float) -> float:
    """Return that of what is drawn, in pixels. The length is the image's total variation (coarea formula): rims may be soft."""
    covered = np.clip(((np.asarray(image, np.float64) - paper) / contrast - _SHADE) / (1 - 2 * _SHADE), 0, 1)
    boundary = float(np.hypot(np.diff(covered, axis=1)[:-1], np.diff(covered, axis=0)[:, :-1]).sum())
    return 2 * float(covered.sum()) / max(boundary, 1.0)


def chosen(shard: Int[np.ndarray, "n"]) -> Int[np.ndarray, "m"]:
    """Return which of n sketches are measured, in order: at most SAMPLE of them, from at most SHARDS shards.

    shard: that of each sketch. The choice is the same whenever the shards are. They are few, because one in object storage is
    fetched as a whole.
    """
    numbers = np.unique(shard)
    rng = stream("sketches to measure", len(shard))
    near = np.flatnonzero(np.isin(shard, rng.choice(numbers, min(SHARDS, len(numbers)), replace=False)))
    return np.sort(rng.choice(near, min(SAMPLE, len(near)), replace=False))


def rows_to_measure(samples: pa.Table) -> Int[np.ndarray, "m"]:
    """Return the rows of a sample table, as ingest makes it, whose sketches are measured: of training classes alone."""
    rows = np.flatnonzero(pc.and_(pc.equal(samples["split"], "train"), pc.equal(samples["domain"], "sketch")).to_numpy())
    kept: np.ndarray = rows[chosen(samples["shard"].to_numpy()[rows])]
    return kept


def measure_encoded(sketches: Iterable[bytes]) -> Ink | None:
    """Return the ink of encoded sketches, as `measure` does; those that cannot be decoded are left out."""

    def decoded() -> Iterable[Image.Image]:
        for data in sketches:
            try:
                yield decode(data)
            except BadImage:
                continue

    return measure(decoded())


def dataset_ink(dataset: Artifact, samples: Samples | None = None, images: Images | None = None) -> Ink | None:
    """Return the ink that a data set states, else that of its training classes' sketches; unseen classes are not opened.

    samples, images: the data set's, where the caller has opened it. Raises InputError for a damaged data set.
    """
    stated = stated_ink(dataset)
    if stated is not None:
        return stated
    samples = samples or load_samples(dataset)
    images = images or Images(dataset, samples)
    sketches = samples.select(split="train", domain="sketch")
    sketches = sketches[chosen(samples.shard[sketches])]
    images.prefetch(sketches)
    return measure_encoded(map(images.read, sketches.tolist()))


def run_ink(run: Artifact) -> Ink | None:
    """Return the ink that a run states, else that of its data set where that can still be read; None where it cannot."""
    stated = stated_ink(run)
    if stated is not None:
        return stated
    try:
        return dataset_ink(run.input("dataset", "dataset"))
    except (InputError, RunError, OSError):
        return None
