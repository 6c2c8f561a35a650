"""Measure retrieval on unseen classes: Run in, Report out, beside the frozen backbone that the run started from.

    python -m zsbir.evaluate artifacts/runs/toy-0123456789ab --protocol zero_shot

This is the only stage that measures anything on the unseen classes. The report has all metrics in all conventions, exact (see
docs/evaluation.md), a table by class, a retrieval grid and a precision-recall curve. Costs two forward passes an image. Prints the
URI of the report; a table of the metrics goes to standard error, and the whole report to the run's MLflow run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from zsbir.base import cli, events
from zsbir.base.artifact import Artifact, Draft, draft, exists
from zsbir.base.config import Config, digest_of
from zsbir.base.layout import MLFLOW_EXPERIMENT, report_uri
from zsbir.base.storage import default_root
from zsbir.base.text import clean
from zsbir.evaluation.metrics import METRICS, Evaluation, chance_map, evaluate_embeddings
from zsbir.evaluation.protocol import PROTOCOLS, Protocol, find_protocol, select
from zsbir.recipes import title
from zsbir.training.config import Precision

if TYPE_CHECKING:
    from PIL import Image

    from zsbir.data.samples import Samples
    from zsbir.data.shards import Images
    from zsbir.evaluation.embed import Forward
    from zsbir.model.encoder import Encoder

SHOWN_METRICS = ("map_all", "map_all_voc", "map_at_200_min", "map_at_200_min_voc", "p_at_100", "p_at_200")

SAMPLING_UNIT = "classes"
"""What the intervals of report.json are over. Reports without this entry, made before 29 November 2026, have them over queries."""


class EvaluateConfig(Config):
    """What decides the contents of the report."""

    protocol: str = Field("zero_shot", description=f"evaluation protocol: {', '.join(PROTOCOLS)}")
    precision: Precision = Field("auto", description="autocast of the forward pass; auto: bf16 where the hardware gains by it")
    grid_rows: int = Field(12, ge=1, le=60, description="queries in the retrieval grid, taken from the classes in turn")
    seed: int = Field(0, ge=0, description="seed of the choice of the queries shown")


class Settings(Config):
    """Where the report is stored and logged."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")
    tracking: bool = Field(True, description="log the report to the run's MLflow run")
    experiment: str = Field(MLFLOW_EXPERIMENT, description="MLflow experiment")


@dataclass(frozen=True)
class Subject:
    """One model under evaluation: its embeddings of the queries and the gallery, and the metrics of them."""

    name: str
    queries: Float[np.ndarray, "q d"]
    gallery: Float[np.ndarray, "g d"]
    result: Evaluation


@dataclass(frozen=True)
class Trial:
    """The task that both models get: a protocol's queries and gallery in one data set."""

    run: Artifact
    dataset: Artifact
    samples: Samples
    images: Images
    protocol: Protocol
    queries: Int[np.ndarray, "q"]
    gallery: Int[np.ndarray, "g"]


def evaluate(run_uri: str, config: EvaluateConfig, settings: Settings) -> Artifact:
    """Return the Report artifact of a run under a protocol; an existing one is found, not made again."""
    trial = _open(run_uri, config)
    digest = digest_of([config.identity(), trial.protocol.identity(), trial.run.digest, trial.dataset.digest])
    uri = report_uri(settings.root, digest)
    if exists(uri):
        report = Artifact(uri, "report")
    else:
        with draft(uri, "report", trial.run.manifest.name) as work:
            subjects = [_frozen(trial, config), _trained(trial, config)]
            summary = _write(work, trial, subjects, config)
            report = work.commit(
                digest=digest,
                config=config,
                inputs={"run": trial.run.reference(), "dataset": trial.dataset.reference()},
                counts={"queries": len(trial.queries), "gallery": len(trial.gallery)},
                facts={
                    "protocol": trial.protocol.label(),
                    **{name: values["map_all"] for name, values in summary["models"].items()},
                },
            )
    events.say_lines(table(report))
    if settings.tracking:
        _track(report, trial, settings)
    return report


def _open(run_uri: str, config: EvaluateConfig) -> Trial:
    from zsbir.data.samples import load_samples
    from zsbir.data.shards import Images

    run = Artifact(run_uri, "run")
    dataset = run.input("dataset", "dataset")
    samples, protocol = load_samples(dataset), find_protocol(config.protocol)
    queries, gallery = select(samples, protocol)
    return Trial(run, dataset, samples, Images(dataset, samples), protocol, queries, gallery)


def _frozen(trial: Trial, config: EvaluateConfig) -> Subject:
    """Evaluate the backbone that the run started from, with its pooled features as embeddings."""
    from zsbir.evaluation.embed import features_of
    from zsbir.model.encoder import Encoder, saved_facts
    from zsbir.model.weights import open_weights

    facts = saved_facts(trial.run.verified("encoder.safetensors"))
    encoder = Encoder(**facts)
    encoder.load_trunk(open_weights(trial.run.input_file("weights"), backbone=facts["backbone"]))
    return _subject("frozen", trial, encoder, features_of(encoder), config)


def _trained(trial: Trial, config: EvaluateConfig) -> Subject:
    """Evaluate the run's own encoder."""
    from zsbir.evaluation.embed import embeddings_of
    from zsbir.model.encoder import Encoder

    encoder = Encoder.load(trial.run.verified("encoder.safetensors"))
    return _subject("trained", trial, encoder, embeddings_of(encoder), config)


def _subject(name: str, trial: Trial, encoder: Encoder, output: Forward, config: EvaluateConfig) -> Subject:
    """Embed queries and gallery, and evaluate them. output: what of the encoder's output is the embedding."""
    from zsbir.evaluation.embed import check_finite, embed
    from zsbir.training.context import default_device
    from zsbir.training.precision import autocast

    device = default_device()
    encoder.eval().to(device)
    both = embed(
        output,
        trial.images,
        np.concatenate([trial.queries, trial.gallery]),
        image_px=encoder.image_px,
        device=device,
        autocast=autocast(config.precision, device),
        label=f"embed {name}",
    )
    check_finite(both, f"the {name} model")
    queries, gallery = both[: len(trial.queries)], both[len(trial.queries) :]
    labels = trial.samples.class_id
    return Subject(name, queries, gallery, evaluate_embeddings(queries, labels[trial.queries], gallery, labels[trial.gallery]))


def _write(work: Draft, trial: Trial, subjects: list[Subject], config: EvaluateConfig) -> dict[str, Any]:
    """Write all files of the report. Return the contents of report.json."""
    labels = trial.samples.class_id
    chance = chance_map(labels[trial.queries], labels[trial.gallery])
    summary = {
        "protocol": trial.protocol.label(),
        "dataset": trial.dataset.manifest.name,
        "dataset_digest": trial.dataset.digest,
        "queries": len(trial.queries),
        "gallery": len(trial.gallery),
        "classes": len(np.unique(labels[trial.queries])),
        "chance_map_all": chance,
        "intervals_over": SAMPLING_UNIT,
        "models": {subject.name: _figures(subject) for subject in subjects},
    }
    work.file("report.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    _write_tables(work, trial, subjects)
    title = f"{trial.run.manifest.name} on unseen classes, {trial.protocol.label()}"
    _write_figures(work, trial, subjects, title, chance)
    grid(trial, subjects[-1], config, title).save(work.file("grid.png"))
    return summary


def _write_figures(work: Draft, trial: Trial, subjects: list[Subject], title: str, chance: float) -> None:
    from zsbir.evaluation.figures import per_class_bars, precision_recall_figure

    curves = {
        f"{s.name} ({s.result.summary()['map_all']:.3f})": (s.result.pr_curve.recall, s.result.pr_curve.interpolated)
        for s in subjects
    }
    precision_recall_figure(curves, title=title, chance=chance).savefig(work.file("precision_recall.png"), dpi=150)
    frozen, trained = (subject.result.per_class() for subject in subjects)
    per_class_bars(frozen, trained, class_names=trial.samples.class_names).savefig(work.file("per_class.png"), dpi=150)


def _figures(subject: Subject) -> dict[str, Any]:
    """Return every mean, with its 95 % interval over classes as `<mean>_low95` and `<mean>_high95` (null for a single class)."""
    means = subject.result.summary()
    bounds: dict[str, float | None] = {}
    for name in means:
        interval = subject.result.interval(name)
        bounds |= {f"{name}_low95": interval and interval.low, f"{name}_high95": interval and interval.high}
    return {**means, **bounds, "ties": subject.result.ties}


def _write_tables(work: Draft, trial: Trial, subjects: list[Subject]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = trial.samples.class_names
    per_class = [
        {"model": subject.name, "class_name": names[row["class_id"]], **row}
        for subject in subjects
        for row in subject.result.per_class()
    ]
    pq.write_table(pa.Table.from_pylist(per_class), work.file("per_class.parquet"))
    columns: dict[str, Any] = {
        "path": trial.samples.path[trial.queries],
        "class_id": trial.samples.class_id[trial.queries],
        "sha256": trial.samples.sha256[trial.queries],
    }
    columns |= {f"{subject.name}/{metric}": subject.result.per_query[metric] for subject in subjects for metric in METRICS}
    pq.write_table(pa.table(columns), work.file("per_query.parquet"))


def grid(trial: Trial, subject: Subject, config: EvaluateConfig, title: str) -> Image.Image:
    """Draw queries of all classes, chosen without looking at their scores, each with the first ten photos of its ranking."""
    from zsbir.evaluation.figures import retrieval_grid
    from zsbir.retrieval.exact import search

    labels = trial.samples.class_id
    rows = shown_queries(labels[trial.queries], config.grid_rows, config.seed)
    found, _ = search(subject.queries[rows], subject.gallery, 10)
    precision = subject.result.per_query["map_all"]
    return retrieval_grid(
        [_picture(trial, trial.queries[row]) for row in rows],
        [[_picture(trial, trial.gallery[column]) for column in columns] for columns in found],
        [(labels[trial.gallery[columns]] == labels[trial.queries[row]]).tolist() for row, columns in zip(rows, found, strict=True)],
        [f"{trial.samples.class_names[labels[trial.queries[row]]]}\nAP {precision[row]:.2f}" for row in rows],
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
    from zsbir.data.images import decode

    return decode(trial.images.read(int(position)))


def table(report: Artifact) -> str:
    """Return the report as lines of text: the frozen and the trained model, and chance for scale."""
    from zsbir.evaluation.reports import interval_text, report_interval

    summary = report.read_json("report.json")
    head = f"{summary['protocol']}: {summary['classes']} classes, {summary['queries']} sketches against {summary['gallery']} photos"
    lines = [head, f"{'':10}" + "".join(f"{name:>20}" for name in SHOWN_METRICS)]
    for name, values in summary["models"].items():
        lines.append(f"{name:10}" + "".join(f"{values[metric]:20.3f}" for metric in SHOWN_METRICS))
    lines.append(f"{'chance':10}{summary['chance_map_all']:20.3f}")
    for name, values in summary["models"].items():
        interval = interval_text(report_interval(report, name, "map_all"), summary["classes"])
        lines.append(f"{name}: map_all {values['map_all']:.3f}, {interval}")
    lines += [f"pictures: {report.address(name)}" for name in ("grid.png", "precision_recall.png", "per_class.png")]
    return "\n".join(map(clean, lines))


def _track(report: Artifact, trial: Trial, settings: Settings) -> None:
    """Log the report to the MLflow run of the training."""
    from zsbir.edge.tracking import log_report, tracking_uri  # MLflow takes seconds to load
    from zsbir.evaluation.reports import TRAINED, report_interval

    summary = report.read_json("report.json")
    prefix = trial.protocol.split if trial.protocol.name in ("zero_shot", "dev") else trial.protocol.name
    metrics = {f"{prefix}/{metric}": summary["models"]["trained"][metric] for metric in METRICS}
    metrics |= {f"{prefix}_frozen/{metric}": summary["models"]["frozen"][metric] for metric in METRICS}
    interval = report_interval(report, TRAINED, "map_all")
    if interval:
        metrics |= {f"{prefix}/map_all_low95": interval.low, f"{prefix}/map_all_high95": interval.high}
    files = {name: report.file(name) for name in report.manifest.files}
    log_report(
        tracking_uri(settings.root),
        settings.experiment,
        trial.run.folder_name,
        name=title(trial.run.manifest.config, trial.run.folder_name),
        metrics=metrics,
        files=files,
        step=trial.run.manifest.counts["best_step"],
    )


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.evaluate", __doc__ or "")
    parser.add_argument("run", help="URI of a Run artifact, as zsbir.train prints it")
    parser.add_config_file()
    parser.add_fields(EvaluateConfig, title="evaluation")
    parser.add_fields(Settings, title="where it is stored and logged")
    parsed, values = parser.values(argv)
    config, settings = cli.split_fields(values, EvaluateConfig, Settings)
    return evaluate(parsed.run, EvaluateConfig.of(config), Settings.of(settings)).uri


if __name__ == "__main__":
    cli.main(_parse)
