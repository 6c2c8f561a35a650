"""MLflow runs of trainings and their reports. Training goes on when MLflow does not answer, and delivers when it does.

A training has one MLflow run, which is found again by its tag: a resumed training, its evaluation and its sweep log to the same
one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from zsbir.base import events, watch
from zsbir.base.artifact import Artifact
from zsbir.base.draft import code_version
from zsbir.base.urls import redacted
from zsbir.edge.mlflow_pages import VIEW_TAG, is_outdated, pages_of, run_page, runs_page, view
from zsbir.edge.mlflow_store import (
    CALL_S,
    UPLOAD_S,
    bounded,
    error_line,
    experiment_id,
    one_at_a_time,
    open_client,
    tracking_uri,
    way_out,
)

__all__ = ["Tracker", "close_runs", "find_run", "keep_view", "log_report", "prepare_store", "say_where", "tracking_uri"]

RUN_TAG = "zsbir.run"
JOB_TAG = "zsbir.job"
"""Tag with the attempt of a queued job that logs to a run (environment ZSBIR_JOB), by which runs it left RUNNING are found."""

PARENT_TAG = "mlflow.parentRunId"
FLUSH_S = 5.0
RETRY_S = 30.0
PAUSES = 10.0
"""Seconds of pause for each second of a call that failed, besides RETRY_S: a server that hangs takes a tenth of the time."""
MAX_BATCH = 1000  # MLflow's limit of metrics a request


def prepare_store(uri: str, experiment: str) -> None:
    """Create the database, the experiment and its view before several processes open them; warn if the store does not answer."""

    def prepare() -> None:
        client = open_client(uri)
        with one_at_a_time(uri):
            keep_view(client, experiment_id(client, uri, experiment))

    try:
        bounded(uri, prepare)
    except Exception as error:  # noqa: BLE001 - MLflow, its databases and its servers have many
        events.warn(
            f"MLflow at {redacted(uri)} does not answer ({error_line(error)}); "
            f"metrics are kept and delivered when it does: {way_out(uri)}"
        )


def keep_view(client: MlflowClient, experiment_id: str) -> None:
    """Store the view of runs that links name in an experiment, unless it has it, or one of its form that somebody has changed.

    A store that does not allow it changes nothing: then the table has MLflow's own columns.
    """
    with suppress(Exception):  # MLflow has many; what answers reads does not have to allow this write
        if is_outdated(client.get_experiment(experiment_id).tags.get(VIEW_TAG)):
            client.set_experiment_tag(experiment_id, VIEW_TAG, view())


def say_where(uri: str, experiment_id: str, run_id: str) -> None:
    """Print the links to a run and to all runs of its experiment; nothing for a store without pages, such as a database file."""
    if pages := pages_of(uri):
        events.say(f"in MLflow: {run_page(pages, experiment_id, run_id)}")
        events.say(f"all runs:  {runs_page(pages, experiment_id)}")


class Tracker:
    """The MLflow run of one training, for rank 0. No call raises, whatever MLflow does.

    run_key: the text by which the MLflow run is found again. name: what people see it by. params: its parameters. datasets: what
    the training reads, by role. parent: id of the run under which the UI nests this one.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        run_key: str,
        *,
        name: str,
        params: Mapping[str, Any],
        datasets: Mapping[str, Artifact],
        parent: str = "",
    ):
        self._uri, self._experiment, self._key, self._name = uri, experiment, run_key, name
        self._params, self._datasets, self._parent = params, datasets, parent
        self._run_id: str | None = None
        self._waiting: list[Metric] = []
        self._last_try = self._next_try = float("-inf")
        self._known: set[tuple[str, int]] = set()
        self._missed = False
        self._attempt(self._open)

    @cached_property
    def _client(self) -> MlflowClient:
        return open_client(self._uri)

    @property
    def delivered(self) -> bool:
        """Whether MLflow has everything that was logged; valid after `finish`."""
        return not self._missed and not self._waiting

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics of an optimiser step, sent every few seconds; a dev score at once, because a sweep may then stop the run."""
        now_ms = int(time.time() * 1000)
        self._waiting += [Metric(name, float(value), now_ms, step) for name, value in metrics.items()]
        is_due = time.monotonic() - self._last_try >= FLUSH_S or any(name.startswith("dev/") for name in metrics)
        if is_due and time.monotonic() >= self._next_try:
            self.flush()

    def flush(self) -> None:
        """Send the metrics that wait; those that cannot be sent go on waiting."""
        self._last_try = time.monotonic()
        self._attempt(self._send)

    def artifacts(self, files: Mapping[str, Path]) -> None:
        """Log files as artifacts of the run, under their names."""

        def upload(run_id: str) -> None:
            _log_files(self._client, run_id, files, None)

        self._deliver(lambda: upload(self._open()))

    def model(self, encoder: Path, example: bytes) -> None:
        """Log the encoder as a pyfunc model of the run: image bytes in, embeddings out."""
        from zsbir.edge.pyfunc import log_model

        self._deliver(lambda: log_model(self._uri, self._open(), encoder, example))

    def finish(self, status: str = "FINISHED") -> None:
        """Send the rest and end the run: FINISHED, FAILED or KILLED."""
        self.flush()
        self._deliver(lambda: self._client.set_terminated(self._open(), status))

    def _deliver(self, action: Callable[[], Any]) -> None:
        """Do what is not tried again later by itself: if it fails, the whole run must be delivered again."""
        self._missed |= not self._attempt(action, UPLOAD_S)

    def _attempt(self, action: Callable[[], Any], limit_s: float = CALL_S) -> bool:
        """Return whether an action succeeded. The longer a failure took, the longer is the pause before metrics are sent again."""
        began = time.monotonic()
        try:
            bounded(self._uri, action, limit_s)
        except Exception as error:  # noqa: BLE001 - no error of tracking may end a training of days
            if began >= self._next_try:
                events.warn(f"MLflow at {redacted(self._uri)}: {error_line(error)}; going on without it for now")
            self._next_try = time.monotonic() + RETRY_S + PAUSES * (time.monotonic() - began)
            return False
        return True

    def _open(self) -> str:
        if self._run_id is None:
            experiment = experiment_id(self._client, self._uri, self._experiment)
            found = find_run(self._client, experiment, self._key)
            self._run_id = self._resume(found) if found else self._create(experiment)
            watch.record_facts(mlflow_run=self._run_id, mlflow_experiment=experiment)
            if not self._parent:
                say_where(self._uri, experiment, self._run_id)
        return self._run_id

    def _resume(self, run_id: str) -> str:
        for name, value in job_tag().items():  # before it runs, because runs that an attempt left RUNNING are found by this tag
            self._client.set_tag(run_id, name, value)
        self._client.update_run(run_id, status="RUNNING")
        if self._parent:
            self._client.set_tag(run_id, PARENT_TAG, self._parent)
        names = self._client.get_run(run_id).data.metrics
        self._known = {(name, metric.step) for name in names for metric in self._client.get_metric_history(run_id, name)}
        return run_id

    def _create(self, experiment_id: str) -> str:
        code = code_version()
        tags = {RUN_TAG: self._key, "mlflow.runName": self._name, **job_tag()}
        tags |= {f"zsbir.code.{name}": value for name, value in code.items()}
        if "commit" in code:
            tags["mlflow.source.git.commit"] = code["commit"]
        if self._parent:
            tags[PARENT_TAG] = self._parent
        run_id = str(self._client.create_run(experiment_id, tags=tags).info.run_id)
        self._client.log_batch(run_id, params=[mlflow.entities.Param(name, str(value)) for name, value in self._params.items()])
        for role, dataset in self._datasets.items():
            _log_lineage(self._client, run_id, role, dataset)
        return run_id

    def _send(self) -> None:
        run_id = self._open()
        # A resumed training logs some steps again, with the same values: those that MLflow has already are not sent again.
        self._waiting = [metric for metric in self._waiting if (metric.key, metric.step) not in self._known]
        while self._waiting:
            self._client.log_batch(run_id, metrics=self._waiting[:MAX_BATCH])
            del self._waiting[:MAX_BATCH]


def job_tag() -> dict[str, str]:
    """Return the tag of the attempt at a queued job that this process belongs to; empty outside of a job."""
    job = os.environ.get("ZSBIR_JOB")
    return {JOB_TAG: job} if job else {}


def close_runs(uri: str, job: str, status: str) -> int:
    """End the runs that an attempt at a queued job left RUNNING, and return how many. Raises MLflow's errors if it fails."""
    client = open_client(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    left = client.search_runs(experiments, f"tags.`{JOB_TAG}` = '{job}' and attributes.status = 'RUNNING'") if experiments else []
    for run in left:
        client.set_terminated(run.info.run_id, status)
    return len(left)


def find_run(client: MlflowClient, experiment_id: str, run_key: str) -> str | None:
    """Return the id of the MLflow run with that key, or None."""
    found = client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{run_key}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _log_lineage(client: MlflowClient, run_id: str, role: str, dataset: Artifact) -> None:
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two of MLflow's source types read local paths, and it warns of that each time
        source = resolve_dataset_source(dataset.uri)
    entity = MetaDataset(source, name=dataset.manifest.name, digest=dataset.digest[:16])._to_mlflow_entity()
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", role)])])


def _log_files(client: MlflowClient, run_id: str, files: Mapping[str, Path], subfolder: str | None) -> None:
    """Log copies of files under the given names. MLflow would take a file's own name, which is a checksum in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        for name, file in files.items():
            shutil.copyfile(file, Path(folder, name))
        client.log_artifacts(run_id, folder, subfolder)


def log_report(
    uri: str,
    experiment: str,
    run_key: str,
    *,
    name: str,
    metrics: Mapping[str, float],
    files: Mapping[str, Path],
    step: int,
    folder: str = "report",
) -> None:
    """Log a report's metrics and files to the MLflow run of its training; create a run of that key if there is none.

    name: what a new run is called; folder: of the files, among the run's artifacts.
    """

    def log() -> None:
        client = open_client(uri)
        within = experiment_id(client, uri, experiment)
        run_id = find_run(client, within, run_key)
        if run_id is None:
            tags = {RUN_TAG: run_key, "mlflow.runName": name}
            run_id = str(client.create_run(within, tags=tags).info.run_id)
            client.set_terminated(run_id)
        now_ms = int(time.time() * 1000)
        client.log_batch(run_id, [Metric(key, float(value), now_ms, step) for key, value in metrics.items()])
        _log_files(client, run_id, files, folder)
        say_where(uri, within, run_id)

    prepare_store(uri, experiment)
    try:
        bounded(uri, log, UPLOAD_S)
    except Exception as error:  # noqa: BLE001 - the report itself is safe
        events.warn(f"the report did not reach MLflow at {redacted(uri)}: {error_line(error)}; evaluate again when it answers")
