"""What one machine's service consists of: its programs, their commands and environments, and the ports they listen on."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from services.common.auth import is_loopback
from services.jobs.local.paths import default_store, state_folder
from services.jobs.local.process import Program, python
from services.jobs.local.settings import UpSettings
from services.jobs.queue.database import hide_password
from zsbir.base.layout import MLFLOW_DATABASE, mlflow_artifacts, mlflow_database
from zsbir.base.storage import is_remote, join
from zsbir.base.urls import sqlite_url
from zsbir.edge.moved_root import relocate

ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
LOG_TIMES = {"ZSBIR_LOG_TIMES": "1"}


class Machine:
    """The programs and ports of one service. Chosen once, so that a restarted program is found where it was.

    summary: what `up.json` says of them.
    """

    def __init__(self, settings: UpSettings):
        self.settings, self.root = settings, settings.root
        self.state = state_folder(self.root)
        self.state.mkdir(parents=True, exist_ok=True)
        self.store_url = settings.store or default_store(self.root)
        self.auth = settings.auth or ("off" if is_loopback(settings.host) else "tokens")
        self.cpus = settings.cpus or os.cpu_count() or 1
        self.marker = secrets.token_hex(16)
        self.ray_temp = tempfile.mkdtemp(prefix="zsbir-ray-", dir="/tmp")  # it holds sockets, whose paths must be short
        self.tracking_uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        self.summary: dict[str, Any] = {}
        self.programs = self._plan()

    def _plan(self) -> list[Program]:
        gcs, client, dashboard, agent, tracking = _free_ports(5)
        port = self.settings.port if _is_free(self.settings.host, self.settings.port) else _free_ports(1)[0]
        token = self.state / "ray.token"
        write_secret(token, secrets.token_hex(32))
        ray_address = f"http://127.0.0.1:{dashboard}"
        ray_env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_API_SERVER_ADDRESS": ray_address}
        path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        programs = [self._ray(gcs, client, dashboard, agent, {**path, **ray_env, **quiet})]
        if not self.tracking_uri:
            self.tracking_uri = f"http://127.0.0.1:{tracking}"
            programs.append(self._mlflow(tracking, {**path, **quiet}))
        programs += [self._dispatcher(ray_address, ray_env), self._api(port)]
        self.summary = {
            "url": self._local_url(port),
            "elsewhere": f"http://{socket.gethostname()}:{port}" if self.settings.host in ANYWHERE else "",
            "root": self.root,
            "store": hide_password(self.store_url),
            "ray": {"address": f"127.0.0.1:{gcs}", "dashboard": ray_address, "token": str(token), "temp": self.ray_temp},
            "mlflow": self.tracking_uri,
            "auth": self.auth,
            "grace_s": self.settings.grace_s,
            "marker": self.marker,
        }
        return programs

    def _local_url(self, port: int) -> str:
        """Return the API's address for callers on this machine."""
        host = "127.0.0.1" if self.settings.host in ANYWHERE else self.settings.host
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def _ray(self, gcs: int, client: int, dashboard: int, agent: int, env: dict[str, str]) -> Program:
        command = [
            _program("ray"),
            "start",
            "--head",
            "--block",
            "--disable-usage-stats",
            f"--port={gcs}",
            f"--temp-dir={self.ray_temp}",
        ]
        command += [f"--ray-client-server-port={client}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        command += [f"--num-cpus={self.cpus}", *([f"--num-gpus={self.settings.gpus}"] if self.settings.gpus >= 0 else [])]
        address = f"http://127.0.0.1:{dashboard}"
        return Program("ray", command, self._log("ray"), env, address, f"{address}/api/version")

    def _mlflow(self, port: int, env: dict[str, str]) -> Program:
        """Return MLflow over the database and the folder of artifacts that commands use without a server."""
        if is_remote(self.root):
            database, artifacts = self.state / MLFLOW_DATABASE, ["--artifacts-destination", join(self.root, "mlflow")]
        else:
            relocate(database := mlflow_database(self.root))
            artifacts = ["--default-artifact-root", mlflow_artifacts(database).as_uri(), "--no-serve-artifacts"]
        command = [_program("mlflow"), "server", "--backend-store-uri", sqlite_url(database), *artifacts]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        address = f"http://127.0.0.1:{port}"
        return Program("mlflow", command, self._log("mlflow"), env, address, f"{address}/health")

    def _dispatcher(self, ray_address: str, env: dict[str, str]) -> Program:
        command = python("services.jobs", "dispatch", f"--root={self.root}", f"--ray={ray_address}")
        command += [
            f"--tracking-uri={self.tracking_uri}",
            f"--patience-s={self.settings.patience_s}",
            f"--grace-s={self.settings.grace_s}",
        ]
        return Program("dispatcher", command, self._log("dispatcher"), {**env, **LOG_TIMES, **self._store_env})

    def _api(self, port: int) -> Program:
        allowed = ",".join([str(Path.cwd()), *self.settings.places])
        names = [*self.settings.hosts, *(_own_names() if self.settings.host in ANYWHERE else ())]
        command = python("services.jobs", "serve", f"--root={self.root}", f"--places={allowed}")
        command += [f"--hosts={','.join(names)}"] if names else []
        command += [f"--host={self.settings.host}", f"--port={port}", f"--auth={self.auth}", f"--mlflow-url={self.tracking_uri}"]
        address = self._local_url(port)
        return Program("api", command, self._log("api"), self._store_env, address, f"{address}/healthz")

    @property
    def _store_env(self) -> dict[str, str]:
        """The job store's URL as environment: it may hold a password, and every user can read command lines."""
        return {"ZSBIR_JOBS_STORE": self.store_url}


def _own_names() -> list[str]:
    """Return the names and addresses under which others may reach this machine."""
    found = [address for interface in psutil.net_if_addrs().values() for address in interface]
    addresses = [each.address.partition("%")[0] for each in found if each.family in (socket.AF_INET, socket.AF_INET6)]
    names = {socket.gethostname(), socket.getfqdn(), *addresses}
    return sorted(name.lower() for name in names if re.fullmatch(r"[\w.-]+|[0-9a-fA-F:.]+", name))


def _program(name: str) -> str:
    """Return the path of a command that is installed beside this interpreter."""
    return str(Path(sys.executable).parent / name)


def write_secret(file: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)


def _free_ports(count: int) -> list[int]:
    """Return free ports, outside of those that the system gives to outgoing connections and Ray to its workers (10002-19999)."""
    found: list[int] = []
    for port in sorted(range(20_000, 32_000), key=lambda _: secrets.randbits(32)):
        if len(found) == count:
            break
        if _is_free("127.0.0.1", port):
            found.append(port)
    return found


def _is_free(host: str, port: int) -> bool:
    if not port:
        return False
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True
