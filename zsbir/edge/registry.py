"""The runs that MLflow's model registries name. These runs, and what they were made from, must not be deleted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import below_root, mlflow_database
from zsbir.base.storage import is_remote
from zsbir.base.urls import redacted, sqlite_url
from zsbir.edge.mlflow_store import answering, is_there, open_client
from zsbir.edge.tracking import RUN_TAG

_PAGE = 1000


def registries(root: str) -> list[str]:
    """Return the MLflow stores that may name this root's runs: the configured one, and the database under the root."""
    configured = os.environ.get("MLFLOW_TRACKING_URI")
    beside = _database(root)
    return [uri for uri in (configured, beside) if uri]


def _database(root: str) -> str:
    """Return the database that is used where nothing is configured; empty if it does not exist."""
    if is_remote(root) and os.environ.get("MLFLOW_TRACKING_URI"):
        return ""
    file = mlflow_database(root)
    return sqlite_url(file) if file.is_file() else ""


def registered(uri: str) -> frozenset[str]:
    """Return the names of all runs that registered models were made of, and the values of the versions' own `zsbir.` tags.

    An address in a tag (of the report, of the index) is in the result as it is, and as its path below any root.

    Raises RunError when the store does not answer, or no longer has a run.
    """
    if not is_there(uri):
        raise RunError(f"there is no MLflow store at {redacted(uri)}: correct MLFLOW_TRACKING_URI")
    with answering(uri, "the model registry of MLflow"):
        client = open_client(uri, os.environ.get("MLFLOW_REGISTRY_URI") or uri)
        return frozenset(name for version in versions(client) for name in _names(client, version))


def versions(client: MlflowClient, model: str = "") -> Iterator[Any]:
    """Yield every version of a registered model, or of all models, without their aliases, which a SQL store leaves out."""
    token = None
    while True:
        page = client.search_model_versions(f"name = '{model}'" if model else None, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _names(client: MlflowClient, version: Any) -> Iterator[str]:
    own = {name: value for name, value in (version.tags or {}).items() if name.startswith("zsbir.")}
    for text in own.values():
        yield text
        with suppress(InputError):  # not every tag holds an address
            yield below_root(text)
    run_id = version.run_id or _run_of_model(client, version)
    if not run_id:
        return
    try:
        name = client.get_run(run_id).data.tags.get(RUN_TAG)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        if RUN_TAG in own:
            return
        raise RunError(
            f"version {version.version} of the registered model {version.name!r} was made by run {run_id}, which MLflow no longer"
            f" has: delete that version, or set its tag {RUN_TAG} to the name of the run's folder"
        ) from None
    if name:
        yield name


def _run_of_model(client: MlflowClient, version: Any) -> str:
    model_id = getattr(version, "model_id", None)
    return str(client.get_logged_model(model_id).source_run_id or "") if model_id else ""
