"""Dataset and Knowledge in, a trained Run out: the main job.

    python -m zsbir.train caltech_qd60_r18 --dataset DATASET --knowledge KNOWLEDGE --margin-cross 0.3
    ray job submit --working-dir . -- python -m zsbir.train sketchy_ext --dataset DATASET --num-workers 8

Starts from a recipe (see zsbir.recipes), then --config FILE.yaml, then flags. The run's folder is named by what it computes:
the same command goes on from the last checkpoint after an interruption, and returns at once when all is done. `dev` classes
choose the checkpoint; `unseen` classes are never opened here. Prints the URI of the run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import Field

from zsbir.base import cli, events, layout, watch
from zsbir.base.artifact import Artifact, draft, exists
from zsbir.base.config import Config, digest_of
from zsbir.base.errors import InputError, Interrupted, RunError
from zsbir.base.lease import alone
from zsbir.base.storage import Folder, default_root, folder_name, is_remote, local_path, open_folder
from zsbir.data.knowledge import load_knowledge
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.evaluation.figures import training_curves
from zsbir.model.weights import Weights, load_weights, open_weights
from zsbir.recipes import RECIPES, recipe
from zsbir.training.checkpoint import TrainState
from zsbir.training.config import TrainConfig
from zsbir.training.context import Context, LocalContext
from zsbir.training.gather import barrier
from zsbir.training.loop import DEV_SCORE, Log, Trainer, TrainInputs, plan_training, tracked_names

if TYPE_CHECKING:
    from zsbir.edge.tracking import Tracker


UNDELIVERED = ".undelivered"


class InputUris(Config):
    """What it reads."""

    dataset: str = Field("", description="URI of a Dataset artifact, as zsbir.ingest prints it (required)")
    knowledge: str = Field(
        "", description="URI of a Knowledge artifact, as zsbir.teacher prints it; not needed without preservation"
    )
    weights: str = Field(
        "", description="backbone to start from: imagenet, a file, s3://...; none: the teacher's, if it is the same network"
    )
    weights_sha256: str = Field("", description="expected sha256 of the weight file; none: not checked")


class Settings(Config):
    """Where it runs. Nothing here changes what is computed."""

    root: str = Field(default_factory=default_root, description="storage root, also ZSBIR_ROOT")
    num_workers: int = Field(0, ge=0, description="Ray Train workers; 0: in this process, without Ray")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs each Ray worker holds")
    gpus_per_worker: float = Field(0, ge=0, description="GPUs each Ray worker holds")
    max_failures: int = Field(
        3, ge=0, description="worker failures after which Ray gives up; each resumes from the last checkpoint"
    )
    decode_threads: int = Field(0, ge=0, description="image threads of each worker; 0: by its cores")
    tracking: bool = Field(True, description="log to MLflow (MLFLOW_TRACKING_URI, else SQLite under the storage root)")
    experiment: str = Field("zsbir", description="MLflow experiment")
    parent: str = Field("", description="id of the MLflow run under which this one is shown, as a sweep's trials are")


class Job(Config):
    """One training, resolved: what each worker is told. Plain values, so that it travels to any process."""

    config: TrainConfig
    settings: Settings
    dataset: str
    knowledge: str
    weights: str
    run: str
    tracking_uri: str = ""
    watched: str = ""


def train(config: TrainConfig, uris: InputUris, settings: Settings, context: LocalContext | None = None) -> Artifact:
    """The Run artifact of that configuration and those inputs: made, finished from its last checkpoint, or found.

    context: the world of a training in this process, for who wants to follow it (a sweep's trial); Ray's workers have their own.

    Raises InputError for bad inputs, RunError when training fails, Interrupted when asked to stop.
    """
    if settings.parent:
        watch.stop()
    job = resolve(config, uris, settings)
    watch.record_facts(run=job.run)
    if exists(job.run):
        events.say(f"already trained: {job.run}")
        _deliver_again(job)
        return Artifact(job.run, "run")
    with alone(job.run):
        open_folder(layout.checkpoints_uri(job.run)).check_writable()
        if settings.num_workers:
            from zsbir.edge.ray_train import fit  # Ray is loaded only where it is asked for

            fit(run_job, job, settings)
        else:
            context = context or LocalContext()
            with context.signals():
                run_job(job, context)
    if not exists(job.run):
        raise RunError(f"training ended without a result in {job.run}")
    return Artifact(job.run, "run")


def resolve(config: TrainConfig, uris: InputUris, settings: Settings) -> Job:
    """Check every input before any work is done, and name the run by what it will compute."""
    _check_lasting(settings)
    if not uris.dataset:
        raise InputError("no data set: pass --dataset URI, as python -m zsbir.ingest prints it")
    dataset = Artifact(uris.dataset, "dataset")
    knowledge = Artifact(uris.knowledge, "knowledge") if uris.knowledge else None
    if config.weight_preservation and knowledge is None:
        raise InputError("no knowledge: pass --knowledge URI, as python -m zsbir.teacher prints it, or --weight-preservation 0")
    if knowledge:
        load_knowledge(knowledge, dataset)
    plan_training(config, load_samples(dataset), max(1, settings.num_workers))
    weights = _weights(config, uris, knowledge, settings.root)
    identity = [config.model_dump(mode="json"), dataset.digest, knowledge.digest if knowledge else "", weights.sha256]
    run = open_folder(layout.run_uri(settings.root, config.recipe, digest_of(identity)))
    return Job(
        config=config,
        settings=settings,
        dataset=dataset.uri,
        knowledge=knowledge.uri if knowledge else "",
        weights=weights.uri,
        run=run.uri,
        tracking_uri=_tracking_store(settings),
        watched=watch.folder_uri(),
    )


def _check_lasting(settings: Settings) -> None:
    """A Ray job's working folder is thrown away: nothing that should last may lie below it."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return
    root = settings.root
    if not is_remote(root) and not local_path(root).is_absolute():
        raise InputError(
            f"root {root!r} is relative: in a Ray job it would vanish with the job's folder; pass an absolute path or s3://"
        )
    if is_remote(root) and settings.tracking and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise InputError(
            "no MLFLOW_TRACKING_URI: MLflow's database would vanish with the job's folder; name a server, or pass --no-tracking"
        )


def _tracking_store(settings: Settings) -> str:
    if not settings.tracking:
        return ""
    from zsbir.edge.tracking import prepare_store, tracking_uri  # MLflow takes seconds to load

    uri = tracking_uri(settings.root)
    prepare_store(uri, settings.experiment)
    return uri


def _weights(config: TrainConfig, uris: InputUris, knowledge: Artifact | None, root: str) -> Weights:
    """The weights that were named; else the teacher's own where student and teacher are the same network; else ImageNet's."""
    source, sha256 = uris.weights, uris.weights_sha256
    if not source and knowledge and knowledge.manifest.config["backbone"] == config.backbone:
        source, sha256 = knowledge.manifest.inputs["weights"]["uri"], ""
    return load_weights(source or "imagenet", backbone=config.backbone, root=root, sha256=sha256)


def run_job(job: Job, context: Context) -> None:
    """Train on this worker; rank 0 signs the result."""
    if job.settings.num_workers:
        watch.start_worker(job.watched if context.rank == 0 else "")
    dataset = Artifact(job.dataset, "dataset")
    knowledge = Artifact(job.knowledge, "knowledge") if job.knowledge else None
    samples = load_samples(dataset)
    weights = open_weights(job.weights, backbone=job.config.backbone)
    inputs = TrainInputs(
        samples=samples,
        images=Images(dataset, samples),
        weights=weights,
        knowledge=load_knowledge(knowledge, dataset) if knowledge else None,
        same_labels=bool(knowledge and knowledge.manifest.facts["labels_digest"] == digest_of(weights.labels)),
    )
    with _tracking(job, dataset, context) as tracker:
        log = _told(tracker)
        made_from = {
            "dataset": dataset.reference(),
            "weights": {"uri": weights.uri, "digest": weights.sha256},
            **({"knowledge": knowledge.reference()} if knowledge else {}),
        }
        threads = job.settings.decode_threads
        trainer = Trainer(job.config, inputs, context, job.run, log=log, threads=threads, made_from=made_from)
        progress = trainer.run()
        if context.rank == 0:
            best = trainer.checkpoints.best_encoder(progress)
            if tracker:  # whoever is killed from here on leaves a run that MLflow lacks something of
                open_folder(job.run).replace(UNDELIVERED, b"")
            _publish(tracker, inputs, sign_run(job, made_from, progress, best))
            watch.flush()
    barrier()


def _told(tracker: Tracker | None) -> Log:
    """Whoever wants to know the metrics of a step."""

    def log(step: int, metrics: dict[str, float]) -> None:
        watch.record_metrics(step, metrics, keep=DEV_SCORE in metrics)
        if tracker:
            tracker.log(step, metrics)

    return log


@contextmanager
def _tracking(job: Job, dataset: Artifact, context: Context) -> Iterator[Tracker | None]:
    """The MLflow run of this training on rank 0; it ends FINISHED, FAILED, or KILLED when the user interrupts."""
    if not job.settings.tracking or context.rank:
        yield None
        return
    from zsbir.edge.tracking import Tracker  # MLflow takes seconds to load

    tracker = Tracker(
        job.tracking_uri,
        job.settings.experiment,
        folder_name(job.run),
        params=job.config.model_dump(mode="json"),
        datasets={"training": dataset},
        parent=job.settings.parent,
    )
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except Interrupted:
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)
        _remember_undelivered(open_folder(job.run), tracker)


def _publish(tracker: Tracker | None, inputs: TrainInputs, run: Artifact) -> None:
    """All of a finished run but its metrics to MLflow, the model included."""
    if tracker:
        tracker.artifacts({name: run.file(name) for name in ("curves.png", "config.yaml", "history.parquet")})
        first_photo = int(inputs.samples.select(split="train", domain="photo")[0])
        tracker.model(run.file("encoder.safetensors"), inputs.images.read(first_photo))


def _remember_undelivered(run: Folder, tracker: Tracker) -> None:
    """A mark in the run's folder that MLflow lacks something; the same command delivers it when MLflow is back."""
    if tracker.delivered:
        run.delete([UNDELIVERED])
    else:
        run.replace(UNDELIVERED, b"")
        events.warn("not all of this run reached MLflow; the same command delivers it when MLflow answers")


def _deliver_again(job: Job) -> None:
    """What MLflow missed of a finished run, from the run's own history."""
    if open_folder(job.run).size(UNDELIVERED) is None:
        return
    run, dataset = Artifact(job.run, "run"), Artifact(job.dataset, "dataset")
    samples = load_samples(dataset)
    with _tracking(job, dataset, LocalContext()) as tracker:
        if tracker:
            for row in pq.read_table(run.file("history.parquet")).to_pylist():
                metrics = {name: value for name, value in row.items() if value is not None and name != "step"}
                tracker.log(int(row["step"]), tracked_names(metrics))
            weights = open_weights(job.weights, backbone=job.config.backbone)
            _publish(tracker, TrainInputs(samples, Images(dataset, samples), weights), run)


def sign_run(job: Job, made_from: dict[str, dict[str, str]], progress: TrainState, best_encoder: Path) -> Artifact:
    """The Run artifact: the best encoder, the history and the configuration."""
    name = folder_name(job.run)
    with draft(job.run, "run", job.config.recipe) as work:
        shutil.copyfile(best_encoder, work.file("encoder.safetensors"))
        work.file("config.yaml").write_text(yaml.safe_dump(job.config.model_dump(mode="json"), sort_keys=False), "utf-8")
        training_curves(progress.history, title=name).savefig(work.file("curves.png"), dpi=150)
        pq.write_table(pa.Table.from_pylist(_table(progress.history)), work.file("history.parquet"))
        return work.commit(
            digest=digest_of([name]),
            config=job.config,
            inputs=made_from,
            counts={"steps": progress.step, "best_step": progress.best_step},
            facts={"best_dev_map_all": progress.best_score} if progress.best_score >= 0 else {},
        )


def _table(history: list[dict[str, float]]) -> list[dict[str, float | None]]:
    names = sorted({name for row in history for name in row})
    return [{name: row.get(name) for name in names} for row in history]


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.train", __doc__ or "")
    parser.add_argument("recipe", nargs="?", help=f"starting point: {', '.join(RECIPES)}")
    parser.add_config_file()
    parser.add_fields(InputUris, title="inputs")
    parser.add_fields(Settings, title="where it runs")
    parser.add_fields(
        TrainConfig, title="training (defaults are the configuration's; recipes change them)", skip=frozenset({"recipe"})
    )
    parsed, values = parser.values(argv)
    changes, uris, settings = cli.split_fields(values, TrainConfig, InputUris, Settings)
    start = recipe(parsed.recipe or changes.pop("recipe", "custom"))
    if "epochs" in changes:
        changes.setdefault("steps", 0)  # whoever says epochs does not mean the recipe's steps
    return train(start.replace(**changes), InputUris.of(uris), Settings.of(settings)).uri


if __name__ == "__main__":
    cli.main(_parse)
