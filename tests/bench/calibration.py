"""How well "nothing like that here" and probabilities hold in galleries of other sizes, on dev classes.

    python -m bench.calibration DIR/embeddings/*-dev.npz

The files are those that `python -m bench.search_quality run` leaves below its --root. For each class the threshold is chosen
without that class's sketches and tried on them; beside it a threshold that was chosen in the same way on the largest gallery
alone.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from zsbir.evaluation.calibration import Labelled, run_trials
from zsbir.evaluation.calibration_fits import FALSE_ALARM, Trial, _threshold, fit_hits, fit_no_match
from zsbir.retrieval.calibration import HitProbability, NoMatch, Rate
from zsbir.retrieval.options import PLAIN, SearchOptions
from zsbir.retrieval.prepared import mean_of_views
from zsbir.retrieval.whitening import measure_statistics, unit_rows

SKETCHES, PHOTOS = 500, 1000


def main() -> None:
    found: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for file in sys.argv[1:]:
        table = dict(np.load(Path(file)))
        for flip in (False, True):
            for options in (PLAIN, SearchOptions()):
                chosen = options.replace(flip=flip)
                row = measure(table, chosen)
                found[row["classes"], chosen.text()].append(row)
    for (classes, text), rows in found.items():
        print(f"\n**{classes} dev classes, {text}**, {len(rows)} trainings\n")
        print(tabled(rows))


def measure(table: dict[str, np.ndarray], options: SearchOptions) -> dict[str, Any]:
    """Return what one training's embeddings show."""
    half = table["train_sketch"].shape[1] // 2  # embeddings, then pooled features; a second time for mirror images
    plain = [unit_rows(table[f"train_{side}"][:, :half]) for side in ("sketch", "photo")]
    statistics = measure_statistics(plain[0], table["train_sketch_labels"], plain[1], table["train_photo_labels"])
    random = np.random.default_rng(0)
    rows = [np.sort(random.permutation(len(table[side]))[:most]) for side, most in (("sketch", SKETCHES), ("photo", PHOTOS))]
    vectors = []
    for side, kept in zip(("sketch", "photo"), rows, strict=True):
        views = [unit_rows(table[side][kept, start : start + half]) for start in (0, 2 * half)]
        vectors.append(mean_of_views(np.concatenate(views, axis=1)) if options.flip else views[0])
    data = Labelled(vectors[0], table["sketch_labels"][rows[0]], vectors[1], table["photo_labels"][rows[1]])
    trials = list(run_trials(data, options, statistics))
    no_match, hit = fit_no_match(trials), fit_hits(trials)
    galleries = [[*held, *promised(trial, hit)] for held, trial in zip(held_out(trials), trials, strict=True)]
    sizes = [(trial.classes, round(float(np.exp(trial.size[0, 0])))) for trial in trials]
    return {"classes": trials[0].classes, "sizes": sizes, "galleries": galleries, "no_match": no_match, "hit": hit}


def held_out(trials: list[Trial]) -> list[list[float]]:
    """Return false alarms and misses in each gallery, of the threshold that moves and of the fixed one."""
    said: list[list[np.ndarray]] = [[] for _ in trials]
    largest = max(trials, key=lambda trial: float(trial.size[0, 0]))
    for label in np.unique(largest.labels):
        base, slopes = _threshold([trial.of(trial.labels != label) for trial in trials])
        fixed = float(np.quantile(largest.of(largest.labels != label).scores[:, 0], FALSE_ALARM))
        for number, trial in enumerate(trials):
            own = trial.of(trial.labels == label)
            first = own.scores[:, 0]
            moving, without = base + own.size @ slopes, base + own.absent_size @ slopes
            said[number].append(np.column_stack([first < moving, own.absent >= without, first < fixed, own.absent >= fixed]))
    return [np.concatenate(parts).mean(axis=0).tolist() for parts in said]


def promised(trial: Trial, hit: HitProbability | None) -> list[float]:
    """Return what is promised of the first hits and what holds, and the same of all hits; NaN where nothing is promised."""
    if hit is None:
        return [float("nan")] * 4
    chances = np.array([[hit.at(float(score), trial.classes) for score in row] for row in trial.scores])
    return [float(part) for part in (chances[:, 0].mean(), trial.right[:, 0].mean(), chances.mean(), trial.right.mean())]


def tabled(rows: list[dict[str, Any]]) -> str:
    """Return the means over trainings as Markdown."""
    lines = [
        "| classes, photos | false alarm / miss | fixed threshold | first hit: promised (held) | all: promised (held) |",
        "|---|---|---|---|---|",
    ]
    means = np.nanmean([row["galleries"] for row in rows], axis=0)
    for (classes, photos), m in zip(rows[0]["sizes"], means, strict=True):
        lines.append(
            f"| {classes}, {photos} | {m[0]:.2f} / {m[1]:.2f} | {m[2]:.2f} / {m[3]:.2f} | {m[4]:.2f} ({m[5]:.2f})"
            f" | {m[6]:.2f} ({m[7]:.2f}) |"
        )
    found: list[NoMatch] = [row["no_match"] for row in rows if row["no_match"]]
    hits: list[HitProbability] = [row["hit"] for row in rows if row["hit"]]
    rates = [
        f"{name} {_mean(each, 'mean')} ({_mean(each, 'low')} to {_mean(each, 'high')})"
        for name, each in (("false alarm", [n.false_alarm for n in found]), ("miss", [n.miss for n in found]))
        if each
    ]
    errors = [f"{np.mean([hit.error for hit in hits]):.3f}"] if hits else []
    lines += [
        "",
        f"Threshold in {len(found)}, probability in {len(hits)} trainings: {'; '.join(rates)}. Error in bins {'; '.join(errors)}.",
    ]
    return "\n".join(lines)


def _mean(rates: list[Rate], part: str) -> str:
    return f"{np.mean([getattr(rate, part) for rate in rates]):.2f}"


if __name__ == "__main__":
    main()
