"""What a training run reads, where it runs, and the job that its workers are given. Every input is checked before work begins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import Field

from zsbir.base import events, watch
from zsbir.base.artifact import Artifact
from zsbir.base.config import Config, digest_of
from zsbir.base.errors import InputError
from zsbir.base.layout import MLFLOW_EXPERIMENT, run_uri
from zsbir.base.storage import default_root, is_remote, local_path, open_folder
from zsbir.training.config import TrainConfig
from zsbir.training.requirements import check_addresses, check_has_knowledge, check_inputs, check_workers

if TYPE_CHECKING:
    from zsbir.model.weights import Weights


_PROCESS_COUNTS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""Environment variables in which torchrun, Open MPI and MPICH tell a process how many of its kind they started."""


class InputUris(Config):
    """Addresses of the artifacts and of the weight file that a training reads."""

    dataset: str = Field("", description="URI of a Dataset artifact, as zsbir.ingest prints it (required)")
    knowledge: str = Field(
        "", description="URI of a Knowledge artifact, as zsbir.teacher prints it; not needed if the preservation weight is 0"
    )
    weights: str = Field(
        "",
        description="backbone weights to start from: imagenet, a file or s3://...; none: the teacher's if it is the same network",
    )
    weights_sha256: str = Field("", description="expected sha256 of the weight file; none: not checked")


class Settings(Config):
    """Where a training runs. Nothing here changes what is computed."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")
    num_workers: int = Field(0, ge=0, description="Ray Train workers; 0: in this process, without Ray")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs each Ray worker holds")
    gpus_per_worker: float = Field(0, ge=0, description="GPUs each Ray worker holds")
    max_failures: int = Field(
        3, ge=0, description="worker failures after which Ray gives up; after each, workers resume from the last checkpoint"
    )
    decode_threads: int = Field(0, ge=0, description="threads that decode images in each worker; 0: by its cores")
    tracking: bool = Field(True, description="log to MLflow (MLFLOW_TRACKING_URI, else a SQLite file under the storage root)")
    experiment: str = Field(MLFLOW_EXPERIMENT, description="MLflow experiment")
    parent: str = Field("", description="id of the MLflow run to nest this run under, as a sweep does with its trials")
    run_name: str = Field("", max_length=200, description="name of the run in MLflow; none: the recipe and what differs from it")


class Job(Config):
    """One training with every input resolved, as each worker gets it. Plain values, so that it can be sent to any process.

    name: what people see it by in MLflow; "": the name of the run's folder.
    """

    config: TrainConfig
    settings: Settings
    dataset: str
    knowledge: str
    weights: str
    run: str
    name: str = ""
    tracking_uri: str = ""
    watched: str = ""
    part_of: str = ""


def resolve(config: TrainConfig, uris: InputUris, settings: Settings) -> Job:
    """Check every input and return the job, its run named by what it will compute. Raises InputError for a bad input."""
    _check_launcher()
    check_workers(config, settings.num_workers, settings.gpus_per_worker)
    check_addresses(config)
    _check_lasting(settings)
    if not uris.dataset:
        raise InputError(
            "no dataset given: pass --dataset URI, as python -m zsbir.ingest prints it; if you did, did the command before fail?"
        )
    dataset = Artifact(uris.dataset, "dataset")
    knowledge = Artifact(uris.knowledge, "knowledge") if uris.knowledge else None
    check_has_knowledge(config, given=knowledge is not None)
    check_inputs(config, dataset, knowledge)
    _check_contents(config, dataset, knowledge, workers=max(1, settings.num_workers))
    weights = _starting_weights(config, uris, knowledge, settings.root)
    identity = [config.identity(), dataset.digest, knowledge.digest if knowledge else "", weights.sha256]
    run = open_folder(run_uri(settings.root, config.recipe, digest_of(identity)))
    return Job(
        config=config,
        settings=settings,
        dataset=dataset.uri,
        knowledge=knowledge.uri if knowledge else "",
        weights=weights.uri,
        run=run.uri,
        tracking_uri=_prepared_store(settings),
        watched=watch.folder_uri(),
        part_of=events.part(),
    )


def _check_launcher() -> None:
    """Refuse to be one of several processes that a launcher started: each would train the whole run by itself."""
    for variable in _PROCESS_COUNTS:
        count = os.environ.get(variable, "1")
        if count.isdigit() and int(count) > 1:
            raise InputError(
                f"{count} processes were started, by torchrun or another launcher ({variable}={count}), and each would train the"
                f" whole run; start a single one, which starts its own workers: --num-workers {count}, on GPUs --gpus-per-worker 1"
            )


def _check_lasting(settings: Settings) -> None:
    """Refuse results below a Ray job's working folder, which Ray deletes after the job."""
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


def _check_contents(config: TrainConfig, dataset: Artifact, knowledge: Artifact | None, workers: int) -> None:
    """Check by the tables what the manifests do not say: that each class can be trained on, and that the knowledge is sound."""
    from zsbir.data.knowledge import load_knowledge
    from zsbir.data.samples import load_samples
    from zsbir.training.loop import plan_training  # torch takes seconds to load

    if knowledge:
        load_knowledge(knowledge, dataset)
    plan_training(config, load_samples(dataset), workers)


def _prepared_store(settings: Settings) -> str:
    """Return the URI of the MLflow store, prepared for several processes; empty without tracking."""
    if not settings.tracking:
        return ""
    from zsbir.edge.tracking import prepare_store, tracking_uri  # MLflow takes seconds to load

    uri = tracking_uri(settings.root)
    prepare_store(uri, settings.experiment)
    return uri


def _starting_weights(config: TrainConfig, uris: InputUris, knowledge: Artifact | None, root: str) -> Weights:
    """Load the weights that were named; else the teacher's, if student and teacher are the same network; else ImageNet's."""
    from zsbir.model.weights import load_weights

    source, sha256 = uris.weights, uris.weights_sha256
    if not source and knowledge and knowledge.manifest.config["backbone"] == config.backbone:
        source, sha256 = knowledge.input_file("weights"), ""
    return load_weights(source or "imagenet", backbone=config.backbone, root=root, sha256=sha256)
