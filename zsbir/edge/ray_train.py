"""Ray Train behind the loop's Context: n data-parallel workers, restarted from our own checkpoints when one is lost."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from typing import Any

# Train prints every worker's line twice without this.
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")

import ray
import ray.train
import torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.trainable.trainable_fn_utils import _in_tune_session
from torch import nn

from zsbir.base.arrow import arrow_filesystem
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import Folder, folder
from zsbir.edge.ray_cluster import connected
from zsbir.training.context import Context, data_parallel

BOOKKEEPING = ".ray"
ERROR_FILE = ".error.json"
"""In the run's folder: how a worker tells the driver of an error that trying again would not mend."""


class RayContext:
    """One worker of a Ray Train group."""

    def __init__(self) -> None:
        world = ray.train.get_context()
        self.rank, self.world_size = world.get_world_rank(), world.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        # Ray counts fractions of CPUs; torch must not take more threads than this worker holds cores.
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))

    def wrap(self, module: nn.Module) -> nn.Module:
        """See Context."""
        return data_parallel(module, self.device)

    def report(self, metrics: dict[str, float]) -> None:
        """To the Train controller, without a checkpoint: the run's folder holds those."""
        ray.train.report(metrics)

    def stop_requested(self) -> bool:
        """Ray ends workers itself; the checkpoints of the loop are what survives."""
        return False


def fit(run_job: Callable[[Any, Context], None], job: Any, settings: Any) -> None:
    """Run `run_job(job, context)` on `settings.num_workers` workers.

    Raises InputError where a worker found one, RunError when workers failed more often than `settings.max_failures`.
    """
    place = folder(job.run)
    place.delete([ERROR_FILE])
    workers = settings.num_workers
    with connected(cpus=workers * settings.cpus_per_worker, gpus=workers * settings.gpus_per_worker):
        try:
            _trainer(_Worker(run_job, job), place, settings).fit()
        except ray.train.TrainingFailedError as error:
            raise _plain(error) from None
        finally:
            place.sub(BOOKKEEPING).clear()
    if place.size(ERROR_FILE) is not None:
        raise InputError(place.read(ERROR_FILE).decode())


def _trainer(worker: _Worker, run: Folder, settings: Any) -> TorchTrainer:
    """Ray's storage path holds the controller's bookkeeping alone: checkpoints are the loop's own, the same in every context.

    It lies in the run's folder, on the same store, because every node must reach it.
    """
    path, filesystem = arrow_filesystem(run.sub(BOOKKEEPING).uri)
    gpus = settings.gpus_per_worker
    resources = {"CPU": settings.cpus_per_worker, **({"GPU": gpus} if gpus else {})}
    return TorchTrainer(
        worker,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=settings.num_workers, use_gpu=gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(
            name=uuid.uuid4().hex[:8],  # a name Ray has seen before would be taken for finished
            storage_path=path,
            storage_filesystem=filesystem,
            # Ray's own account of what it does is for its log files; the story of the training is told by the loop.
            logging_config=LoggingConfig(log_level="WARNING"),
            failure_config=FailureConfig(max_failures=settings.max_failures, controller_failure_limit=3),
            callbacks=[TuneReportCallback()] if _in_tune_session() else [],
        ),
    )


class _Worker:
    """What each worker runs. An InputError, the same on all workers, ends the training at once: trying again would not mend it.

    Everything else is raised, so that Ray ends the other workers, which wait for this one, and starts all of them again.
    """

    def __init__(self, run_job: Callable[[Any, Context], None], job: Any):
        self.run_job, self.job = run_job, job

    def __call__(self) -> None:
        _quieten()
        try:
            self.run_job(self.job, RayContext())
        except InputError as error:
            folder(self.job.run).replace(ERROR_FILE, str(error).encode())


def _quieten() -> None:
    """Ray names some of Train's loggers by file, which its own LoggingConfig does not reach; each report would be a line."""
    for name in [name for name in logging.root.manager.loggerDict if "/ray/train/" in name]:
        logging.getLogger(name).setLevel(logging.WARNING)


def _plain(error: Exception) -> RunError:
    """The first worker's own error as one line."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        cause = getattr(failure, "cause", None) or failure
        return RunError(f"a worker failed: {type(cause).__name__}: {str(cause).strip().splitlines()[-1][:300]}")
    return RunError(str(error).strip().splitlines()[-1][:300])
