"""Ray Train behind the loop's Context: data-parallel workers, restarted from the run's own checkpoints when one is lost."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.trainable.trainable_fn_utils import _in_tune_session
from torch import nn

from zsbir.base import code, events
from zsbir.base.arrow import arrow_filesystem
from zsbir.base.errors import ClusterError, InputError, Interrupted, PermanentError, RunError
from zsbir.base.outages import outage_of
from zsbir.base.storage import Folder, open_folder
from zsbir.edge.ray_cluster import connected, variable
from zsbir.edge.ray_room import Need, Waiting, workers_alive
from zsbir.training.context import Context, StopSignals, data_parallel
from zsbir.training.gather import from_all

BOOKKEEPING = ".ray"

# The driver and the workers, which may be on other machines, agree on the end of a training by marks in the run's folder.
STOP_FILE = ".stop"
"""Written by the driver: the user asks to stop."""
HEARD_FILE = ".heard"
"""Written by the first worker, again every second: the request has arrived, and the worker is alive."""
ERROR_MARKS: dict[str, type[Exception]] = {".error.json": InputError, ".interrupted": Interrupted, ".permanent": PermanentError}
"""Written by the workers: the message of an error that ended them and must not be tried again, by the name of the mark."""
MARKS = (STOP_FILE, HEARD_FILE, *ERROR_MARKS)

LISTEN_S = 1.0
"""Seconds between two reads of the driver's mark by the first worker."""
LOOK_S = 0.1
"""Seconds between two checks of the driver."""
PATIENCE_S = 20.0
"""Seconds without a mark of the first worker after which the driver, asked to stop, ends the training itself."""
START_S = 20.0
"""Seconds that workers usually need to start; only after them the driver says that it waits."""
START_FAILURES = 20
"""How often a process may die while a group of workers starts, as it does on a node that lacks the packages."""


class RayContext:
    """One worker of a Ray Train group. stop: set when the driver asks to stop."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        world = ray.train.get_context()
        self.rank, self.world_size = world.get_world_rank(), world.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        # Ray counts fractions of CPUs; torch must not start more threads than this worker holds cores.
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))

    def wrap(self, module: nn.Module, *, unused: bool = False) -> nn.Module:
        """Return the module with its gradients averaged over the workers."""
        return data_parallel(module, self.device, unused=unused)

    def report(self, metrics: dict[str, float]) -> None:
        """Report to the Train controller, without a checkpoint, because those are in the run's folder."""
        ray.train.report(metrics)

    def stop_requested(self) -> bool:
        """Return whether the driver has asked to stop; only the first worker knows, and the loop passes it on to the others."""
        return self._stop.is_set()


def fit(run_job: Callable[[Any, Context], None], job: Any, settings: Any) -> None:
    """Run `run_job(job, context)` on `settings.num_workers` workers.

    The first SIGINT, SIGTERM or SIGHUP asks the workers for a final checkpoint; a later one ends them at once. Outside the main
    thread, as inside Ray Tune, signals have no effect. Where the cluster has no room, it waits without a limit, and says so.

    Raises InputError or PermanentError if a worker raised one, InputError also if one has other code, RunError when workers failed
    more often than `settings.max_failures`, ClusterError when that was because nodes were lost, Interrupted when the training was
    asked to stop and did, KeyboardInterrupt when it was ended at once.
    """
    folder = open_folder(job.run)
    folder.delete(MARKS)
    need = Need(settings.num_workers, settings.cpus_per_worker, settings.gpus_per_worker)
    with connected(need):
        trainer, stop = _trainer(_Worker(run_job, job), folder, settings), StopSignals()
        try:
            with stop.heard(), _beside(_forward_stop, stop, folder, trainer), _beside(_report_waiting, need), _address_in_actors():
                trainer.fit()
            ending = _ending_error(folder)
        except ray.train.TrainingFailedError as error:
            raise _ending_error(folder) or _first_error(error, job) from None
        except ray.exceptions.RayActorError as error:
            if not stop.asked():
                raise ClusterError(f"Ray lost the process that watches the workers ({_last_line(error)}); {_way_on(job)}") from None
            ending = _ending_error(folder) or Interrupted(
                f"no worker was running to save a checkpoint; the same command goes on from the last one in {job.run}"
            )
        except KeyboardInterrupt:
            trainer.end()
            raise
        finally:
            folder.sub(BOOKKEEPING).clear()
            folder.delete(MARKS)
    if ending:
        raise ending


def _ending_error(folder: Folder) -> Exception | None:
    """Return the error that ended the workers, by their marks; None if there is no mark."""
    for mark, kind in ERROR_MARKS.items():
        if folder.size(mark) is not None:
            return kind(folder.read(mark).decode())
    return None


@contextmanager
def _beside(work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """While inside, run `work(*arguments, over)` in a thread, which ends soon after the event `over` is set.

    The main thread waits for Ray, and signal handlers must be short.
    """
    over = threading.Event()
    thread = threading.Thread(target=work, args=(*arguments, over), daemon=True, name=work.__name__)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _report_waiting(need: Need, over: threading.Event) -> None:
    """Say when the workers are not there for longer than they need to start: the cluster has no room for them, or lost a node."""
    if _in_tune_session():  # the trials of a sweep share one Ray job, in which this training's workers cannot be told from others
        return
    waiting = Waiting(START_S)
    while not over.wait(LOOK_S * 10):
        alive = workers_alive("RayTrainWorker")
        if alive is None:
            continue
        if alive < need.workers:
            waiting.say(f"{need} to start; {alive} are there")
        else:
            waiting.end("the workers are there")


def _forward_stop(stop: StopSignals, folder: Folder, trainer: _Trainer, over: threading.Event) -> None:
    """Once asked to stop, ask the workers and wait for their end. End the training if no worker answers for PATIENCE_S."""
    while not stop.asked():
        if over.wait(LOOK_S):
            return
    events.say("asked to stop; the workers save a checkpoint")
    last_mark, since_s, is_asked = None, time.monotonic(), False
    while not over.wait(LOOK_S):
        with suppress(InputError, RunError, OSError):  # the store does not answer for a while: PATIENCE_S goes on counting
            if not is_asked:
                folder.replace(STOP_FILE, b"")
                is_asked = True
            if (mark := folder.version(HEARD_FILE)) != last_mark:
                last_mark, since_s = mark, time.monotonic()
        if time.monotonic() - since_s > PATIENCE_S:
            trainer.end()
            return


@contextmanager
def _address_in_actors() -> Iterator[None]:
    """Let Ray Train's own actors know their cluster: where several run on one machine, its cleaner fails without."""
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    with variable("RAY_ADDRESS", ray.get_runtime_context().gcs_address):
        yield


class _Trainer(TorchTrainer):  # type: ignore[misc]  # ray is untyped for mypy
    """Ray's TorchTrainer, but `fit` handles signals, and another thread can end the training."""

    _controller: Any = None

    def _register_sigint_handler(self, controller: Any) -> None:
        """Keep the controller. Ray calls this on the main thread; its own handler would kill the workers on SIGINT."""
        self._controller = controller

    def end(self) -> None:
        """Kill the controller; Ray then ends the workers, which it owns."""
        if self._controller is not None:
            ray.kill(self._controller)


def _trainer(worker: _Worker, run: Folder, settings: Any) -> _Trainer:
    """Return Ray's trainer. Its storage path holds the controller's bookkeeping alone: checkpoints are written by the loop.

    The path is in the run's folder, because every node must reach it.
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
            # Ray's own messages go to its log files; the loop prints the progress of the training. Its warnings are of what it
            # tries again, with a stack trace, as on a machine too busy to answer its autoscaler within five seconds.
            logging_config=LoggingConfig(log_level="ERROR"),
            failure_config=FailureConfig(max_failures=settings.max_failures, controller_failure_limit=START_FAILURES),
            callbacks=[TuneReportCallback()] if _in_tune_session() else [],
        ),
    )


class _Worker:
    """What each worker runs. InputError and Interrupted, which all workers raise, end the training at once and are not failures.

    Other errors are raised, so that Ray ends the other workers, which wait for this one, and restarts all of them. After a
    PermanentError, the restarted ones find its mark and leave.
    """

    def __init__(self, run_job: Callable[[Any, Context], None], job: Any):
        self.run_job, self.job, self.code = run_job, job, code.running_code()

    def __call__(self) -> None:
        _quieten_loggers()
        stop = threading.Event()
        context, folder = RayContext(stop), open_folder(self.job.run)
        if _ending_error(folder):
            return
        try:
            with _listening(stop, folder) if context.rank == 0 else nullcontext():
                self._check_code()
                self.run_job(self.job, context)
        except tuple(ERROR_MARKS.values()) as error:
            mark = next(mark for mark, kind in ERROR_MARKS.items() if isinstance(error, kind))
            folder.replace(mark, str(error).encode())
            if isinstance(error, PermanentError):
                raise

    def _check_code(self) -> None:
        """Raise InputError on all workers unless all of them run the code of the driver, whose commit the run is signed with."""
        found = [text for text in from_all(code.difference(self.code)) if text]
        if found:
            raise InputError(f"{'; '.join(sorted(set(found)))}; {code.WAY_OUT}")


@contextmanager
def _listening(stop: threading.Event, folder: Folder) -> Iterator[None]:
    """While inside, set `stop` in a thread when the driver asks, and then mark every second that this worker is alive."""
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            with suppress(InputError, RunError, OSError):  # the store does not answer for a while: the next read may succeed
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
        thread.join()  # a last mark must not be written after the driver has deleted them


def _quieten_loggers() -> None:
    """Silence loggers of Ray Train that are named by file, which its LoggingConfig does not reach: each report would be a line.

    And Matplotlib's, which would say on each new machine that it has made a list of fonts.
    """
    for name in [*(name for name in logging.root.manager.loggerDict if "/ray/train/" in name), "matplotlib.font_manager"]:
        logging.getLogger(name).setLevel(logging.WARNING)


def _first_error(error: Exception, job: Any) -> RunError:
    """Return the first worker's own error as one line; a ClusterError where a node was lost, from which the other errors follow."""
    failures = list((getattr(error, "worker_failures", None) or {}).values())
    lost = next((failure for failure in failures if _is_loss_of_node(failure)), None)
    if lost is not None:
        return ClusterError(f"nodes were lost more often than --max-failures allows ({_last_line(lost)}); {_way_on(job)}")
    for failure in failures:
        cause = getattr(failure, "cause", None) or failure
        return (outage_of(cause) or RunError)(f"a worker failed: {type(cause).__name__}: {_last_line(cause)}")
    return RunError(_last_line(error))


def _is_loss_of_node(failure: BaseException) -> bool:
    """Return whether a worker was lost with its node. Ray has one class for that and for a process that died; its text tells."""
    return isinstance(failure, ray.exceptions.RayActorError) and "node" in str(failure).partition("Some common causes")[0].lower()


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:300]


def _way_on(job: Any) -> str:
    return f"the same command goes on from the last checkpoint in {job.run}"
