"""What is compared, on which data, with how many photos a class."""

from __future__ import annotations

from typing import NamedTuple

from zsbir.retrieval.options import PLAIN, SearchOptions

THINNED = (1, 3, 10, 0)
"""Photos of each class in the gallery; 0: all."""

DRAWS = 5
"""Random thinnings of a gallery, over which a row takes the mean."""

SEEDS = (0, 1, 2)

TRAINING = {"image_px": 112, "steps": 120, "eval_every_steps": 60, "checkpoint_every_steps": 60}
"""Changes of the recipe `folder` (128 px, 160 steps), for the sake of minutes on two busy cores."""

DATASETS = {"caltech_qd60": "split_nonimagenet.json", "sketchy104": "split_unseen21of25.json"}
"""Data sets by their folders' names, each with the file of its split. A quarter of the seen classes are dev classes."""


class Setting(NamedTuple):
    """Search options, and whether the pooled features stand beside the embedding."""

    options: SearchOptions
    pooled: bool = False

    def text(self) -> str:
        """Return what is on: rows of other options under the same name are computed again."""
        return f"{self.options.text()}{', pooled' if self.pooled else ''}"


def _on(**changes: object) -> SearchOptions:
    return PLAIN.replace(**changes)


_STEPS = {"smooth": 10, "expand": 10}

SETTINGS: dict[str, Setting] = {
    "off": Setting(PLAIN),
    "flip": Setting(_on(flip=True)),
    "pooled": Setting(PLAIN, pooled=True),
    "pooled, flip": Setting(_on(flip=True), pooled=True),
    "centre": Setting(_on(centring="centre")),
    "whiten": Setting(_on(centring="whiten")),
    "flip, centre": Setting(_on(flip=True, centring="centre")),
    "smooth 10, fixed": Setting(_on(smooth=10)),
    "smooth and expand 10, fixed": Setting(_on(**_STEPS)),
    "flip, smooth and expand 10, fixed": Setting(_on(flip=True, **_STEPS)),
    "flip, centre, smooth and expand 10, fixed": Setting(_on(flip=True, centring="centre", **_STEPS)),
    "flip, whiten, smooth and expand 10, fixed": Setting(_on(flip=True, centring="whiten", **_STEPS)),
    "flip, smooth and expand 10, caution 4": Setting(_on(flip=True, caution=4.0, **_STEPS)),
    "flip, centre, smooth 10, caution 4": Setting(_on(flip=True, centring="centre", smooth=10, caution=4.0)),
    "flip, centre, expand 10, caution 4": Setting(_on(flip=True, centring="centre", expand=10, caution=4.0)),
    "flip, centre, smooth and expand 10, caution 2": Setting(_on(flip=True, centring="centre", caution=2.0, **_STEPS)),
    "flip, centre, smooth and expand 10, caution 4": Setting(_on(flip=True, centring="centre", caution=4.0, **_STEPS)),
    "flip, centre, smooth and expand 10, caution 8": Setting(_on(flip=True, centring="centre", caution=8.0, **_STEPS)),
    "flip, centre, smooth and expand 20, caution 4": Setting(_on(flip=True, centring="centre", caution=4.0, smooth=20, expand=20)),
    "flip, whiten, smooth and expand 10, caution 4": Setting(_on(flip=True, centring="whiten", caution=4.0, **_STEPS)),
    "centre, smooth and expand 10, caution 4": Setting(_on(centring="centre", caution=4.0, **_STEPS)),
    "default": Setting(SearchOptions()),
}
"""Settings by name. `default` repeats what is then the default, and is what unseen classes are opened with."""
