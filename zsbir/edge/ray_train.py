"""Ray Train behind the loop's Context: n data-parallel workers, restarted from our own checkpoints when one is lost."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
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

from zsbir.base import events
from zsbir.base.arrow import arrow_filesystem
from zsbir.base.errors import InputError, Interrupted, RunError
from zsbir.base.storage import Folder, open_folder
from zsbir.edge.ray_cluster import connected
from zsbir.training.context import Context, StopSignals, data_parallel

BOOKKEEPING = ".ray"

# How the driver and the workers, which may be on other machines, talk of the end of a training: by marks in the run's folder.
STOP_FILE = ".stop"
"""The driver's: the user asks to stop."""
HEARD_FILE = ".heard"
"""The first worker's, written anew every second: the question is heard, and the worker alive."""
LAST_WORDS: dict[str, type[InputError] | type[Interrupted]] = {".error.json": InputError, ".interrupted": Interrupted}
"""The workers': what ended them, and must not be tried again, as its message."""
MARKS = (STOP_FILE, HEARD_FILE, *LAST_WORDS)

LISTEN_S = 1.0
"""Seconds between two looks at the driver's mark."""
LOOK_S = 0.1
PATIENCE_S = 20.0
"""Seconds without a sign of a worker after which the driver, asked to stop, ends the training itself."""


class RayContext:
    """One worker of a Ray Train group. stop: set when the driver asks to stop."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
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
        """Whether the driver has asked; the first worker alone hears it, and the loop asks all of them."""
        return self._stop.is_set()


def fit(run_job: Callable[[Any, Context], None], job: Any, settings: Any) -> None:
    """Run `run_job(job, context)` on `settings.num_workers` workers.

    The first SIGINT or SIGTERM asks the workers for a final checkpoint; a later one ends them at once. In another thread than the
    main one, as inside Ray Tune, nobody hears of signals.

    Raises InputError where a worker found one, RunError when workers failed more often than `settings.max_failures`, Interrupted
    when the training was asked to stop and did, KeyboardInterrupt when it was ended at once.
    """
    folder = open_folder(job.run)
    folder.delete(MARKS)
    workers = settings.num_workers
    with connected(cpus=workers * settings.cpus_per_worker, gpus=workers * settings.gpus_per_worker):
        trainer, stop = _trainer(_Worker(run_job, job), folder, settings), StopSignals()
        try:
            with stop.heard(), _passing_on(stop, folder, trainer):
                trainer.fit()
            words = _last_words(folder)
        except ray.train.TrainingFailedError as error:
            raise _plain(error) from None
        except ray.exceptions.RayActorError:
            if not stop.asked():
                raise
            words = _last_words(folder) or Interrupted(
                f"no worker was there to save a checkpoint; the same command goes on from the last one in {job.run}"
            )
        except KeyboardInterrupt:
            trainer.end()
            raise
        finally:
            folder.sub(BOOKKEEPING).clear()
            folder.delete(MARKS)
    if words:
        raise words


def _last_words(folder: Folder) -> InputError | Interrupted | None:
    """What the workers say ended them, if they do."""
    for mark, kind in LAST_WORDS.items():
        if folder.size(mark) is not None:
            return kind(folder.read(mark).decode())
    return None


@contextmanager
def _passing_on(stop: StopSignals, folder: Folder, trainer: _Trainer) -> Iterator[None]:
    """While inside, a thread passes the user's wish on: the main thread waits for Ray, and handlers of signals must be short."""
    over = threading.Event()
    thread = threading.Thread(target=_pass_on, args=(stop, folder, trainer, over), daemon=True, name="stop")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _pass_on(stop: StopSignals, folder: Folder, trainer: _Trainer, over: threading.Event) -> None:
    """Once asked, ask the workers, and wait for their end. A training whose workers are not there yet, or no more, is ended."""
    while not stop.asked():
        if over.wait(LOOK_S):
            return
    events.say("asked to stop; the workers save a checkpoint")
    sign, since_s, told = None, time.monotonic(), False
    while not over.wait(LOOK_S):
        with suppress(InputError, RunError, OSError):  # a store that is away for a while: patience counts
            if not told:
                folder.replace(STOP_FILE, b"")
                told = True
            if (seen := folder.version(HEARD_FILE)) != sign:
                sign, since_s = seen, time.monotonic()
        if time.monotonic() - since_s > PATIENCE_S:
            trainer.end()
            return


class _Trainer(TorchTrainer):  # type: ignore[misc]  # ray is untyped for mypy
    """Ray's, but signals are left to `fit`, and the training can be ended from another thread."""

    _controller: Any = None

    def _register_sigint_handler(self, controller: Any) -> None:
        """Called on the main thread, once the controller is there. Ray's own handler would kill the workers on SIGINT."""
        self._controller = controller

    def end(self) -> None:
        """Kill the controller; Ray then ends the workers, which it owns."""
        if self._controller is not None:
            ray.kill(self._controller)


def _trainer(worker: _Worker, run: Folder, settings: Any) -> _Trainer:
    """Ray's storage path holds the controller's bookkeeping alone: checkpoints are the loop's own, the same in every context.

    It lies in the run's folder, on the same store, because every node must reach it.
    """
    path, filesystem = arrow_filesystem(run.sub(BOOKKEEPING).uri)
    gpus = settings.gpus_per_worker
    resources = {"CPU": settings.cpus_per_worker, **({"GPU": gpus} if gpus else {})}
    return _Trainer(
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
    """What each worker runs. InputError and Interrupted, the same on all workers, end the training at once: they are no failures.

    Everything else is raised, so that Ray ends the other workers, which wait for this one, and starts all of them again.
    """

    def __init__(self, run_job: Callable[[Any, Context], None], job: Any):
        self.run_job, self.job = run_job, job

    def __call__(self) -> None:
        _quieten()
        stop = threading.Event()
        context, folder = RayContext(stop), open_folder(self.job.run)
        try:
            with _listening(stop, folder) if context.rank == 0 else nullcontext():
                self.run_job(self.job, context)
        except tuple(LAST_WORDS.values()) as error:
            mark = next(mark for mark, kind in LAST_WORDS.items() if isinstance(error, kind))
            folder.replace(mark, str(error).encode())


@contextmanager
def _listening(stop: threading.Event, folder: Folder) -> Iterator[None]:
    """While inside, a thread sets `stop` when the driver asks, and then tells it every second that this worker is alive."""
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            with suppress(InputError, RunError, OSError):  # a store that is away for a while: the next look may find it
                if stop.is_set() or folder.size(STOP_FILE) is not None:
                    stop.set()
                    folder.replace(HEARD_FILE, str(time.time()).encode())
            over.wait(LISTEN_S)

    thread = threading.Thread(target=listen, daemon=True, name="stop")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()  # a last sign must not come after the driver has cleared them away


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
