"""Where the service of a storage root keeps what is its own: the job store, what runs, logs. A folder of this machine."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from zsbir.base.errors import InputError
from zsbir.base.files import write_atomic
from zsbir.base.layout import service_dir
from zsbir.base.storage import default_root, is_remote, local_path

URL, TOKEN = "ZSBIR_JOBS_URL", "ZSBIR_JOBS_TOKEN"
PORT = 8270


def absolute_root(root: str) -> str:
    """The storage root as every process means it, wherever it runs."""
    return root if is_remote(root) else str(local_path(root).resolve())


def state_folder(root: str) -> Path:
    """The service's own folder: below the root, or below `artifacts` here where the root is in object storage."""
    return service_dir(root)


def default_store(root: str) -> str:
    """The job store where none is named: a SQLite file."""
    return os.environ.get("ZSBIR_JOBS_STORE") or f"sqlite:///{state_folder(root) / 'jobs.db'}"


def remember(root: str, what: dict[str, Any]) -> None:
    """What `up` has started."""
    write_atomic(state_folder(root) / "up.json", json.dumps(what, indent=2).encode())


def remembered(root: str) -> dict[str, Any]:
    """That; empty where nothing is up."""
    with suppress(FileNotFoundError):
        return dict(json.loads((state_folder(root) / "up.json").read_text("utf-8")))
    return {}


def server(root: str = "") -> str:
    """The address of the service for a client. InputError for none.

    Of a root that is named, what `up` has started there; else ZSBIR_JOBS_URL, else what `up` has started for the default root.
    """
    found = ("" if root else os.environ.get(URL, "")) or remembered(root or default_root()).get("url", "")
    if not found:
        raise InputError(
            f"no job service is known: start one here (python -m services.jobs up), or name one (--server, {URL}=http://host:{PORT})"
        )
    return str(found).rstrip("/")
