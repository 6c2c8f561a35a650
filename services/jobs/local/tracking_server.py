"""MLflow for its owner alone: MLflow's own application behind a name and a password, in one process.

    python -m services.jobs.local.tracking_server --database FILE --artifacts ADDRESS --password-file FILE --port N

For a team, its database is the one that MLFLOW_BACKEND_STORE_URI names, with its password, and `--host 0.0.0.0` lets others reach
it. MLflow's own `--app-name basic-auth` needs packages that are not in the lock file, and has users of its own to care for.

MLflow itself lets everybody who reaches its port read every file of its user, by an experiment whose artifacts "lie" there, and
move the champion. On a machine with several users, a port on the loopback address is within everybody's reach. MLflow's client
sends name and password by itself where MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD are set; a browser asks for them.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import os
import secrets
import sys
import warnings
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common.private import write_private
from services.common.server import serve
from services.jobs.local.paths import make_state_folder
from zsbir.base import events
from zsbir.base.errors import InputError
from zsbir.base.layout import mlflow_artifacts, mlflow_database
from zsbir.base.storage import is_remote
from zsbir.base.urls import sqlite_url

USER = "zsbir"
UPLOAD_S = 600.0
"""Seconds in which a request must arrive: an artifact may be large."""

STORE_VARIABLE = "MLFLOW_BACKEND_STORE_URI"
"""What MLflow's own server calls the address of its database in the environment."""

PASSWORD_VARIABLE = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105 - the name of a variable

OPEN_PATH = "/health"
"""What `up` asks, to see whether the program works. It tells nothing."""


class PasswordGuard:
    """ASGI middleware: HTTP basic authentication with one name and password, for every path but `OPEN_PATH`."""

    def __init__(self, app: ASGIApp, password: str):
        self._app = app
        self._expected = b"Basic " + base64.b64encode(f"{USER}:{password}".encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI has it. Only HTTP requests can carry the password."""
        sent = [value for name, value in scope.get("headers", ()) if name == b"authorization"]
        is_known = len(sent) == 1 and hmac.compare_digest(sent[0], self._expected)
        if scope["type"] == "lifespan" or is_known or (scope["type"] == "http" and scope["path"] == OPEN_PATH):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            text = f"MLflow asks for a name, {USER}, and a password: `services.jobs up` says where it is, or your operator does.\n"
            await PlainTextResponse(text, 401, {"WWW-Authenticate": 'Basic realm="MLflow"'})(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


def create_app(store: str, artifacts: str, password: str) -> ASGIApp:
    """Return MLflow's application over a database, whose tables are made where there are none.

    store: the address of the database, sqlite:///file or postgresql://user:password@host/name. artifacts: a file:// address, which
    clients use directly; or an s3:// address, which the server passes on.
    """
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = store
    if is_remote(artifacts):
        os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
        os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = artifacts
        artifacts = "mlflow-artifacts:/"
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = artifacts

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow imports what others have deprecated
        from mlflow.server.fastapi_app import app
    from mlflow.server import app as pages
    from mlflow.server.handlers import initialize_backend_stores

    from services.jobs.local.mlflow_entry import OpensOnRuns  # it imports MLflow, which reads the variables above

    initialize_backend_stores(store, store, artifacts)
    return PasswordGuard(OpensOnRuns(app, Path(str(pages.static_folder), "index.html"), store), password)


def main() -> None:
    """Serve MLflow until a signal ends the process."""
    parser = argparse.ArgumentParser(
        prog="python -m services.jobs.local.tracking_server", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--root", default="", help="storage root: take its database, and a password file of its service's folder")
    parser.add_argument("--database", type=Path, help="SQLite file; none: the database that MLFLOW_BACKEND_STORE_URI names")
    parser.add_argument("--artifacts", default="", help="where artifacts lie: file:///folder or s3://bucket/prefix")
    parser.add_argument("--password-file", type=Path, help=f"file that holds the password; none: {PASSWORD_VARIABLE}")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [127.0.0.1]")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parsed = parser.parse_args()
    if parsed.root:
        parsed.database, parsed.password_file = mlflow_database(parsed.root), _own_password(parsed.root)
        parsed.artifacts = mlflow_artifacts(parsed.database).as_uri()
        address = f"http://127.0.0.1:{parsed.port}"
        events.say(f"MLflow opens on the runs at {address}; name {USER}, password in {parsed.password_file}")
    try:
        app = create_app(_store(parsed.database), parsed.artifacts, _password(parsed.password_file))
    except InputError as error:
        events.say(f"error: {error}")
        sys.exit(2)
    serve(app, parsed.host, parsed.port, receipt_s=UPLOAD_S)


def _store(database: Path | None) -> str:
    """Return the address of the database. It is never an argument, since every user of the machine can read those."""
    address = sqlite_url(database) if database else os.environ.get(STORE_VARIABLE, "")
    if not address:
        raise InputError(f"no database: pass --database FILE, or set {STORE_VARIABLE}")
    return address


def _password(file: Path | None) -> str:
    """Return the text of the file with the password; where none is named, that of the variable from which MLflow's client takes it.

    InputError where it cannot be read, or is empty.
    """
    if file is None:
        password = os.environ.get(PASSWORD_VARIABLE, "")
        if not password:
            raise InputError(f"no password: name the file that holds it (--password-file), or set {PASSWORD_VARIABLE}")
        return password
    try:
        password = file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"the password cannot be read from {file}: {error}") from error
    if not password:
        raise InputError(f"{file} is empty: write a password into it")
    return password


def _own_password(root: str) -> Path:
    """Return the file with the password of an MLflow that a person starts by hand: it stays the same."""
    file = make_state_folder(root) / "ui.password"
    if not file.exists():
        write_private(file, secrets.token_urlsafe(12))
    return file


if __name__ == "__main__":
    main()
