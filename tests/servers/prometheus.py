"""A real Prometheus: Debian's package, unpacked, with a configuration of ours whose names are addresses of this machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from servers.debian import Packages
from servers.processes import HOST, free_ports, kill

START_S = 60


def programs() -> Path:
    """The folder of prometheus and promtool, fetched at the first use. Unavailable where they cannot be had."""
    named = ["usr/bin/prometheus", "usr/bin/promtool"]
    return Packages("Prometheus", "prometheus", ["prometheus"], named, lambda _root: dict(os.environ)).unpacked() / "usr" / "bin"


def promtool(*words: str | Path) -> str:
    """What promtool prints; an AssertionError with it where it finds a fault."""
    done = subprocess.run([programs() / "promtool", *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """One that runs at an address."""

    def __init__(self, url: str):
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        answer = httpx.post(f"{self.url}/api/v1/query", data={"query": expression}, timeout=30).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        return list(answer["data"]["result"])

    def get(self, path: str) -> Any:
        """The data of an answer of its API."""
        return httpx.get(f"{self.url}/api/v1/{path}", timeout=30).json()["data"]


@contextmanager
def prometheus(config: Path, folder: Path) -> Iterator[Prometheus]:
    """One over a configuration file, with its data in a folder. Killed at the end."""
    (port,) = free_ports(1)
    words = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={HOST}:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([programs() / "prometheus", *words], stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + START_S
        while not _ready(f"http://{HOST}:{port}/-/ready"):
            assert process.poll() is None, (folder / "prometheus.log").read_text("utf-8")[-2000:]
            assert time.monotonic() < until
            time.sleep(0.2)
        yield Prometheus(f"http://{HOST}:{port}")
    finally:
        kill(process)


def _ready(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
