"""The rows as tables: means over seeds, gains over `off` with intervals over classes, the classes that lose."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from bench.search_quality.settings import THINNED

from zsbir.evaluation.intervals import combined, variance_over_classes

Rows = dict[tuple[str, str, str, int], list[dict[str, Any]]]


def grouped(rows: list[dict[str, Any]]) -> Rows:
    """Return the results by data set, split, setting and photos a class: one for each seed that is done."""
    found: Rows = defaultdict(list)
    for row in rows:
        if row["state"] == "done":
            found[row["dataset"], row["split"], row["setting"], row["photos"]].append({"seed": row["seed"], **row["result"]})
    return found


def tables(rows: list[dict[str, Any]]) -> str:
    """Return all tables as Markdown."""
    found = grouped(rows)
    pairs = sorted({(dataset, split) for dataset, split, _, _ in found})
    return "\n\n".join(_table(found, dataset, split) for dataset, split in pairs)


def _table(found: Rows, dataset: str, split: str) -> str:
    settings = list(dict.fromkeys(key[2] for key in found if key[:2] == (dataset, split)))
    seeds = sorted({result["seed"] for key, results in found.items() if key[:2] == (dataset, split) for result in results})
    head = " | ".join(f"{photos} a class" if photos else "all" for photos in THINNED)
    lines = [
        f"**{dataset}, {split} classes, seeds {', '.join(map(str, seeds))}**",
        "",
        f"| setting | {head} | gain, all: 95 % over classes | classes that lose, all | query, ms |",
        "|---|" + "---|" * (len(THINNED) + 3),
    ]
    for setting in settings:
        cells = [_mean(found.get((dataset, split, setting, photos), [])) for photos in THINNED]
        whole, plain = (found.get((dataset, split, name, 0), []) for name in (setting, "off"))
        gain, losing = _gain(whole, plain)
        cost = f"{np.median([result['query_ms'] for result in whole]):.1f}" if whole else ""
        lines.append(f"| {setting} | {' | '.join(cells)} | {gain} | {losing} | {cost} |")
    return "\n".join(lines)


def _mean(results: list[dict[str, Any]]) -> str:
    return f"{np.mean([result['map_all'] for result in results]):.3f}" if results else "not run"


def _gain(whole: list[dict[str, Any]], plain: list[dict[str, Any]]) -> tuple[str, str]:
    """Return the mean gain over `off` on the same seeds, with its interval over classes, and how many classes lose."""
    mine, theirs = ({result["seed"]: np.array(result["class_means"]) for result in side} for side in (whole, plain))
    seeds = sorted(mine.keys() & theirs.keys())
    if not seeds:
        return "", ""
    differences = np.mean([mine[seed] - theirs[seed] for seed in seeds], axis=0)
    queries = np.array(whole[0]["class_queries"], float)
    weights = queries / queries.sum()
    interval = combined(float(differences @ weights), variance_over_classes(differences, weights))
    losing = int((differences < 0).sum())
    return f"{interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})", f"{losing} of {len(differences)}"
