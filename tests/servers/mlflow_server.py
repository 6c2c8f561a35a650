"""MLflow over a database file, as a person starts it: its own `mlflow server`, and ours (`make ui`), which asks for a password."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.processes import HOST, free_ports, guard
from services.jobs.local.paths import state_folder

START_S = 120


@contextmanager
def mlflow_server(store: str, folder: Path, *more: str) -> Iterator[str]:
    """The address of MLflow's own server over `store`; what it keeps besides lies in `folder`. All of it is killed at the end.

    more: further words of its command.
    """
    words = [str(Path(sys.executable).parent / "mlflow"), "server", "--backend-store-uri", store, "--host", HOST, "--workers", "1"]
    words += more
    with _running(words, folder) as address:
        yield address


@contextmanager
def own_mlflow(root: str, folder: Path) -> Iterator[tuple[str, str]]:
    """The address and the password of what `make ui` starts for a storage root. All of it is killed at the end."""
    words = [sys.executable, "-m", "services.jobs.local.tracking_server", "--root", root]
    with _running(words, folder) as address:
        yield address, (state_folder(root) / "ui.password").read_text("utf-8")


@contextmanager
def _running(words: list[str], folder: Path) -> Iterator[str]:
    """The address of a server that takes its port as `--port`."""
    (port,) = free_ports(1)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment = {**clean, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*words, "--port", str(port)],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    watch = guard([-process.pid], folder)  # the whole group: the server has a worker
    try:
        _await(f"http://{HOST}:{port}/health", process, folder / "log")
        yield f"http://{HOST}:{port}"
    finally:
        watch.stdin.close()
        watch.wait()
        process.wait()


def _await(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log.read_text("utf-8", "replace")[-2000:]
            assert time.monotonic() < end, log.read_text("utf-8", "replace")[-2000:]
            time.sleep(0.1)
        else:
            return
