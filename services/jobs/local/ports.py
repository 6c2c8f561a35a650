"""The ports of one machine's service: the same at each `up`, so that links in old logs and bookmarks stay valid.

They are kept in `ports.json` in the service's folder, which `down` leaves there.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.private import write_private
from zsbir.base import events
from zsbir.base.errors import RunError
from zsbir.base.strict_json import parse_json

LOOPBACK = "127.0.0.1"
WHAT = {
    "api": "the page",
    "mlflow": "MLflow",
    "dashboard": "Ray's dashboard and job API",
    "gcs": "Ray's head",
    "client": "Ray's client server",
    "agent": "Ray's dashboard agent",
    "search": "the search page",
}
"""Who listens on each port. The first is where `up` is told; on a first `up` the others follow it, one after the other."""

OPEN = ("api", "search")
"""Those that listen where `up` is told; all others only on this machine."""

HIGHEST = 65_535
MAX_BYTES = 10_000
"""The largest `ports.json` that is read."""


@dataclass(frozen=True)
class Ports:
    """The port that each part of a service listens on."""

    api: int
    mlflow: int
    dashboard: int
    gcs: int
    client: int
    agent: int
    search: int


def choose_ports(state: Path, host: str, asked: int) -> Ports:
    """Return the ports of the last `up`, and remember them; say so where one of them is another program's by now.

    state: the service's folder. host: the address that the pages listen on. asked: the first one's port as `up` was told, 0 for
    any. Where `up` is told another one than last time, that one is taken.
    """
    last = _read(state / "ports.json")
    last_asked = last.pop("asked", None)
    found: dict[str, int] = {}
    for number, name in enumerate(WHAT):
        known = last.get(name) if name != "api" or last_asked == asked else None
        wanted = known or (asked + number if asked else 0)
        where = host if name in OPEN else LOOPBACK
        port = wanted if wanted not in found.values() and is_free(where, wanted) else _free_port(where, found.values())
        if port != wanted and (known or (asked and name == "api")):
            events.say(f"port {wanted} is taken by another program: {WHAT[name]} is on port {port} from now on")
        found[name] = port
    write_private(state / "ports.json", json.dumps({"asked": asked, **found}))
    return Ports(**found)


def is_free(host: str, port: int) -> bool:
    """Return whether a program may listen on a port of an address."""
    if not 0 < port <= HIGHEST:
        return False
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True


def _free_port(host: str, taken: Iterable[int]) -> int:
    """Return a free port, outside of those that the system gives to outgoing connections and Ray to its workers (10002-19999)."""
    ports = sorted(set(range(20_000, 32_000)) - set(taken), key=lambda _: secrets.randbits(32))
    found = next((port for port in ports if is_free(host, port)), 0)
    if not found:
        raise RunError(f"no port of {host} between 20000 and 32000 is free: does this machine have that address?")
    return found


def _read(file: Path) -> dict[str, int]:
    """Return the ports that were chosen last; empty where there is no such file, or none that `choose_ports` has written."""
    try:
        with file.open("rb") as opened:
            kept = parse_json(opened.read(MAX_BYTES))
    except (OSError, ValueError):
        return {}
    values: Mapping[str, Any] = kept if isinstance(kept, dict) else {}
    return {name: port for name, port in values.items() if type(port) is int and 0 <= port <= HIGHEST and name in {*WHAT, "asked"}}
