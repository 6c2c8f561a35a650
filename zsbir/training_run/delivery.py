"""Delivery of a run to MLflow: metrics while it trains, files and model at its end, and later whatever MLflow missed.

A mark in the run's folder, UNDELIVERED, says that MLflow may lack something. It is set before the run is signed and deleted when
everything has arrived, so a process that is killed in between leaves the mark; the same command then delivers again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zsbir.base import events
from zsbir.base.artifact import Artifact
from zsbir.base.errors import Interrupted
from zsbir.base.storage import Folder, folder_name, open_folder
from zsbir.training_run.plan import Job

if TYPE_CHECKING:
    from zsbir.data.samples import Samples
    from zsbir.data.shards import Images
    from zsbir.edge.tracking import Tracker

UNDELIVERED = ".undelivered"
"""File in the folder of a finished run that is there as long as MLflow may lack something of the run."""


@contextmanager
def tracked(job: Job, dataset: Artifact, rank: int) -> Iterator[Tracker | None]:
    """Open the MLflow run of this training on rank 0; None on other ranks and without tracking.

    On leaving, the MLflow run ends as FINISHED, as KILLED when the user interrupted, or else as FAILED.
    """
    if not job.settings.tracking or rank:
        yield None
        return
    from zsbir.edge.tracking import Tracker  # MLflow takes seconds to load

    tracker = Tracker(
        job.tracking_uri,
        job.settings.experiment,
        folder_name(job.run),
        name=job.name or folder_name(job.run),
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
        _update_mark(open_folder(job.run), tracker)


def mark_undelivered(run: str) -> None:
    """Note in the run's folder that MLflow may lack something of the run."""
    open_folder(run).replace(UNDELIVERED, b"")


def _update_mark(run: Folder, tracker: Tracker) -> None:
    if tracker.delivered:
        run.delete([UNDELIVERED])
    else:
        mark_undelivered(run.uri)
        events.warn("not all of this run reached MLflow; the same command delivers it when MLflow answers")


def publish(tracker: Tracker, run: Artifact, samples: Samples, images: Images) -> None:
    """Send a finished run's files and its model to MLflow. The model's input example is the first photo it was trained on."""
    tracker.artifacts({name: run.file(name) for name in ("curves.png", "config.yaml", "history.parquet")})
    first_photo = int(samples.select(split="train", domain="photo")[0])
    tracker.model(run.file("encoder.safetensors"), images.read(first_photo))


def deliver_again(job: Job) -> None:
    """Send MLflow all of a finished run, its metrics from its own history, if the run's folder has the mark UNDELIVERED."""
    if open_folder(job.run).size(UNDELIVERED) is None:
        return
    from zsbir.data.samples import load_samples
    from zsbir.data.shards import Images

    run, dataset = Artifact(job.run, "run"), Artifact(job.dataset, "dataset")
    samples = load_samples(dataset)
    with tracked(job, dataset, rank=0) as tracker:
        if tracker:
            _log_history(tracker, run)
            publish(tracker, run, samples, Images(dataset, samples))


def _log_history(tracker: Tracker, run: Artifact) -> None:
    from zsbir.base.parquet import read_numbers
    from zsbir.training.loop import tracked_names

    for row in read_numbers(run.file("history.parquet"), run.address("history.parquet")).to_pylist():
        metrics = {name: value for name, value in row.items() if value is not None and name != "step"}
        tracker.log(int(row["step"]), tracked_names(metrics))
