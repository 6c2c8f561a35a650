"""A real PostgreSQL: this machine's, or Debian's packages unpacked, with a data folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from servers.debian import Packages, Unavailable
from servers.processes import HOST, free_ports, guard

START_S = 60
NOBODY = "nobody"
QUICK = ("fsync=off", "full_page_writes=off", "unix_socket_directories=", "shared_buffers=64MB", "max_connections=200")
"""Nothing that is tested here hangs on a machine that loses power; no sockets in the file system."""


def new_database(server: str) -> str:
    """The URL of a new, empty database there. server: the URL of any of its databases."""
    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server.rpartition('/')[0]}/{name}"


@contextmanager
def postgres() -> Iterator[str]:
    """A URL of an empty database, postgresql://...; more of them by `new_database`. Killed and removed at the end."""
    programs, environment = _programs()
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as directory:
        folder, words = Path(directory), _as_other_user(Path(directory))
        data = folder / "data"
        init = [
            *words,
            str(programs / "initdb"),
            "-D",
            str(data),
            "-U",
            "zsbir",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        done = subprocess.run(init, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"PostgreSQL: initdb failed: {done.stderr.strip()[-300:]}")
        settings = [word for setting in (*QUICK, f"listen_addresses={HOST}", f"port={port}") for word in ("-c", setting)]
        with (folder / "log").open("wb") as log:
            command = [*words, str(programs / "postgres"), "-D", str(data), *settings]
            process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        watch = guard([-process.pid], folder)
        try:
            _await(port, process, folder / "log")
            yield f"postgresql://zsbir@{HOST}:{port}/postgres"
        finally:
            watch.stdin.close()
            watch.wait()
            process.wait()


def _programs() -> tuple[Path, dict[str, str]]:
    """The folder of initdb and postgres, and the environment they run in."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent, dict(os.environ)
    packages = Packages(
        "PostgreSQL", "postgresql", ["postgresql-15"], ["usr/lib/postgresql/15/bin/postgres"], _unpacked_environment
    )
    root = packages.unpacked()
    return root / "usr/lib/postgresql/15/bin", _unpacked_environment(root)


def _unpacked_environment(root: Path) -> dict[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": f"{root}/usr/lib/x86_64-linux-gnu"}


def _as_other_user(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: then it runs as nobody, to whom the folder is given."""
    if os.getuid():
        return []
    tool = shutil.which("setpriv")
    if tool is None:
        raise Unavailable("PostgreSQL: it refuses to run as root, and there is no setpriv here to run it as somebody else")
    user = pwd.getpwnam(NOBODY)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return [tool, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _await(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(host=HOST, port=port, user="zsbir", dbname="postgres", connect_timeout=5).close()
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text("utf-8", "replace")[-2000:]
            assert time.monotonic() < end, log.read_text("utf-8", "replace")[-2000:]
            time.sleep(0.05)
        else:
            return
