"""infra/compose/compose.yaml without Docker: read as `docker compose` reads it, its own services run as processes of this machine.

Each gets the command and the environment of the file. What differs is what a container would give it: names of services are
addresses of the loopback interface, each port is a free one, `/data` is a folder of its own. Services of the image zsbir-services
can import nothing but that image's packages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from servers.processes import HOST, free_ports, kill

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "infra" / "compose"
VARIABLE = re.compile(r"\$(?:\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\}|(?P<escaped>\$))")
PORT_FLAG = re.compile(r"(--[a-z-]*port=)(\d+)")
START_S = 240


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """A part of the file with its variables put in. KeyError for one that is required and missing."""

    def of(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        given = variables.get(found["name"], "")
        if not given and found["kind"] == "?":
            raise KeyError(f"{found['name']}: {found['text']}")
        return given or (found["text"] if found["kind"] == "-" else "")

    if isinstance(value, str):
        return VARIABLE.sub(of, value)
    if isinstance(value, dict):
        return {name: interpolated(each, variables) for name, each in value.items()}
    return [interpolated(each, variables) for each in value] if isinstance(value, list) else value


def read_compose(folder: Path = FOLDER, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file, with the variables of `.env` beside it."""
    text = yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))
    return dict(interpolated(text, variables if variables is not None else read_env(folder / ".env")))


def read_env(file: Path) -> dict[str, str]:
    """The variables of an .env file."""
    lines = file.read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


class Deployment:
    """The services as processes. outside: the addresses of services that are started by others, as s3:8333 -> 127.0.0.1:9000."""

    def __init__(self, file: Mapping[str, Any], folder: Path, outside: Mapping[str, str]):
        self.services: dict[str, Any] = file["services"]
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._outside = dict(outside)
        self._ports: dict[tuple[str, str], int] = {}

    def port(self, service: str, port: int | str) -> int:
        """The port of this machine that a service's own port became; a free one at the first question."""
        key = service, str(port)
        if key not in self._ports:
            (self._ports[key],) = free_ports(1)
        return self._ports[key]

    def url(self, service: str, port: int) -> str:
        """The address of a service."""
        return f"http://{HOST}:{self.port(service, port)}"

    def data(self, service: str) -> Path:
        """The folder that is a service's /data."""
        folder = self.folder / service
        folder.mkdir(exist_ok=True)
        return folder

    def localised(self, service: str, text: str) -> str:
        """A word of a command, or the value of a variable, as it is on this machine."""
        for name, address in self._outside.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}\b", address, text)
        for name in self.services:
            text = re.sub(rf"(?<![\w.-]){name}:(\d+)\b", lambda found, name=name: f"{HOST}:{self.port(name, found[1])}", text)
        text = re.sub(r"\b(?:localhost|127\.0\.0\.1):(\d{4,5})\b", lambda found: self._local(service, found[1]), text)
        text = PORT_FLAG.sub(lambda found: f"{found[1]}{self.port(service, found[2])}", text)
        for bound in self.services[service].get("volumes", ()):
            if bound.startswith("./"):
                here, there, *_ = bound.split(":")
                text = text.replace(there, str(FOLDER / here))
        return re.sub(r"(?<!\w)/data\b", str(self.data(service)), text.replace("=0.0.0.0", f"={HOST}"))

    def _local(self, service: str, port: str) -> str:
        """What a service means by a port of its own loopback address, or a browser by a published one."""
        known = {*map(str, self._ports.values()), *(address.rpartition(":")[2] for address in self._outside.values())}
        if port in known:
            return f"{HOST}:{port}"  # of this machine already
        publishing = [
            name
            for name, each in self.services.items()
            if any(str(published).endswith(f":{port}") for published in each.get("ports", ()))
        ]
        return f"{HOST}:{self.port(publishing[0] if publishing else service, port)}"

    def environment(self, service: str) -> dict[str, str]:
        """The variables of a service: those of its image, and those of the file."""
        described = self.services[service]
        given = {name: self.localised(service, str(value)) for name, value in described.get("environment", {}).items()}
        data = self.data(service)
        path = [str(CHECKOUT)]
        if "zsbir-services" in described["image"]:
            path.insert(0, str(Path(__file__).parent / "only_locked"))
            given["ONLY_LOCKED"] = str(CHECKOUT / "docker" / "services.lock")
        image = {"PYTHONUNBUFFERED": "1", "ZSBIR_CACHE": str(data / "cache"), "MPLCONFIGDIR": str(data / "matplotlib")}
        image |= {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "HOME": str(data)}
        here = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(path)}
        here["TMPDIR"] = str(self.folder)
        return {**image, **here, **given}

    def command(self, service: str) -> list[str]:
        """The words of a service's command."""
        first, *rest = [self.localised(service, str(word)) for word in self.services[service]["command"]]
        found = sys.executable if first == "python" else shutil.which(first, path=str(Path(sys.executable).parent)) or first
        return [found, *rest]

    def start(self, *names: str) -> None:
        """Start services in the order of the file's conditions: each when those that it names are well, or have ended well."""
        for name in names:
            for before, condition in self.services[name].get("depends_on", {}).items():
                if before in self.processes:
                    self._await(before, ended=condition["condition"] == "service_completed_successfully")
            self._begin(name)

    def _begin(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.command(name),
                env=self.environment(name),
                cwd=self.data(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def well(self, name: str) -> bool:
        """Whether a service answers the health check of its image, with the address that the file gives it."""
        check = [sys.executable, str(CHECKOUT / "docker" / "healthy.py")]
        return subprocess.run(check, env=self.environment(name), capture_output=True, check=False, timeout=30).returncode == 0

    def await_all(self) -> None:
        """Wait until every service that has a health check is well."""
        for name in self.processes:
            if "ZSBIR_HEALTH_URL" in self.services[name].get("environment", {}):
                self._await(name, ended=False)

    def log(self, name: str) -> str:
        """What a service has written."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def _await(self, name: str, *, ended: bool) -> None:
        until = time.monotonic() + START_S
        while (self.processes[name].poll() is None) if ended else not self.well(name):
            assert time.monotonic() < until, f"{name} is not ready: {self.log(name)[-3000:]}"
            if not ended and self.processes[name].poll() is not None:
                self._begin(name)  # restart: unless-stopped
            time.sleep(0.3)
        assert not ended or self.processes[name].returncode == 0, self.log(name)[-3000:]

    def end(self) -> None:
        """Kill everything that was started, Ray's processes included: they name the folder."""
        for process in self.processes.values():
            kill(process)
        doomed: dict[int, psutil.Process] = {}
        for found in psutil.process_iter(["cmdline"]):
            if str(self.folder) in " ".join(found.info["cmdline"] or []):
                with suppress(psutil.NoSuchProcess):
                    doomed |= {each.pid: each for each in (found, *found.children(recursive=True))}
        for found in doomed.values():
            with suppress(psutil.NoSuchProcess):
                found.kill()
        psutil.wait_procs(doomed.values(), timeout=10)


@contextmanager
def deployment(file: Mapping[str, Any], outside: Mapping[str, str]) -> Iterator[Deployment]:
    """A deployment whose processes are killed, and whose files are removed, at the end."""
    # Ray's sockets lie below this folder, and their paths may have no more than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="zc", dir="/tmp", ignore_cleanup_errors=True) as folder:
        running = Deployment(file, Path(folder), outside)
        try:
            yield running
        finally:
            running.end()
