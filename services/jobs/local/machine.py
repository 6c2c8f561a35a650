"""What one machine's service consists of: its programs, their commands and environments, and the ports they listen on."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from services.common.credentials import has_secret, hide_secrets, split_login
from services.common.private import close_files, write_private
from services.jobs.local.paths import OWNER_TOKEN, default_store, make_state_folder
from services.jobs.local.ports import Ports, choose_ports
from services.jobs.local.process import Program, python
from services.jobs.local.settings import UpSettings
from services.jobs.local.tracking_server import USER as TRACKING_USER
from zsbir.base.cores import usable_cores
from zsbir.base.errors import InputError
from zsbir.base.layout import MLFLOW_DATABASE, mlflow_artifacts, mlflow_database
from zsbir.base.storage import is_remote, join
from zsbir.edge.moved_root import relocate

ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
LOG_TIMES = {"ZSBIR_LOG_TIMES": "1"}
RAY_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Has Ray take 127.0.0.1 for its node's address, as it does on systems with a firewall of their own; then it listens there alone.

Without it, `--node-ip-address=127.0.0.1` is replaced by the machine's address, and Ray's ports are open to the network.
"""


class Machine:
    """The programs and ports of one service. Chosen once, so that a restarted program is found where it was.

    summary: what `up.json` says of them.
    """

    def __init__(self, settings: UpSettings):
        self.settings, self.root = settings, settings.root
        self.state = make_state_folder(self.root)
        close_files(self.state)
        self.store_url = settings.store or default_store(self.root)
        self.auth = settings.auth or "tokens"
        self.owner_token = self.state / OWNER_TOKEN
        self.cpus = settings.cpus or usable_cores()
        self.marker = secrets.token_hex(16)
        self.ray_temp = tempfile.mkdtemp(prefix="zsbir-ray-", dir="/tmp")  # it holds sockets, whose paths must be short
        self.tracking = _tracking_of(os.environ)
        self.mlflow_password: Path | None = None
        self.summary: dict[str, Any] = {}
        self.programs = self._plan()

    @property
    def tracking_uri(self) -> str:
        """MLflow's address, without a password where the address is a web address."""
        return self.tracking["MLFLOW_TRACKING_URI"]

    def _plan(self) -> list[Program]:
        ports = choose_ports(self.state, self.settings.host, self.settings.port)
        token = self._secret("ray.token")
        ray_address = f"http://127.0.0.1:{ports.dashboard}"
        ray_env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_API_SERVER_ADDRESS": ray_address}
        path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        own_tracking: list[Program] = []
        if not self.tracking:
            self.mlflow_password = self._secret("mlflow.password")
            own_tracking.append(self._mlflow(ports.mlflow, self.mlflow_password, {**path, **quiet, **LOG_TIMES}))
            self.tracking = {
                "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports.mlflow}",
                "MLFLOW_TRACKING_USERNAME": TRACKING_USER,
                "MLFLOW_TRACKING_PASSWORD": self.mlflow_password.read_text(),
            }
        programs = [self._ray(ports, {**path, **ray_env, **quiet, **self.tracking}), *own_tracking]
        programs.append(self._dispatcher(ray_address, ports.api, {**ray_env, **self.tracking}))
        programs += [*([self._search(ports)] if self.settings.search else []), self._api(ports)]
        self.summary = {
            "url": self._local_url(ports.api),
            "elsewhere": f"http://{socket.gethostname()}:{ports.api}" if self.settings.host in ANYWHERE else "",
            "search": self._local_url(ports.search) if self.settings.search else "",
            "root": self.root,
            "store": hide_secrets(self.store_url),
            "ray": {"address": f"127.0.0.1:{ports.gcs}", "dashboard": ray_address, "token": str(token), "temp": self.ray_temp},
            "mlflow": hide_secrets(self.tracking_uri),
            "mlflow_password": str(self.mlflow_password or ""),
            "auth": self.auth,
            "token": str(self.owner_token) if self.auth == "tokens" else "",
            "grace_s": self.settings.grace_s,
            "marker": self.marker,
        }
        return programs

    def _secret(self, name: str) -> Path:
        """Return a file of the service's folder with a new random text in it."""
        file = self.state / name
        write_private(file, secrets.token_hex(32))
        return file

    def _local_url(self, port: int) -> str:
        """Return the API's address for callers on this machine."""
        host = "127.0.0.1" if self.settings.host in ANYWHERE else self.settings.host
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def _ray(self, ports: Ports, env: dict[str, str]) -> Program:
        command = [
            _program("ray"),
            "start",
            "--head",
            "--block",
            "--disable-usage-stats",
            f"--port={ports.gcs}",
            f"--temp-dir={self.ray_temp}/t",  # Ray opens its folder to every user of the machine; the one around it stays closed
        ]
        command += [f"--ray-client-server-port={ports.client}", f"--dashboard-port={ports.dashboard}"]
        command += [f"--dashboard-agent-listen-port={ports.agent}"]
        command += [f"--num-cpus={self.cpus}", *([f"--num-gpus={self.settings.gpus}"] if self.settings.gpus >= 0 else [])]
        address = f"http://127.0.0.1:{ports.dashboard}"
        return Program("ray", command, self._log("ray"), {**env, **RAY_LOOPBACK}, address, f"{address}/api/version")

    def _mlflow(self, port: int, password: Path, env: dict[str, str]) -> Program:
        """Return MLflow over the database and the folder of artifacts that commands use without a server."""
        if is_remote(self.root):
            database, artifacts = self.state / MLFLOW_DATABASE, join(self.root, "mlflow")
        else:
            database = mlflow_database(self.root)
            relocate(database)
            artifacts = mlflow_artifacts(database).as_uri()
        command = python("services.jobs.local.tracking_server", f"--database={database}", f"--artifacts={artifacts}")
        command += [f"--password-file={password}", f"--port={port}"]
        address = f"http://127.0.0.1:{port}"
        return Program("mlflow", command, self._log("mlflow"), env, address, f"{address}/health")

    def _dispatcher(self, ray_address: str, port: int, env: dict[str, str]) -> Program:
        """Return the dispatcher. MLflow's address is in its environment: it may hold a password."""
        command = python("services.jobs", "dispatch", f"--root={self.root}", f"--ray={ray_address}")
        command += [f"--patience-s={self.settings.patience_s}", f"--grace-s={self.settings.grace_s}", f"--places={self._allowed}"]
        command += [f"--page-url={self._local_url(port)}"]
        return Program("dispatcher", command, self._log("dispatcher"), {**env, **LOG_TIMES, **self._store_env})

    @property
    def _allowed(self) -> str:
        """What jobs may read besides the root."""
        return ",".join([str(Path.cwd()), *self.settings.places])

    @property
    def _names(self) -> list[str]:
        """The arguments with the names by which browsers may know the pages, besides this machine's own."""
        names = [*self.settings.hosts, *(_own_names() if self.settings.host in ANYWHERE else ())]
        return [f"--hosts={','.join(names)}"] if names else []

    def _search(self, ports: Ports) -> Program:
        """Return the search service. It waits for a champion, and loads no network before there is an index."""
        command = python("services.search", "--model=champion", "--wait", f"--root={self.root}", f"--places={self._allowed}")
        command += [*self._names, f"--host={self.settings.host}", f"--port={ports.search}", f"--auth={self.auth}"]
        command += [f"--jobs-url={self._local_url(ports.api)}"]
        address = self._local_url(ports.search)
        env = {**self._store_env, **self.tracking, **LOG_TIMES}
        return Program("search", command, self._log("search"), env, address, f"{address}/healthz")

    def _api(self, ports: Ports) -> Program:
        """Return the API. It asks MLflow what a registered model is when one is named in a job."""
        command = python("services.jobs", "serve", f"--root={self.root}", f"--places={self._allowed}", *self._names)
        command += [f"--search-url={self._local_url(ports.search)}"] if self.settings.search else []
        command += ["--allow-commands" if self.settings.allow_commands else "--no-allow-commands"]
        command += [f"--promotion={self.settings.promotion}"]
        command += [f"--host={self.settings.host}", f"--port={ports.api}", f"--auth={self.auth}"]
        has_pages = self.tracking_uri.startswith(("http://", "https://")) and not has_secret(self.tracking_uri)
        command += [f"--mlflow-url={self.tracking_uri}"] if has_pages else []
        address = self._local_url(ports.api)
        return Program(
            "api", command, self._log("api"), {**self._store_env, **self.tracking, **LOG_TIMES}, address, f"{address}/healthz"
        )

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


def _tracking_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for the MLflow that the environment names, with name and password taken out of a web address.

    Empty where none is named. InputError for a web address with a name and no password.
    """
    given = environment.get("MLFLOW_TRACKING_URI", "")
    if not given:
        return {}
    address, user, password = split_login(given)
    if not user:
        return {"MLFLOW_TRACKING_URI": given}
    if not password:
        raise InputError(
            "MLFLOW_TRACKING_URI holds a user without a password; take it out, and set MLFLOW_TRACKING_TOKEN, "
            "or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return {"MLFLOW_TRACKING_URI": address, "MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
