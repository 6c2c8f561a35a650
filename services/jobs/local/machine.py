"""What one machine's service consists of: its programs, how each is started, and where it listens."""

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
from pydantic import Field

from services.common.auth import is_loopback
from services.jobs.local.paths import PORT, default_store, state_folder
from services.jobs.local.process import Program, python
from services.jobs.queue.database import shown as shown_url
from zsbir.base.config import Config
from zsbir.base.layout import MLFLOW_DATABASE, mlflow_artifacts, mlflow_database
from zsbir.base.storage import default_root, is_remote, join

ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
TIMES = {"ZSBIR_LOG_TIMES": "1"}


class UpSettings(Config):
    """What one machine's service is."""

    root: str = Field(default_factory=default_root, description="storage root of all jobs, also ZSBIR_ROOT")
    store: str = Field(
        "", description="job store, sqlite:///file or postgresql://user@host/name; none: a file of the service's own"
    )
    host: str = Field("127.0.0.1", description="where API and page listen; anything but this machine asks for tokens")
    hosts: tuple[str, ...] = Field((), description="names that browsers know it by, besides the host's own and this machine's")
    port: int = Field(PORT, ge=0, le=65535, description="their port; 0, or where it is taken: a free one")
    auth: str = Field("", pattern="^(tokens|off|)$", description="tokens or off; none: off on this machine alone, tokens elsewhere")
    running: int = Field(0, ge=0, description="jobs at a time, when the queue is new; 0: as many as CPUs")
    cpus: int = Field(0, ge=0, description="CPUs of the Ray node; 0: all")
    gpus: int = Field(-1, ge=-1, description="GPUs of the Ray node; -1: all")
    places: tuple[str, ...] = Field(
        (), description="more folders and s3:// prefixes that jobs may read; the root, and here, they may"
    )
    patience_s: float = Field(20.0, gt=0, description="seconds of an attempt's silence before it may be lost")
    grace_s: float = Field(120.0, gt=0, description="seconds for a final checkpoint")


class Machine:
    """Programs and ports are chosen once, so that what is started again is found where it was. said: what `up` tells of them."""

    def __init__(self, settings: UpSettings):
        self.settings, self.root = settings, settings.root
        self.state = state_folder(self.root)
        self.state.mkdir(parents=True, exist_ok=True)
        self.store_url = settings.store or default_store(self.root)
        self.auth = settings.auth or ("off" if is_loopback(settings.host) else "tokens")
        self.cpus = settings.cpus or os.cpu_count() or 1
        self.temp = tempfile.mkdtemp(prefix="zsbir-ray-", dir="/tmp")  # sockets lie there: their paths must be short
        self.tracking_uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        self.said: dict[str, Any] = {}
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
        self.said = {
            "url": self._here(port),
            "elsewhere": f"http://{socket.gethostname()}:{port}" if self.settings.host in ANYWHERE else "",
            "root": self.root,
            "store": shown_url(self.store_url),
            "ray": {"address": f"127.0.0.1:{gcs}", "dashboard": ray_address, "token": str(token), "temp": self.temp},
            "mlflow": self.tracking_uri,
            "auth": self.auth,
            "grace_s": self.settings.grace_s,
        }
        return programs

    def _here(self, port: int) -> str:
        """The API's address as this machine may call it."""
        host = "127.0.0.1" if self.settings.host in ANYWHERE else self.settings.host
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def _ray(self, gcs: int, client: int, dashboard: int, agent: int, env: dict[str, str]) -> Program:
        words = [_program("ray"), "start", "--head", "--block", "--disable-usage-stats", f"--port={gcs}", f"--temp-dir={self.temp}"]
        words += [f"--ray-client-server-port={client}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        words += [f"--num-cpus={self.cpus}", *([f"--num-gpus={self.settings.gpus}"] if self.settings.gpus >= 0 else [])]
        well = f"http://127.0.0.1:{dashboard}/api/version"
        return Program("ray", words, self._log("ray"), env, f"http://127.0.0.1:{dashboard}", well, marks=(self.temp,))

    def _mlflow(self, port: int, env: dict[str, str]) -> Program:
        """Over the same database, and with artifacts in the same place, as commands without a server use."""
        if is_remote(self.root):
            database, artifacts = self.state / MLFLOW_DATABASE, ["--artifacts-destination", join(self.root, "mlflow")]
        else:
            database = mlflow_database(self.root)
            artifacts = ["--default-artifact-root", mlflow_artifacts(database).as_uri(), "--no-serve-artifacts"]
        words = [_program("mlflow"), "server", "--backend-store-uri", f"sqlite:///{database}", *artifacts]
        words += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        address = f"http://127.0.0.1:{port}"
        return Program("mlflow", words, self._log("mlflow"), env, address, f"{address}/health")

    def _dispatcher(self, ray_address: str, env: dict[str, str]) -> Program:
        words = python("services.jobs", "dispatch", f"--root={self.root}", f"--ray={ray_address}")
        words += [
            f"--tracking-uri={self.tracking_uri}",
            f"--patience-s={self.settings.patience_s}",
            f"--grace-s={self.settings.grace_s}",
        ]
        return Program("dispatcher", words, self._log("dispatcher"), {**env, **TIMES, **self._store})

    def _api(self, port: int) -> Program:
        places = ",".join([str(Path.cwd()), *self.settings.places])
        names = [*self.settings.hosts, *(_own_names() if self.settings.host in ANYWHERE else ())]
        words = python("services.jobs", "serve", f"--root={self.root}", f"--places={places}")
        words += [f"--hosts={','.join(names)}"] if names else []
        words += [f"--host={self.settings.host}", f"--port={port}", f"--auth={self.auth}", f"--mlflow-url={self.tracking_uri}"]
        address = self._here(port)
        return Program("api", words, self._log("api"), self._store, address, f"{address}/healthz")

    @property
    def _store(self) -> dict[str, str]:
        """Its URL as environment: command lines are everybody's to read, and it may hold a password."""
        return {"ZSBIR_JOBS_STORE": self.store_url}


def _own_names() -> list[str]:
    """What others may call this machine: its names, and its addresses."""
    found = [address for card in psutil.net_if_addrs().values() for address in card]
    addresses = [each.address.partition("%")[0] for each in found if each.family in (socket.AF_INET, socket.AF_INET6)]
    names = {socket.gethostname(), socket.getfqdn(), *addresses}
    return sorted(name.lower() for name in names if re.fullmatch(r"[\w.-]+|[0-9a-fA-F:.]+", name))


def _program(name: str) -> str:
    """A command of this very environment."""
    return str(Path(sys.executable).parent / name)


def write_secret(file: Path, text: str) -> None:
    """Readable by its owner alone, from the first byte on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)


def _free_ports(count: int) -> list[int]:
    """Free ports that are none of those which the system gives to outgoing connections, or Ray to its workers (10002-19999)."""
    found: list[int] = []
    order = list(range(20_000, 32_000))
    for port in sorted(order, key=lambda _: secrets.randbits(32)):
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
