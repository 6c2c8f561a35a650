"""Several evaluations in one go: which are still to be made and what that costs is said before the first one starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zsbir.base import events
from zsbir.base.artifact import Artifact
from zsbir.evaluation.embed import EMBED_BATCH, embed, embeddings_of
from zsbir.evaluation.seen import Seen
from zsbir.evaluation_run.config import EvaluateConfig
from zsbir.evaluation_run.report import make_report
from zsbir.evaluation_run.trial import Trial, trial_on
from zsbir.model.encoder import Encoder
from zsbir.promotion.two_sets import EvaluationSet
from zsbir.training.context import default_device
from zsbir.training.precision import autocast

MODELS = 2
"""Models of a report, each of which embeds every image."""

TIMED_FROM = 1000
"""Images to embed from which the time is estimated, by embedding a batch; fewer take seconds."""


def make_reports(trials: Sequence[Trial], config: EvaluateConfig, root: str) -> list[Artifact]:
    """Return the Report of each evaluation, in order; existing ones are found, not made again."""
    missing = [trial for trial in trials if not trial.is_made(config, root)]
    if missing:
        images = MODELS * sum(trial.images_to_embed for trial in missing)
        took = f", about {duration_text(images * _seconds_an_image(missing[0], config))}" if images >= TIMED_FROM else ""
        many = f"{len(missing)} evaluation{'' if len(missing) == 1 else 's'}"
        events.say(f"{many} to make: {images:,} images to embed{took}; the reports are kept for the next time")
    return [make_report(trial, config, root) for trial in trials]


def measure_like(
    config: Mapping[str, Any], root: str
) -> Callable[[Sequence[tuple[Artifact, EvaluationSet]], Seen], list[Artifact]]:
    """Return a function that makes Reports under the same configuration as another one, which its manifest holds."""
    known = {name: value for name, value in config.items() if name in EvaluateConfig.model_fields}
    like = EvaluateConfig.of(known, where="the configuration of the report")

    def measure(wanted: Sequence[tuple[Artifact, EvaluationSet]], seen: Seen) -> list[Artifact]:
        return make_reports([trial_on(run, like, part.dataset, part.samples, seen) for run, part in wanted], like, root)

    return measure


def _seconds_an_image(trial: Trial, config: EvaluateConfig) -> float:
    """Measure how long an image takes, by one batch of the trial's own. Starting up counts too, so it is an upper bound."""
    encoder, device = Encoder.load(trial.run.verified("encoder.safetensors")).eval(), default_device()
    positions = np.concatenate([trial.left.queries, trial.left.gallery])[:EMBED_BATCH]
    began = time.monotonic()
    embed(
        embeddings_of(encoder.to(device)),
        trial.images,
        positions,
        image_px=encoder.image_px,
        device=device,
        autocast=autocast(config.precision, device),
    )
    return (time.monotonic() - began) / len(positions)


def duration_text(seconds: float) -> str:
    """Return a duration as people say it, rounded up: "50 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{math.ceil(seconds / 10) * 10} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
