"""MLflow's store: where it is, opened in bounded time, and its errors as one line without passwords."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import mlflow.store.db.utils
import requests
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import InterfaceError, OperationalError

from zsbir.base.errors import InputError, RunError, Unreachable
from zsbir.base.layout import mlflow_artifacts, mlflow_database
from zsbir.base.outages import is_passing_status, outage_of
from zsbir.base.urls import redacted, sqlite_file, sqlite_url
from zsbir.edge.moved_root import has_moved, local_path_of, relocate

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # how MLflow makes its tables and checks models is of no use to the user
# MLflow says at each try that the database is away, password included, and tries for two minutes; what calls it here says it once.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.ERROR)
mlflow.store.db.utils.MAX_RETRY_COUNT = 2

CALL_S = 60.0
"""Seconds that a call may take which sends a few numbers."""

UPLOAD_S = 1800.0
"""Seconds that a call may take which sends files."""

_DATABASE_AWAY = (OperationalError, InterfaceError)
"""What the driver of a database server raises that cannot be reached. Of a file they say that it is no database, or locked."""

_stuck: dict[str, threading.Thread] = {}
"""The call to each store that has not come back in time."""


def tracking_uri(root: str) -> str:
    """Return `MLFLOW_TRACKING_URI`, else a SQLite file under the storage root, or under `artifacts` here if the root is remote."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_url(mlflow_database(root))


def registry_uri(root: str) -> str:
    """Return the store of registered models: `MLFLOW_REGISTRY_URI`, else the one that tracks runs."""
    return os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri(root)


def open_client(uri: str, registry: str = "") -> MlflowClient:
    """Return a client of a store. Raises whatever MLflow raises, which is of many classes: call it inside a guard.

    registry: the store of registered models; none: the same.
    """
    if file := sqlite_file(uri):
        file.parent.mkdir(parents=True, exist_ok=True)  # MLflow would make it by the address's text, escapes and all
        if os.access(file, os.W_OK) and has_moved(file):
            with one_at_a_time(uri):
                relocate(file)
    return MlflowClient(uri, registry or uri)


def is_there(uri: str) -> bool:
    """Return whether a store that is a file or a folder exists; True for a server. MLflow would create a missing database."""
    path = sqlite_file(uri) or _folder(uri)
    return path is None or path.exists()


def one_at_a_time(uri: str) -> AbstractContextManager[object]:
    """Return a lock for a database file: two processes that create MLflow's tables in it at the same time break it."""
    file = sqlite_file(uri)
    if file is None:
        return nullcontext()
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(file.with_suffix(".lock"), timeout=120)


def experiment_id(client: MlflowClient, uri: str, experiment: str) -> str:
    """Return the id of an experiment; create the experiment if there is none."""
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        return str(found.experiment_id)
    # With a database file the artifacts belong beside it; a server has its own location for them.
    file = sqlite_file(uri)
    location = mlflow_artifacts(file).as_uri() if file else None
    return str(client.create_experiment(experiment, artifact_location=location))


# --- one guard


def bounded(uri: str, action: Callable[[], Any], limit_s: float = CALL_S) -> None:
    """Call an action that talks to a store. Raise what it raised, or TimeoutError if it has not returned in time.

    It runs in a thread, which is left behind where it hangs: no library ends a call that waits for a network which is gone. Until
    that call returns, further ones fail at once.
    """
    if uri in _stuck and _stuck[uri].is_alive():
        raise TimeoutError("an earlier call has not returned yet")
    errors: list[Exception] = []

    def run() -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="mlflow")
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        _stuck[uri] = thread
        raise TimeoutError(f"no answer within {limit_s:g} s")
    if errors:
        raise errors[0]


@contextmanager
def answering(uri: str, what: str = "MLflow") -> Iterator[None]:
    """Put a RunError of one line, without passwords and with the way out, in the place of any error of MLflow inside.

    It is Unreachable or DiskFull where the error says so.
    """
    try:
        yield
    except (InputError, RunError):
        raise
    except Exception as error:
        outage = _outage(uri, error)
        kind = RunError if outage is None else outage
        raise kind(f"{what} at {redacted(uri)} does not answer ({error_line(error)}): {way_out(uri)}") from error


def _outage(uri: str, error: Exception) -> type[RunError] | None:
    """Return Unreachable or DiskFull where an error of MLflow says that its server or its database is away, or has no room."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    answers = [each.get_http_status_code() for each in chain if isinstance(each, MlflowException)]
    away = (requests.exceptions.ConnectionError, requests.exceptions.Timeout, *(() if sqlite_file(uri) else _DATABASE_AWAY))
    if any(isinstance(each, away) for each in chain):
        return Unreachable
    is_server = uri.startswith(("http://", "https://"))
    return Unreachable if is_server and any(map(is_passing_status, answers)) else outage_of(error)


def error_line(error: Exception) -> str:
    """Return the first line of an error, without passwords."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redacted(lines[0])[:200] if lines else type(error).__name__


def way_out(uri: str) -> str:
    """Return what somebody can do about a store that fails."""
    if sqlite_file(uri):
        return "is the file a database of MLflow that this user may write?"
    return "does it answer there? Correct MLFLOW_TRACKING_URI, or unset it to use a database under the storage root"


def _folder(uri: str) -> Path | None:
    """Return the folder that an address means, which is a plain path or begins with `file:`; None for any other address."""
    if uri.startswith("file:"):
        return local_path_of(uri)
    return Path(uri) if "://" not in uri and uri != "databricks" and not uri.startswith("uc:") else None
