"""Measuring what scores mean, on classes that a network was not trained on: galleries with, and without, what is drawn.

Each class is held out in turn: its sketches are asked of a gallery that has it and of the same gallery without it. The galleries
differ in size, with 1, 3, 10 or all photos of a class and with all classes or every second one, so that a threshold is found that
holds for galleries of other sizes (docs/benchmarks/2026-11-30-calibration.md). What they found is a trial each, from which
`zsbir.evaluation.calibration_fits` makes a calibration.

Letters: q queries, k hits, n photos, d dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int

from zsbir.base.seeds import stream
from zsbir.data.samples import Samples
from zsbir.data.shards import Images
from zsbir.evaluation.calibration_fits import Trial, fit_hits, fit_no_match
from zsbir.evaluation.embed import Forward, both_views, check_finite, embed
from zsbir.retrieval.calibration import Calibration, kin_share
from zsbir.retrieval.options import PLAIN, SearchOptions
from zsbir.retrieval.prepared import mean_of_views, prepare_gallery, searching
from zsbir.retrieval.whitening import DomainStatistics

FEWEST_CLASSES = 4
"""With fewer classes an interval over them says nothing, and nothing is calibrated."""

MOST_CLASSES = 30
"""Classes that are measured at most, spread evenly: each is held out of each gallery."""

MEASURED = (PLAIN, SearchOptions(), SearchOptions(expand=0))
"""What is calibrated: plain searches, those that are on by default, and these without expansion, which a page can switch off."""

PHOTOS_PER_CLASS = (1, 3, 10, 0)
"""Photos of a class in the galleries; 0: all."""

MOST_SKETCHES, MOST_PHOTOS = 500, 1000
"""Images that are embedded at most, drawn once for all where there are more."""

HITS = 24
"""The first photos found, whose probability is fitted: as many as the page shows."""


class Labelled(NamedTuple):
    """Embeddings of sketches and photos, and the class of each."""

    sketches: Float32[np.ndarray, "q d"]
    sketch_classes: Int[np.ndarray, "q"]
    photos: Float32[np.ndarray, "n d"]
    photo_classes: Int[np.ndarray, "n"]


def measured_calibrations(
    output: Forward,
    samples: Samples,
    images: Images,
    statistics: DomainStatistics,
    *,
    image_px: int,
    device: torch.device,
    autocast: AbstractContextManager[object] | None = None,
    alone: bool = False,
) -> list[Calibration]:
    """Measure a network by the dev classes of its data set, for the searches in MEASURED, by one view and by both.

    output: from images to embeddings. alone: as for `zsbir.evaluation.statistics.measured`. The classes must not have been trained
    on. An empty list where there are too few of them; unseen classes are never opened. Raises InputError for embeddings that are
    NaN or infinite.
    """
    sketches, photos = calibration_images(samples)
    if len(np.intersect1d(samples.class_id[sketches], samples.class_id[photos])) < FEWEST_CLASSES:
        return []
    positions = np.concatenate([sketches, photos])
    views = embed(
        both_views(output),
        images,
        positions,
        image_px=image_px,
        device=device,
        autocast=autocast,
        label="calibrate scores",
        alone=alone,
    )
    check_finite(views, "the model")
    found = []
    for flip in (False, True):
        vectors = mean_of_views(views) if flip else np.ascontiguousarray(views[:, : views.shape[1] // 2])
        both = vectors[: len(sketches)], vectors[len(sketches) :]
        data = Labelled(both[0], samples.class_id[sketches], both[1], samples.class_id[photos])
        for options in MEASURED:
            calibration = calibrate(data, options.replace(flip=flip), statistics)
            found += [calibration] if calibration else []
    return found


def calibration_images(samples: Samples) -> tuple[Int[np.ndarray, "s"], Int[np.ndarray, "p"]]:
    """Return positions of the sketches and photos of dev classes to calibrate by, ascending: all of them, or a sample."""
    chosen = []
    for domain, most in (("sketch", MOST_SKETCHES), ("photo", MOST_PHOTOS)):
        positions = samples.select(split="dev", domain=domain)
        if len(positions) > most:
            positions = stream("calibration images", most).choice(positions, most, replace=False)
        chosen.append(np.sort(positions))
    return chosen[0], chosen[1]


def calibrate(data: Labelled, options: SearchOptions, statistics: DomainStatistics | None) -> Calibration | None:
    """Return what scores with these options mean; None with too few classes, or where they do not tell right from wrong.

    data: of classes that the network was not trained on (the mean of both views where the options have `flip`).
    """
    data = _of_classes(data, np.intersect1d(data.sketch_classes, data.photo_classes))
    classes = np.unique(data.photo_classes)
    if len(classes) < FEWEST_CLASSES:
        return None
    trials = list(run_trials(data, options, statistics))
    no_match, hit = fit_no_match(trials), fit_hits(trials)
    if no_match is None and hit is None:
        return None
    return Calibration(options=options, no_match=no_match, hit=hit, classes=len(classes), photos=len(data.photos))


def run_trials(data: Labelled, options: SearchOptions, statistics: DomainStatistics | None) -> Iterator[Trial]:
    """Ask the sketches of galleries of several sizes, each with what they show and without it."""
    classes = np.unique(data.photo_classes)
    for present in (classes, classes[::2]) if len(classes) >= 2 * FEWEST_CLASSES else (classes,):
        inside = _of_classes(data, present)
        fullest = int(np.unique(inside.photo_classes, return_counts=True)[1].max())
        for most in PHOTOS_PER_CLASS:
            if most < fullest:
                yield _trial(_thinned(inside, most), options, statistics)


def _trial(data: Labelled, options: SearchOptions, statistics: DomainStatistics | None) -> Trial:
    classes = np.unique(data.photo_classes)
    scores, right, size = _asked(data, options, statistics)
    absent, absent_size = np.empty(len(scores), np.float32), np.empty(size.shape)
    for label in classes:
        asking, others = data.sketch_classes == label, data.photo_classes != label
        without = Labelled(data.sketches[asking], data.sketch_classes[asking], data.photos[others], data.photo_classes[others])
        found, _, absent_size[asking] = _asked(without, options, statistics)
        absent[asking] = found[:, 0]
    return Trial(data.sketch_classes, len(classes), scores, right, absent, size, absent_size)


def _asked(
    data: Labelled, options: SearchOptions, statistics: DomainStatistics | None
) -> tuple[Float32[np.ndarray, "q k"], Bool[np.ndarray, "q k"], Float64[np.ndarray, "q 2"]]:
    """Ask sketches of a gallery. Return scores of the first hits, which are right, and the size of the gallery for each."""
    prepared = prepare_gallery(np.ascontiguousarray(data.photos), options, statistics)
    search = searching(prepared.vectors)
    rows, scores = search(prepared.queries(np.ascontiguousarray(data.sketches), search), HITS)
    size = np.array([np.log(len(data.photos)), kin_share(float(prepared.near.mean()))])
    return scores, data.photo_classes[rows] == data.sketch_classes[:, None], np.tile(size, (len(scores), 1))


def _of_classes(data: Labelled, classes: Int[np.ndarray, "c"]) -> Labelled:
    """Return what is of these classes, of MOST_CLASSES of them at most."""
    if len(classes) > MOST_CLASSES:
        classes = classes[np.linspace(0, len(classes) - 1, MOST_CLASSES).astype(int)]
    sketches, photos = np.isin(data.sketch_classes, classes), np.isin(data.photo_classes, classes)
    return Labelled(data.sketches[sketches], data.sketch_classes[sketches], data.photos[photos], data.photo_classes[photos])


def _thinned(data: Labelled, most: int) -> Labelled:
    """Return the data with that many photos of each class, drawn once for all; 0: with all."""
    if not most:
        return data
    order = stream("calibration galleries", most).permutation(len(data.photos))
    kept = [order[data.photo_classes[order] == label][:most] for label in np.unique(data.photo_classes)]
    rows = np.sort(np.concatenate(kept))
    return data._replace(photos=data.photos[rows], photo_classes=data.photo_classes[rows])
