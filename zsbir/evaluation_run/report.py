"""The Report artifact of an evaluation: its tables, its pictures, and the manifest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from zsbir.base.artifact import Artifact
from zsbir.base.draft import Draft, draft
from zsbir.data.images import decode
from zsbir.evaluation.figures import per_class_bars, precision_recall_figure, retrieval_grid
from zsbir.evaluation.metrics import METRICS, chance_map
from zsbir.evaluation.reports import TRAINED, UNCHANGED
from zsbir.evaluation_run.config import EvaluateConfig
from zsbir.evaluation_run.trial import Subject, Trial, frozen, trained
from zsbir.retrieval.exact import search
from zsbir.training.computing import computing

if TYPE_CHECKING:
    from PIL import Image

SAMPLING_UNIT = "classes"
"""What the intervals of report.json are over. Reports without this entry, made before 29 November 2026, have them over queries."""


def make_report(trial: Trial, config: EvaluateConfig, root: str) -> Artifact:
    """Return the Report artifact of an evaluation; an existing one is found, not made again."""
    uri = trial.uri(config, root)
    if trial.is_made(config, root):
        return Artifact(uri, "report")
    with draft(uri, "report", trial.run.manifest.name) as work, computing():
        subjects = [frozen(trial, config), *trained(trial, config)]
        summary = _write(work, trial, subjects, config)
        inputs: dict[str, Any] = {"run": trial.run.reference(), "dataset": trial.dataset.reference()}
        facts = {"protocol": trial.protocol.label(), **{name: values["map_all"] for name, values in summary["models"].items()}}
        if trial.restricted:
            inputs["seen"] = list(trial.seen.datasets)
            facts["left_out"] = trial.left.out.as_json()
        return work.commit(
            digest=trial.digest(config),
            config=config,
            inputs=inputs,
            counts={"queries": len(trial.left.queries), "gallery": len(trial.left.gallery)},
            facts=facts,
        )


def _write(work: Draft, trial: Trial, subjects: list[Subject], config: EvaluateConfig) -> dict[str, Any]:
    """Write all files of the report. Return the contents of report.json."""
    labels, left = trial.samples.class_id, trial.left
    chance = chance_map(labels[left.queries], labels[left.gallery])
    summary = {
        "protocol": trial.protocol.label(),
        "dataset": trial.dataset.manifest.name,
        "dataset_digest": trial.dataset.digest,
        "queries": len(left.queries),
        "gallery": len(left.gallery),
        "classes": left.classes,
        "chance_map_all": chance,
        "intervals_over": SAMPLING_UNIT,
        "models": {subject.name: figures(subject) for subject in subjects},
    }
    if trial.protocol.options.changes_ranking:
        summary |= {"options": trial.protocol.options.model_dump(mode="json"), "losing": _losing(trial, subjects)}
    if trial.restricted:
        summary |= {"seen_in": trial.seen.digests(), "left_out": left.out.as_json()}
    work.file("report.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    _write_tables(work, trial, subjects)
    where = f" of {trial.dataset.manifest.name}" if trial.foreign else ""
    title = f"{trial.run.manifest.name} on unseen classes{where}, {trial.protocol.label()}"
    _write_figures(work, trial, subjects, title, chance)
    grid(trial, subjects[-1], config, title).save(work.file("grid.png"))
    return summary


def _losing(trial: Trial, subjects: list[Subject]) -> list[dict[str, Any]]:
    """Return the classes that lose by the protocol's search options, the one that loses most first."""
    rows = {subject.name: subject.result.per_class() for subject in subjects}
    pairs = [
        {"class_name": trial.samples.class_names[old["class_id"]], "plain": old["map_all"], "with_options": new["map_all"]}
        for old, new in zip(rows[UNCHANGED], rows[TRAINED], strict=True)
    ]
    return sorted(
        (pair for pair in pairs if pair["with_options"] < pair["plain"]), key=lambda pair: pair["with_options"] - pair["plain"]
    )


def _write_figures(work: Draft, trial: Trial, subjects: list[Subject], title: str, chance: float) -> None:
    curves = {
        f"{s.name} ({s.result.summary()['map_all']:.3f})": (s.result.pr_curve.recall, s.result.pr_curve.interpolated)
        for s in subjects
    }
    precision_recall_figure(curves, title=title, chance=chance).savefig(work.file("precision_recall.png"), dpi=150)
    before, after = (subject.result.per_class() for subject in (subjects[0], subjects[-1]))
    per_class_bars(before, after, class_names=trial.samples.class_names).savefig(work.file("per_class.png"), dpi=150)


def figures(subject: Subject) -> dict[str, Any]:
    """Return every mean, with its 95 % interval over classes as `<mean>_low95` and `<mean>_high95` (null for a single class)."""
    means = subject.result.summary()
    bounds: dict[str, float | None] = {}
    for name in means:
        interval = subject.result.interval(name)
        bounds |= {f"{name}_low95": interval and interval.low, f"{name}_high95": interval and interval.high}
    return {**means, **bounds, "ties": subject.result.ties}


def _write_tables(work: Draft, trial: Trial, subjects: list[Subject]) -> None:
    names, queries = trial.samples.class_names, trial.left.queries
    per_class = [
        {"model": subject.name, "class_name": names[row["class_id"]], **row}
        for subject in subjects
        for row in subject.result.per_class()
    ]
    pq.write_table(pa.Table.from_pylist(per_class), work.file("per_class.parquet"))
    columns: dict[str, Any] = {
        "path": trial.samples.path[queries],
        "class_id": trial.samples.class_id[queries],
        "sha256": trial.samples.sha256[queries],
    }
    columns |= {f"{subject.name}/{metric}": subject.result.per_query[metric] for subject in subjects for metric in METRICS}
    pq.write_table(pa.table(columns), work.file("per_query.parquet"))


def grid(trial: Trial, subject: Subject, config: EvaluateConfig, title: str) -> Image.Image:
    """Draw queries of all classes, chosen without looking at their scores, each with the first ten photos of its ranking."""
    labels, queries, gallery = trial.samples.class_id, trial.left.queries, trial.left.gallery
    rows = shown_queries(labels[queries], config.grid_rows, config.seed)
    found, _ = search(subject.queries[rows], subject.gallery, 10)
    precision = subject.result.per_query["map_all"]
    return retrieval_grid(
        [_picture(trial, queries[row]) for row in rows],
        [[_picture(trial, gallery[column]) for column in columns] for columns in found],
        [(labels[gallery[columns]] == labels[queries[row]]).tolist() for row, columns in zip(rows, found, strict=True)],
        [f"{trial.samples.class_names[labels[queries[row]]]}\nAP {precision[row]:.2f}" for row in rows],
        title=title,
    )


def shown_queries(labels: Int[np.ndarray, "q"], rows: int, seed: int) -> Int[np.ndarray, "rows"]:
    """Return the numbers of queries to show: classes in turn, at random within a class."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    turn = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        mine = shuffled[labels[shuffled] == label]
        turn[mine] = np.arange(len(mine))
    chosen = np.lexsort((labels, turn))[: min(rows, len(labels))]
    return chosen[np.lexsort((turn[chosen], labels[chosen]))]


def _picture(trial: Trial, position: int) -> Image.Image:
    return decode(trial.images.read(int(position)))
