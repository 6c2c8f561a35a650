"""Joining a Ray cluster, or starting one on this machine: one guard around whatever goes wrong there."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from zsbir.base import events
from zsbir.base.errors import ClusterError, InputError, Interrupted, RunError
from zsbir.base.signals import handlers_kept
from zsbir.edge.ray_room import Need, await_room

JOIN_DEADLINE_S = 30.0
"""Seconds in which a cluster that is joined must answer."""

REFUSED_S = 10.0
"""Seconds for which an address may refuse connections: its head may be starting."""

TEMP_DIR_BYTES = 40
"""Longest path below which Ray can put its sockets: those may have 107 bytes."""


@contextmanager
def connected(need: Need) -> Iterator[None]:
    """Connect to the cluster of this job (`RAY_ADDRESS`, set by `ray job submit`), else to one started on this machine.

    A process that was connected before stays connected afterwards. Waits, and says so, while the cluster lacks nodes for `need`
    that it has had, or that its autoscaler can add.

    Raises InputError for an address that cannot be one, and for more than the cluster can have; ClusterError where no cluster
    answers or none can be started, and where Ray itself fails inside.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if ray.is_initialized():
        with _failures_explained():
            await_room(need, may_grow=_may_grow(address))
            yield
        return
    with own_ray() if address in ("", "local") else nullcontext():
        _start(address)
        try:
            with _failures_explained():
                await_room(need, may_grow=_may_grow(address))
                yield
        finally:
            ray.shutdown()


def _may_grow(address: str) -> bool:
    return bool(address) and address != "local"


@contextmanager
def _failures_explained() -> Iterator[None]:
    """Turn errors of Ray itself inside into errors of one line with the way out."""
    try:
        yield
    except RayTaskError:
        raise
    except OutOfMemoryError as error:
        raise RunError(f"OutOfMemoryError: {_one_line(error)}; use fewer workers on a node, or a smaller batch") from error
    except RayError as error:
        raise ClusterError(f"Ray failed: {_one_line(error)}; the same command goes on from what is saved") from error


def _start(address: str) -> None:
    """Call `ray.init`, and put one line with the way out in the place of whatever it raises."""
    if address:
        events.say(f"joining Ray at {address}")
        _check_address(address)
        options: dict[str, Any] = {"address": address}
        way_out = f"is a Ray cluster of version {ray.__version__} at RAY_ADDRESS={address}? Unset it to use this machine alone"
    else:
        events.say("starting Ray on this machine")
        options = {"include_dashboard": True, "dashboard_port": 0, "_temp_dir": str(temp_dir())}
        way_out = "without --num-workers, no Ray is needed"
    try:
        with handlers_kept(signal.SIGTERM), _hangups_ignored(), _short_temp_dir():
            ray.init(logging_level=logging.WARNING, **options)
    except (InputError, RunError, Interrupted):
        raise
    except Exception as error:
        ray.shutdown()
        raise ClusterError(f"Ray did not start ({_one_line(error)}); {way_out}") from error


@contextmanager
def _hangups_ignored() -> Iterator[None]:
    """Start processes inside that a lost terminal does not end: the training, which needs them, saves a checkpoint first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handlers_kept(signal.SIGHUP):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is ignored stays ignored in a program that is started
        yield


# --- the address of a cluster


def _check_address(address: str) -> None:
    """Check that a cluster answers at `address`, before Ray waits for it for minutes. InputError, ClusterError."""
    if address in ("auto", "local"):
        return
    if address.startswith("ray://"):
        raise InputError(
            f"RAY_ADDRESS={address} is the address of a Ray client, which sees too little of its cluster: run the command on one of"
            " its nodes with the cluster's own address, host:6379, or submit it (ray job submit)"
        )
    if address.startswith(("http://", "https://")):
        raise InputError(
            f"RAY_ADDRESS={address} is the address of Ray's job API: "
            f"submit to it (ray job submit --address {address} -- python -m ...), or give the cluster's own address, host:6379"
        )
    host, _, port = address.rpartition(":")
    if not host or "://" in address or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"RAY_ADDRESS={address!r} is no address of a Ray cluster: it should read host:port, as in 10.0.0.1:6379")
    until = time.monotonic() + JOIN_DEADLINE_S
    way_out = "start one there (ray start --head), correct RAY_ADDRESS, or unset it to use this machine alone"
    try:
        _connect(host.strip("[]"), int(port), until)
    except OSError as error:
        raise ClusterError(f"no Ray cluster answers at {address} ({error.strerror or error}); {way_out}") from None
    try:
        answered = _within(until - time.monotonic(), lambda: GcsClient(address=address).get_all_node_info(timeout=5))
    except Exception as error:
        raise ClusterError(f"the Ray cluster at {address} refuses: {_one_line(error)}; {way_out}") from error
    if not answered:
        raise ClusterError(f"what listens at {address} does not answer as a Ray cluster within {JOIN_DEADLINE_S:.0f} s; {way_out}")


def _connect(host: str, port: int, until: float) -> None:
    """Return once something accepts a connection. OSError where nothing does until then, or all is refused for REFUSED_S."""
    refused_until = min(until, time.monotonic() + REFUSED_S)
    while True:
        try:
            socket.create_connection((host, port), timeout=max(1.0, until - time.monotonic())).close()
        except OSError as error:
            last = refused_until if isinstance(error, ConnectionRefusedError) else until
            if isinstance(error, socket.gaierror) or time.monotonic() + 1 > last:
                raise
            time.sleep(1)
        else:
            return


def _within(seconds: float, action: Callable[[], object]) -> bool:
    """Return whether an action returned in time; raise what it raised. It runs in a thread, since Ray's calls cannot be ended."""
    done, errors = threading.Event(), []

    def run() -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
        done.set()

    threading.Thread(target=run, daemon=True, name="ray-probe").start()
    answered = done.wait(max(1.0, seconds))
    if errors:
        raise errors[0]
    return answered


# --- the token, the ports and the folder of a Ray of our own

_TOKEN = secrets.token_hex(32)
_TOKEN_SOURCES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextmanager
def own_ray() -> Iterator[None]:
    """Keep the Ray that is started inside to this user: a token of its own, and no port that other machines reach."""
    with own_token(), loopback_alone():
        yield


@contextmanager
def loopback_alone() -> Iterator[None]:
    """Have the Ray that is started inside listen on 127.0.0.1 alone, as it does on systems with a firewall of their own.

    Ray has read the variable of that name when it was imported, and its processes read it anew.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    with variable(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, "0"):
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def own_token() -> Iterator[None]:
    """Give the Ray that is started inside a token of its own, in its environment, where the user has none.

    Ray would ask for a token by default, write a new one to the user's home, and say so.
    """
    has_one = any(os.environ.get(name) for name in _TOKEN_SOURCES) or Path("~/.ray/auth_token").expanduser().exists()
    logger = logging.getLogger("ray._private.authentication.authentication_token_setup")
    level = logger.level
    logger.setLevel(logging.ERROR)  # "Token authentication is enabled ..." tells a user nothing to do
    try:
        with kept("RAY_AUTH_MODE"), nullcontext() if has_one else variable("RAY_AUTH_TOKEN", _TOKEN):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def kept(name: str) -> Iterator[None]:
    """Put an environment variable back afterwards to what it was before."""
    before = os.environ.get(name)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def temp_dir() -> Path:
    """Return a folder for the files and sockets of a Ray on this machine, in one that only this user can enter.

    Ray lets everybody write to its own folder, from which its workers load code. ClusterError where no path is short enough.
    """
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")):  # noqa: S108 - the folder in it is private
        private = Path(parent) / f"zsbir-ray-{os.getuid()}"
        path = private / "t"
        if not _has_room_for_sockets(path):
            continue
        try:
            private.mkdir(mode=0o700, exist_ok=True)
            found = private.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return path
    raise ClusterError("there is no folder for Ray's sockets: set TMPDIR to one that can be written, with a short name in ASCII")


@contextmanager
def _short_temp_dir() -> Iterator[None]:
    """Give the processes that are started inside a TMPDIR below which sockets have room: Ray's dashboard makes some there."""
    if _has_room_for_sockets(tempfile.gettempdir()):
        yield
        return
    with variable("TMPDIR", str(temp_dir().parent)):
        yield


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable inside, for this process and those that it starts, and put back what it was before."""
    with kept(name):
        os.environ[name] = value
        yield


def _has_room_for_sockets(folder: str | Path) -> bool:
    return str(folder).isascii() and len(os.fsencode(folder)) <= TEMP_DIR_BYTES


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
