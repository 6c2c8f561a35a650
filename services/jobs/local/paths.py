"""Where the service of a storage root keeps its own files: the job store, its state, logs. A folder of this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from zsbir.base.errors import InputError
from zsbir.base.files import write_atomic
from zsbir.base.layout import service_dir
from zsbir.base.storage import default_root, is_remote, local_path
from zsbir.base.urls import sqlite_url

URL_VARIABLE, TOKEN_VARIABLE = "ZSBIR_JOBS_URL", "ZSBIR_JOBS_TOKEN"
PORT = 8270


def absolute_root(root: str) -> str:
    """Return the storage root as an address that does not depend on the working directory."""
    return root if is_remote(root) else str(local_path(root).resolve())


def state_folder(root: str) -> Path:
    """Return the service's own folder: below the root, or below `artifacts` here where the root is in object storage."""
    return service_dir(root)


def default_store(root: str) -> str:
    """Return the job store to use where none is named: ZSBIR_JOBS_STORE, else a SQLite file."""
    return os.environ.get("ZSBIR_JOBS_STORE") or sqlite_url(state_folder(root) / "jobs.db")


def write_state(root: str, state: dict[str, Any]) -> None:
    """Write what `up` has started to `up.json`, from which `down` and clients read it."""
    write_atomic(_state_file(root), json.dumps(state, indent=2).encode())


def read_state(root: str) -> dict[str, Any]:
    """Return what `write_state` wrote; empty where nothing is up. InputError for a file that something else has written to."""
    try:
        return dict(json.loads(_state_file(root).read_text("utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise InputError(
            f"{_state_file(root)} is damaged: end what it named by hand (ps, kill), remove the file, and start `up` again"
        ) from None


def remove_state(root: str) -> None:
    """Remove `up.json`: nothing is up any more."""
    _state_file(root).unlink(missing_ok=True)


def server_url(root: str = "") -> str:
    """Return the address of the service for a client. InputError where none is known.

    For a root that is named, it is the service that `up` has started there. Otherwise it is ZSBIR_JOBS_URL, else what `up` has
    started for the default root.
    """
    found = ("" if root else os.environ.get(URL_VARIABLE, "")) or read_state(root or default_root()).get("url", "")
    if not found:
        raise InputError(
            "no job service is known: start one here (python -m services.jobs up), "
            f"or name one (--server, {URL_VARIABLE}=http://host:{PORT})"
        )
    return str(found).rstrip("/")


def _state_file(root: str) -> Path:
    return state_folder(root) / "up.json"
