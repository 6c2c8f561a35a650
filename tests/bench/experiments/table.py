"""The ledger as a Markdown table: each setting with its seeds, and how far it lies from another one, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bench.experiments.ledger import Key

from zsbir.comparison.numbers import BySeed, Estimate, Gain, corrected, estimate, gain

METRICS = {"map_all": "sketch to photo", "photo_to_photo": "photo to photo", "expanded": "sketch to photo, expanded"}
LEVEL = 0.95

Done = Mapping[int, Mapping[str, Any]]
"""The rows of a setting that are done, by seed."""


def table(planned: Sequence[Key], rows: Mapping[Key, Mapping[str, Any]], against: str) -> str:
    """Return a table for each data set; settings that were not run are listed as planned, and failed ones with their reason.

    against: the setting that the others are compared with in the first metric, with p-values corrected for their number (Holm).
    """
    return "\n\n".join(
        f"**{dataset}**\n\n{_of_dataset([key for key in planned if key.dataset == dataset], rows, against)}"
        for dataset in dict.fromkeys(key.dataset for key in planned)
    )


def _of_dataset(planned: Sequence[Key], rows: Mapping[Key, Mapping[str, Any]], against: str) -> str:
    done: dict[str, Done] = {}
    for key in planned:
        if rows.get(key, {}).get("state") == "done":
            done[key.setting] = {**done.get(key.setting, {}), key.seed: rows[key]}
    other = done.get(against, {})
    tested = [setting for setting in done if other and setting != against]
    gains = dict(zip(tested, corrected([_gain(done[setting], other) for setting in tested]), strict=True))
    head = ["setting", "seeds", *METRICS.values(), f"against {against}", "p (Holm)", "minutes"]
    lines = [head, ["---"] * len(head)]
    for setting in dict.fromkeys(key.setting for key in planned):
        if setting in done:
            lines.append(_cells(setting, done[setting], gains.get(setting)))
        else:
            failed = next((rows[key]["reason"] for key in planned if key.setting == setting and key in rows), "")
            lines.append([setting, "failed" if failed else "planned", failed, *[""] * (len(head) - 3)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(setting: str, done: Done, gained: Gain | None) -> list[str]:
    first, *others = (estimate(_by_seed(done, metric), _shares(done, metric), LEVEL) for metric in METRICS)
    away = ["", ""]
    if gained is not None and gained.interval is not None:
        found = gained.interval
        away = [f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})", f"{gained.p_holm:.2g}"]
    minutes = np.mean([row["train_min"] for row in done.values()])
    return [
        setting,
        ",".join(map(str, sorted(done))),
        _text(first, interval=True),
        *(_text(found) for found in others),
        *away,
        f"{minutes:.1f}",
    ]


def _text(found: Estimate, *, interval: bool = False) -> str:
    spread = f" ± {found.sd:.3f}" if found.sd is not None else ""
    over = f" ({found.interval.low:.3f} to {found.interval.high:.3f})" if interval and found.interval else ""
    return f"{found.mean:.3f}{spread}{over}"


def _gain(done: Done, other: Done) -> Gain:
    metric = next(iter(METRICS))
    return gain(_by_seed(done, metric), _by_seed(other, metric), _shares(done, metric), LEVEL)


def _by_seed(done: Done, metric: str) -> BySeed:
    return {seed: np.array(row["class_means"][metric], float) for seed, row in done.items()}


def _shares(done: Done, metric: str) -> np.ndarray:
    """Return the share of each class in the mean over queries."""
    row = next(iter(done.values()))
    queries = np.array(row["class_photos" if metric == "photo_to_photo" else "class_queries"], float)
    return queries / queries.sum()
