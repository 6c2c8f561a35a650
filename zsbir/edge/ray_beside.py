"""Whole trainings side by side on Ray, each in one process, which saves a checkpoint when the driver is asked to stop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

from zsbir.base import events, layout, watch
from zsbir.base.errors import InputError, Interrupted, RunError
from zsbir.base.outages import outage_of
from zsbir.base.storage import open_folder
from zsbir.edge.ray_cluster import connected
from zsbir.edge.ray_lines import warnings_of_workers_alone
from zsbir.edge.ray_map import ray_map
from zsbir.edge.ray_room import Need
from zsbir.edge.ray_train import LOOK_S, MARKS, STOP_FILE, _beside, _last_line, _listening
from zsbir.training.checkpoint_names import newest_checkpoint, numbered
from zsbir.training.context import Context, LocalContext, StopSignals
from zsbir.training.loop import DEV_SCORE

Ending = Exception | None
"""How a training has ended: the error that ended it, or None where it finished."""


def train_beside(
    run_job: Callable[[Any, Context], None], jobs: Sequence[Any], names: Sequence[str], *, at_once: int
) -> list[Ending]:
    """Call `run_job(job, context)` for each job, `at_once` at a time, and return how each has ended, in order.

    names: what the lines of each job begin with. An error of one does not end the others. The first SIGINT, SIGTERM or SIGHUP asks
    all of them for a checkpoint, and each ends with Interrupted; a later one ends them at once, with KeyboardInterrupt. A process
    that is lost is replaced, and its training goes on from its last checkpoint.
    """
    settings, stop = jobs[0].settings, StopSignals()
    workers = min(at_once, len(jobs))
    need = Need(workers, settings.cpus_per_worker, settings.gpus_per_worker)
    with connected(need), _without_marks(jobs), warnings_of_workers_alone(names), stop.heard(), _beside(_forward_stop, stop, jobs):
        return list(
            ray_map(
                _Trainings,
                (run_job,),
                "train",
                zip(jobs, names, strict=True),
                workers=workers,
                cpus_per_worker=settings.cpus_per_worker,
                gpus_per_worker=settings.gpus_per_worker,
                chunks_a_task=1,
            )
        )


@contextmanager
def _without_marks(jobs: Sequence[Any]) -> Iterator[None]:
    """Delete the marks by which driver and workers agree on the end from the folders of the runs, before and after."""
    for job in jobs:
        open_folder(job.run).delete(MARKS)
    try:
        yield
    finally:
        for job in jobs:
            open_folder(job.run).delete(MARKS)


def _forward_stop(stop: StopSignals, jobs: Sequence[Any], over: threading.Event) -> None:
    """Once asked to stop, ask every training, also those that have not begun."""
    while not stop.asked():
        if over.wait(LOOK_S):
            return
    events.say("asked to stop; each training saves a checkpoint")
    waiting = [open_folder(job.run) for job in jobs]
    while waiting and not over.wait(LOOK_S):
        for folder in list(waiting):
            with suppress(InputError, RunError, OSError):  # the store does not answer for a while: it is asked again
                folder.replace(STOP_FILE, b"")
                waiting.remove(folder)


class BesideContext(LocalContext):
    """A training in one of Ray's processes. stop: set when the driver asks to stop. resumed_at: the step of its last checkpoint."""

    def __init__(self, stop: threading.Event, resumed_at: int):
        super().__init__()
        self._asked, self._resumed_at = stop, resumed_at
        # Ray sets how many cores this process holds; torch would use all cores of the machine.
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))

    def report(self, metrics: dict[str, float]) -> None:
        """Print a score, since the driver knows of none until the training has ended; not again those before it was resumed."""
        step = int(metrics["step"])
        if step > self._resumed_at:
            events.say_as_part(f"step {step}: {DEV_SCORE} {metrics[DEV_SCORE]:.3f}")

    def stop_requested(self) -> bool:
        """Return whether the driver has asked to stop."""
        return self._asked.is_set()


class _Trainings:
    """What each process does, one training after another."""

    def __init__(self, run_job: Callable[[Any, Context], None]):
        self._run_job = run_job

    def train(self, chunks: Sequence[tuple[Any, str]]) -> Iterator[Ending]:
        watch.stop()  # the driver reports
        for job, name in chunks:
            os.environ[events.PART] = name
            yield self._train(job)

    def _train(self, job: Any) -> Ending:
        stop = threading.Event()
        try:
            folder = open_folder(job.run)
            last = newest_checkpoint(open_folder(layout.checkpoints_uri(job.run)))
            step = numbered([last.folder_name], "step")[last.folder_name] if last else 0
            if last:
                events.say_as_part(f"resuming at step {step}")
            with _listening(stop, folder):
                self._run_job(job, BesideContext(stop, step))
        except (InputError, RunError, Interrupted) as error:
            return error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - the trainings beside it go on
            return (outage_of(error) or RunError)(f"a worker failed: {type(error).__name__}: {_last_line(error)}")
        return None
