"""The ledger as a Markdown table: each setting with its seeds, and how far it lies from today's recipe over classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bench.experiments.ledger import Key

from zsbir.evaluation.intervals import combined, variance_over_classes

METRICS = ("map_all", "photo_to_photo", "expanded")


def table(planned: Sequence[Key], rows: dict[Key, dict[str, Any]]) -> str:
    """Return a table for each data set; settings that were not run are listed as planned."""
    parts = []
    for dataset in dict.fromkeys(key.dataset for key in planned):
        mine = [key for key in planned if key.dataset == dataset]
        lines = ["| setting | seeds | sketch to photo | photo to photo | expanded | to today's | minutes |", "|---|" + "---|" * 6]
        for setting in dict.fromkeys(key.setting for key in mine):
            keys = [key for key in mine if key.setting == setting]
            lines.append(_line(setting, keys, rows))
        parts.append("\n".join([f"**{dataset}**", "", *lines]))
    return "\n\n".join(parts)


def _line(setting: str, keys: Sequence[Key], rows: dict[Key, dict[str, Any]]) -> str:
    done = {key.seed: rows[key] for key in keys if rows.get(key, {}).get("state") == "done"}
    if not done:
        failed = next((rows[key]["reason"] for key in keys if rows.get(key, {}).get("state") == "failed"), "")
        return f"| {setting} | planned | {failed} | | | | |"
    cells = []
    for metric in METRICS:
        values = [row[metric] for row in done.values()]
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.3f}{spread}")
    minutes = np.mean([row["train_min"] for row in done.values()])
    return (
        f"| {setting} | {','.join(map(str, sorted(done)))} | {' | '.join(cells)} | {_gain(keys[0], done, rows)} | {minutes:.1f} |"
    )


def _gain(key: Key, done: dict[int, dict[str, Any]], rows: dict[Key, dict[str, Any]]) -> str:
    """Return the mean difference to today's recipe with the same seeds, and its interval over classes."""
    today = {seed: rows.get(key._replace(setting="today", seed=seed)) for seed in done}
    pairs = [(done[seed], row) for seed, row in today.items() if row and row["state"] == "done"]
    if key.setting == "today" or not pairs:
        return ""
    away = np.mean([np.subtract(one["class_means"]["map_all"], other["class_means"]["map_all"]) for one, other in pairs], axis=0)
    weights = np.array(pairs[0][0]["class_queries"], float)
    weights /= weights.sum()
    found = combined(float(away @ weights), variance_over_classes(away, weights))
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
