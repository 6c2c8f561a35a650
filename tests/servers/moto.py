"""moto's S3 in a process of its own: it can be killed, and a benchmark does not share the interpreter with it.

It starts in about a second. It checks no signature and holds objects in memory; where that matters, use `servers.rgw`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from servers.processes import HOST, kill
from servers.s3 import S3Server

SERVE = f"""
import logging, os, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("{HOST}", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
os._exit(0)
"""
"""It ends with its standard input, so that it never outlives the tests."""


@dataclass
class Moto(S3Server):
    """A running moto."""

    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """SIGKILL; everything it held is gone."""
        kill(self.process)


@contextmanager
def moto_server() -> Iterator[Moto]:
    """Start moto on a free port; it is killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    with process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().decode().strip()
            assert port, "moto ended before it listened; its standard error says why"
            yield Moto(f"http://{HOST}:{port}", "testing", "testing12345", process)
        finally:
            kill(process)
