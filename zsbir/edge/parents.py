"""The MLflow run of a sweep, under which the UI nests the runs of its trials. Nothing here raises when MLflow does not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities import Param, RunTag
from mlflow.tracking import MlflowClient

from zsbir.base import events, watch
from zsbir.base.draft import code_version
from zsbir.base.urls import redacted
from zsbir.edge.mlflow_store import UPLOAD_S, bounded, error_line, experiment_id, open_client
from zsbir.edge.tracking import PARENT_TAG, RUN_TAG, _log_files, find_run, job_tag, prepare_store, say_where

STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED", "begun": "KILLED"}
"""The status in MLflow for each state of a trial. The tag `zsbir.trial_state` has the state itself."""


class Parent:
    """The MLflow run of a sweep, found again by its key. `run_id` is empty if MLflow does not answer.

    name: what people see it by.
    """

    def __init__(self, uri: str, experiment: str, key: str, *, name: str, params: Mapping[str, Any]):
        self._uri, self._experiment, self._key, self._name = uri, experiment, key, name
        self._params = params
        self.run_id = ""
        prepare_store(uri, experiment)
        self._attempt(self._open)

    @cached_property
    def _client(self) -> MlflowClient:
        return open_client(self._uri)

    def close_children(self, states: Mapping[str, tuple[int, str]]) -> None:
        """End the runs that stopped or killed trials left RUNNING. states: trial number and state by run key."""
        self._attempt(lambda: self._close(states))

    def finish(self, metrics: Mapping[str, float], files: Mapping[str, Path]) -> None:
        """Send the sweep's result, its metrics and its files as artifacts, and end the run."""

        def send() -> None:
            run_id = self._open()
            for name, value in metrics.items():
                self._client.log_metric(run_id, name, value)
            _log_files(self._client, run_id, files, "sweep")
            self._client.set_terminated(run_id)

        self._attempt(send)

    def _open(self) -> str:
        if not self.run_id:
            experiment = experiment_id(self._client, self._uri, self._experiment)
            self.run_id = find_run(self._client, experiment, self._key) or self._create(experiment)
            self._client.update_run(self.run_id, status="RUNNING")
            for name, value in job_tag().items():
                self._client.set_tag(self.run_id, name, value)
            watch.record_facts(mlflow_run=self.run_id, mlflow_experiment=experiment)
            say_where(self._uri, experiment, self.run_id)
        return self.run_id

    def _create(self, experiment: str) -> str:
        tags = {RUN_TAG: self._key, "mlflow.runName": self._name} | {
            f"zsbir.code.{name}": value for name, value in code_version().items()
        }
        run_id = str(self._client.create_run(experiment, tags=tags).info.run_id)
        self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in self._params.items()])
        return run_id

    def _close(self, states: Mapping[str, tuple[int, str]]) -> None:
        for child in self._children():
            number, state = states.get(child.data.tags.get(RUN_TAG, ""), (-1, ""))
            if number < 0:
                continue
            tags = [RunTag("zsbir.trial", str(number)), RunTag("zsbir.trial_state", state)]
            self._client.log_batch(child.info.run_id, tags=tags)
            if child.info.status != STATUS[state] and not (child.info.status == "FINISHED" and state == "begun"):
                self._client.set_terminated(child.info.run_id, STATUS[state])

    def _children(self) -> Iterable[Any]:
        experiment, token = experiment_id(self._client, self._uri, self._experiment), None
        while True:
            page = self._client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{self._open()}'", page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            bounded(self._uri, action, UPLOAD_S)
        except Exception as error:  # noqa: BLE001 - no error of tracking may end a sweep of days
            events.warn(f"MLflow at {redacted(self._uri)}: {error_line(error)}; the sweep goes on without it")
