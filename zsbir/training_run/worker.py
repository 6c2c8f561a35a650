"""What each worker of a training does: open the inputs, train, and on rank 0 sign the Run artifact."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from zsbir.base import events, watch
from zsbir.base.artifact import Artifact
from zsbir.base.config import digest_of
from zsbir.base.draft import draft
from zsbir.base.storage import folder_name
from zsbir.data.ink import Ink, ink_facts
from zsbir.data.knowledge import load_knowledge, load_mean_features
from zsbir.data.measured_ink import dataset_ink
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.evaluation.calibration import measured_calibrations
from zsbir.evaluation.embed import embeddings_of
from zsbir.evaluation.figures import training_curves
from zsbir.evaluation.statistics import STATISTICS_FILE, measured
from zsbir.model.weights import open_weights
from zsbir.retrieval.calibration import Calibration, calibration_facts
from zsbir.retrieval.whitening import DomainStatistics
from zsbir.training.checkpoint import BestEncoder, TrainState
from zsbir.training.computing import keep_freed_memory
from zsbir.training.context import Context
from zsbir.training.failures import memory_errors_explained
from zsbir.training.gather import barrier
from zsbir.training.inputs import TrainInputs
from zsbir.training.loop import DEV_SCORE, Log, Trainer
from zsbir.training.precision import autocast
from zsbir.training.requirements import needs_mean_features
from zsbir.training_run.delivery import mark_undelivered, publish, tracked
from zsbir.training_run.plan import Job

if TYPE_CHECKING:
    from zsbir.edge.tracking import Tracker


def run_job(job: Job, context: Context) -> None:
    """Train on this worker; rank 0 signs the run and delivers it to MLflow."""
    keep_freed_memory()
    if job.settings.num_workers:
        os.environ[events.PART] = job.part_of
        watch.start_worker(job.watched if context.rank == 0 else "")
    dataset = Artifact(job.dataset, "dataset")
    knowledge = Artifact(job.knowledge, "knowledge") if job.knowledge else None
    inputs = _open_inputs(job, dataset, knowledge)
    ink = dataset_ink(dataset, inputs.samples, inputs.images) if context.rank == 0 else None
    made_from = {
        "dataset": dataset.reference(),
        "weights": {"uri": inputs.weights.uri, "digest": inputs.weights.sha256},
        **({"knowledge": knowledge.reference()} if knowledge else {}),
    }
    with tracked(job, dataset, context.rank) as tracker, memory_errors_explained(job.config, context.world_size):
        trainer = Trainer(
            job.config,
            inputs,
            context,
            job.run,
            log=_logger(tracker),
            threads=job.settings.decode_threads,
            made_from=made_from,
        )
        progress = trainer.run()
        if context.rank == 0:
            if tracker:  # a process that is killed from here on leaves a signed run that MLflow lacks something of
                mark_undelivered(job.run)
            assert progress.best is not None, "a training ends with an evaluation"
            kept = Measured(ink, *_measured(job, inputs, progress.best, context))
            run = sign_run(job, made_from, progress, kept)
            if tracker:
                publish(tracker, run, inputs.samples, inputs.images)
            watch.flush()
    barrier()


def _open_inputs(job: Job, dataset: Artifact, knowledge: Artifact | None) -> TrainInputs:
    samples = load_samples(dataset)
    weights = open_weights(job.weights, backbone=job.config.backbone)
    of_teacher = knowledge.manifest.reference("weights") if knowledge else None
    return TrainInputs(
        samples=samples,
        images=Images(dataset, samples),
        weights=weights,
        knowledge=load_knowledge(knowledge, dataset) if knowledge else None,
        class_features=load_mean_features(knowledge) if knowledge and needs_mean_features(job.config) else None,
        same_network=of_teacher is not None and of_teacher.digest == weights.sha256,
        same_labels=bool(knowledge and knowledge.manifest.facts["labels_digest"] == digest_of(weights.labels)),
    )


def _logger(tracker: Tracker | None) -> Log:
    """Return a function that passes the metrics of a step to the job's watcher and to MLflow."""

    def log(step: int, metrics: dict[str, float]) -> None:
        watch.record_metrics(step, metrics, keep=DEV_SCORE in metrics)
        if tracker:
            tracker.log(step, metrics)

    return log


class Measured(NamedTuple):
    """What a run keeps of its encoder beside the weights.

    ink: how the sketches are drawn that it learned from. statistics: of its training embeddings. calibrations: what scores mean.
    """

    ink: Ink | None
    statistics: DomainStatistics
    calibrations: Sequence[Calibration]


def _measured(job: Job, inputs: TrainInputs, best: BestEncoder, context: Context) -> tuple[DomainStatistics, list[Calibration]]:
    """Measure the encoder that is kept, on this worker alone: the others have no such encoder.

    Scores are calibrated on dev classes, and not at all where these were trained on.
    """
    encoder = best.encoder().eval().to(context.device)
    output, px, device = embeddings_of(encoder), encoder.image_px, context.device
    precision = autocast(job.config.precision, device)
    data = inputs.samples, inputs.images
    statistics = measured(output, *data, image_px=px, device=device, autocast=precision, alone=True)
    if job.config.train_on_dev:
        return statistics, []
    found = measured_calibrations(output, *data, statistics, image_px=px, device=device, autocast=precision, alone=True)
    return statistics, found


def sign_run(job: Job, made_from: Mapping[str, Mapping[str, str]], progress: TrainState, kept: Measured) -> Artifact:
    """Commit the Run artifact: the best encoder and what is known of it, configuration, history and curves."""
    name, best = folder_name(job.run), progress.best
    assert best is not None, "a training ends with an evaluation"
    with draft(job.run, "run", job.config.recipe) as work:
        best.save(work.file("encoder.safetensors"))
        kept.statistics.save(work.file(STATISTICS_FILE))
        work.file("config.yaml").write_text(yaml.safe_dump(job.config.model_dump(mode="json"), sort_keys=False), "utf-8")
        training_curves(progress.history, title=name).savefig(work.file("curves.png"), dpi=150)
        pq.write_table(pa.Table.from_pylist(_full_rows(progress.history)), work.file("history.parquet"))
        return work.commit(
            digest=digest_of([name]),
            config=job.config,
            inputs=made_from,
            counts={"steps": progress.step, "best_step": best.step},
            facts={
                **({} if best.score is None else {"best_dev_map_all": best.score}),
                **ink_facts(kept.ink),
                **calibration_facts(kept.calibrations),
            },
        )


def _full_rows(history: list[dict[str, float]]) -> list[dict[str, float | None]]:
    """Return rows that all have the same columns, None where a row had no value."""
    names = sorted({name for row in history for name in row})
    return [{name: row.get(name) for name in names} for row in history]
