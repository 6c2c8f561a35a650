"""Server processes that never outlive the tests: free ports, SIGKILL by pid, a guard for when the tests themselves are killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Free ports below the range of outgoing connections, so that a server finds its port free again after a restart."""
    ports: list[int] = []
    with ExitStack() as held:
        for port in random.sample(range(20_000, 32_000), 1000):
            if len(ports) == count:
                break
            sock = held.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
            ports.append(port)
    return ports


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL and wait; nothing happens to one that has ended."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def guard(pids: list[int], folder: Path) -> subprocess.Popen[bytes]:
    """A process that kills these and removes their folder as soon as this process is gone, however it went.

    It notices by the pipe between the two, which the kernel closes. Kill it before what it guards.
    """
    script = 'cat >/dev/null; kill -9 "$@" 2>/dev/null; rm -rf -- "$0"'
    words = ["sh", "-c", script, str(folder), *map(str, pids)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
