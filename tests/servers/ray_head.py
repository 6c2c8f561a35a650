"""A Ray cluster of one node with its own folder and ports, in processes of its own, for tests that want real workers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from servers.processes import HOST, free_ports

START_S = 180


@contextmanager
def ray_head(cpus: int, environment: Mapping[str, str] | None = None, gpus: int = 0) -> Iterator[dict[str, str]]:
    """Start a head; yields the environment in which commands join it. `environment`: what its workers see besides.

    gpus: how many the node claims to have.
    """
    gcs, client, dashboard, agent = free_ports(4)
    binaries = Path(sys.executable).parent
    # Sockets lie in this folder, and their paths may have no more than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="zr", dir="/tmp", ignore_cleanup_errors=True) as folder:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        env = {
            **clean,
            **(environment or {}),
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "disabled",
            "RAY_API_SERVER_ADDRESS": f"http://{HOST}:{dashboard}",
            "OMP_NUM_THREADS": "1",
        }
        ports = [f"--port={gcs}", f"--ray-client-server-port={client}", f"--dashboard-port={dashboard}"]
        command = [binaries / "ray", "start", "--head", *ports, f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}"]
        try:
            start = [*command, f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--disable-usage-stats"]
            subprocess.run(start, env=env, check=True, capture_output=True, timeout=START_S)
            yield env | {"RAY_ADDRESS": f"{HOST}:{gcs}"}
        finally:
            _kill_all(folder)


def train_workers(environment: Mapping[str, str]) -> list[psutil.Process]:
    """The Ray Train workers of that head, and of no other Ray on this machine. environment: as `ray_head` yields it."""
    found, gcs = [], f"--gcs-address=[^ ]*:{environment['RAY_ADDRESS'].rpartition(':')[2]}( |$)"
    for process in psutil.process_iter(["cmdline"]):
        if "RayTrainWorker" in " ".join(process.info["cmdline"] or []):
            with suppress(psutil.Error):
                raylets = [" ".join(parent.cmdline()) for parent in process.parents()]
                found += [process] if any(re.search(gcs, raylet) for raylet in raylets) else []
    return found


def _kill_all(folder: str) -> None:
    """Every process that was started with that folder, and what those started: Ray's agents rename themselves."""
    doomed: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["cmdline"]):
        if folder in " ".join(process.info["cmdline"] or []):
            with suppress(psutil.NoSuchProcess):
                doomed |= {found.pid: found for found in (process, *process.children(recursive=True))}
    for process in doomed.values():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(doomed.values(), timeout=10)
