"""Where the service of a storage root keeps its own files: the job store, its state, logs. A folder of this machine."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from services.common.private import private_folder, write_private
from zsbir.base.errors import InputError
from zsbir.base.layout import service_dir
from zsbir.base.storage import default_root, is_remote, local_path
from zsbir.base.urls import sqlite_url

URL_VARIABLE, TOKEN_VARIABLE, STORE_VARIABLE = "ZSBIR_JOBS_URL", "ZSBIR_JOBS_TOKEN", "ZSBIR_JOBS_STORE"
PORT = 8270
OWNER_TOKEN = "operator.token"  # noqa: S105 - the name of a file
"""The file, in the service's folder, with the token of the user who starts it."""


def absolute_root(root: str) -> str:
    """Return the storage root as an address that does not depend on the working directory."""
    return root if is_remote(root) else str(local_path(root).resolve())


def state_folder(root: str) -> Path:
    """Return the service's own folder: below the root, or below `artifacts` here where the root is in object storage."""
    return service_dir(root)


def make_state_folder(root: str) -> Path:
    """Return the service's own folder, made where there is none, and closed to other users. InputError where it cannot be."""
    return private_folder(state_folder(root))


def default_store(root: str) -> str:
    """Return the job store to use where none is named: ZSBIR_JOBS_STORE, else a SQLite file."""
    return os.environ.get(STORE_VARIABLE) or sqlite_url(state_folder(root) / "jobs.db")


def write_state(root: str, state: dict[str, Any]) -> None:
    """Write what `up` has started to `up.json`, from which `down` and clients read it."""
    make_state_folder(root)
    write_private(_state_file(root), json.dumps(state, indent=2))


def read_state(root: str) -> dict[str, Any]:
    """Return what `write_state` wrote; empty where nothing is up.

    InputError for a file that something else has written to, or where the service is another user's.
    """
    try:
        return dict(json.loads(_state_file(root).read_text("utf-8")))
    except FileNotFoundError:
        return {}
    except PermissionError:
        raise InputError(
            f"{state_folder(root)} is private to the user whose service it is: "
            f"ask them for a token, and name the service with --server or {URL_VARIABLE}"
        ) from None
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


def owner_token(url: str, root: str = "") -> str:
    """Return the token of the user who started the service with `up`; empty where the address is not that of their service.

    The service's process must be alive: after a crash, another user may have taken the port, to be given the token.
    """
    with suppress(InputError, OSError, KeyError):
        state = read_state(root or default_root())
        if state.get("token") and _plain(str(state["url"])) == _plain(url) and _is_alive(state, "api"):
            return Path(state["token"]).read_text("utf-8").strip()
    return ""


def _plain(url: str) -> str:
    """Return an address in the form in which two of them are compared: `localhost` is this machine's loopback address."""
    return url.rstrip("/").replace("://localhost:", "://127.0.0.1:")


def _is_alive(state: dict[str, Any], name: str) -> bool:
    """Return whether a recorded program runs, and was not replaced by another process of its number."""
    from services.jobs.local.ownership import is_process

    return any(
        is_process(int(program["pid"]), str(program.get("start", ""))) for program in state["programs"] if program["name"] == name
    )


def _state_file(root: str) -> Path:
    return state_folder(root) / "up.json"
