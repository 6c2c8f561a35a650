"""Recipes that leave some fields to the data and the hardware: what is not given is chosen before the run is named.

What is chosen enters the run's configuration. It follows from counts of the data set and from whether a GPU computes, never from a
measurement: the same command must find the same run on a busy machine, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from zsbir.base import events
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.training.config import TrainConfig
from zsbir.training_run.plan import InputUris, Settings

FITTED = ("folder",)
"""Recipes of which `fitted` chooses fields."""

CHOSEN = ("image_px", "classes_per_batch", "weight_preservation", "steps", "eval_every_steps", "checkpoint_every_steps")
"""The fields that `choose` chooses."""

EPOCHS = 12
"""How often a small collection is shown. Larger ones are shown as often as MOST_STEPS allow."""

LEAST_STEPS = 60
MOST_STEPS = {"cpu": 160, "gpu": 600}
IMAGE_PX = {"cpu": 128, "gpu": 224}
CLASSES = {"cpu": 12, "gpu": 16}
"""The most classes in a batch."""

EVALUATIONS = 4
"""Evaluations on the dev classes, and checkpoints, of a training."""


def fitted(
    config: TrainConfig, given: Collection[str], uris: InputUris, settings: Settings, *, gpu: bool | None = None
) -> TrainConfig:
    """Return a configuration with the fields that its recipe leaves open chosen for the data set; other recipes stay as they are.

    given: fields that are not to be chosen. gpu: whether a GPU computes; None: as `settings` and this machine say. Without a data
    set nothing is chosen. Raises InputError for an address that is none.
    """
    if config.recipe not in FITTED or not uris.dataset:
        return config
    counts = Artifact(uris.dataset, "dataset").manifest.counts
    gpu = _computes_on_gpu(settings) if gpu is None else gpu
    chosen = choose(config, given, counts, gpu=gpu, knowledge=bool(uris.knowledge))
    if chosen:
        shown = ", ".join(f"{field} {value}" for field, value in chosen.items())
        events.say(f"{config.recipe}: chosen for this data set and a {'GPU' if gpu else 'CPU'}: {shown}")
    return config.replace(**chosen)


def choose(config: TrainConfig, given: Collection[str], counts: Mapping[str, int], *, gpu: bool, knowledge: bool) -> dict[str, Any]:
    """Return the fields that were not given, chosen for a data set with these counts (of its manifest)."""
    device = "gpu" if gpu else "cpu"
    splits = ("train", "dev") if config.train_on_dev else ("train",)
    classes = sum(counts.get(f"{split}_classes", 0) for split in splits)
    images = sum(counts.get(f"{split}_{kind}", 0) for split in splits for kind in ("photos", "sketches"))
    chosen: dict[str, Any] = {
        "image_px": IMAGE_PX[device],
        "classes_per_batch": max(2, min(CLASSES[device], classes)),
        "weight_preservation": config.weight_preservation if knowledge else 0.0,
    }
    batch = 2 * config.per_class * (config.classes_per_batch if "classes_per_batch" in given else chosen["classes_per_batch"])
    chosen["steps"] = min(MOST_STEPS[device], max(LEAST_STEPS, round(EPOCHS * images / batch)))
    steps = config.steps if "steps" in given and config.steps else chosen["steps"]
    if "epochs" in given and "steps" not in given:
        raise InputError(
            f"the recipe {config.recipe} sets steps, which win over epochs: pass --steps, here {steps} for {EPOCHS:g} epochs"
        )
    chosen["eval_every_steps"] = chosen["checkpoint_every_steps"] = max(1, steps // EVALUATIONS)
    return {field: value for field, value in chosen.items() if field not in given}


def _computes_on_gpu(settings: Settings) -> bool:
    """Return whether a training with these settings computes on a GPU."""
    if settings.num_workers:
        return settings.gpus_per_worker > 0
    import torch  # takes seconds to load

    return torch.cuda.is_available()
