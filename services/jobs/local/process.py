"""The programs of one machine's service: how each is started, found healthy, restarted, and ended with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from services.common.private import open_log
from services.jobs.local.ownership import MARKER, Leader, in_session, kill, start_of
from zsbir.base import events

BACKOFF_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a program that has ended is started again: the next value after each end, until it has run for a minute."""

END_S = 10.0
"""Seconds that a program has to end after SIGTERM, before it is killed."""


WITHHELD = ("ZSBIR_JOBS_STORE", "ZSBIR_JOBS_TOKEN", "ZSBIR_LOG_TIMES")
"""Variables of this process that a program gets only where its `env` names them: credentials, and the form of log lines.

Whatever Ray gets, every job inherits.
"""


@dataclass(frozen=True)
class Program:
    """A program to run. health_url: answers HTTP requests once the program works.

    env: added to this process's environment, of which `WITHHELD` is left out.
    """

    name: str
    command: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    health_url: str = ""


class Running:
    """One program that is kept running. All of its processes carry the service's marker (see `ownership`)."""

    def __init__(self, program: Program, marker: str = ""):
        self.program, self.marker = program, marker
        self.process: subprocess.Popen[bytes] | None = None
        self.leader = Leader(0, "")
        self._failures, self._started_s, self._next_s = 0, 0.0, 0.0

    @property
    def pid(self) -> int:
        """The process number; 0 while the program does not run."""
        return self.process.pid if self.process and self.process.poll() is None else 0

    def start(self) -> None:
        """Start the program in a session of its own, so that all of it can be ended together."""
        inherited = {name: value for name, value in os.environ.items() if name not in WITHHELD}
        with open_log(self.program.log) as log:
            self.process = subprocess.Popen(
                list(self.program.command),
                env={**_without_proxy(inherited), **self.program.env, MARKER: self.marker},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.leader = Leader(self.process.pid, start_of(self.process.pid))
        self._started_s = time.monotonic()

    def restart_if_ended(self) -> bool:
        """Start the program unless it runs or its back-off has not passed yet; return whether it was started."""
        if self.pid:
            return False
        now = time.monotonic()
        if self.process is not None:
            code = self.process.returncode
            self._failures = 0 if now - self._started_s > 60 else self._failures + 1
            self._next_s = now + BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
            self.end(signal.SIGKILL)
            events.warn(f"{self.program.name} has ended (exit code {code}) and will be started again; see {self.program.log}")
            self.process = None
        if now < self._next_s:
            return False
        self.start()
        return True

    def is_healthy(self) -> bool:
        """Return whether the program runs, and answers where it has a health URL."""
        return bool(self.pid) and (not self.program.health_url or answers(self.program.health_url))

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the program this signal, wait up to `END_S` for its end, then kill what is left of its session."""
        if self.process is None:
            return
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(END_S)
        self.process.kill()
        kill(lambda: in_session(self.leader, self.marker))
        self.process.wait()


def await_healthy(
    programs: Sequence[Running], timeout_s: float, report: Callable[[str], None], stop: threading.Event | None = None
) -> list[str]:
    """Wait until all programs are healthy or `stop` is set; return the names of those that are not healthy by then."""
    until = time.monotonic() + timeout_s
    waiting = list(programs)
    while waiting and time.monotonic() < until and not (stop and stop.is_set()):
        for running in list(waiting):
            running.restart_if_ended()
            if running.is_healthy():
                waiting.remove(running)
                report(f"{running.program.name} is up")
        time.sleep(0.2)
    return [running.program.name for running in waiting]


def answers(url: str) -> bool:
    """Return whether an HTTP server answers there without a server error; a demand for a token counts as an answer."""
    try:
        return httpx.get(url, timeout=3, trust_env=False).status_code < 500
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with this machine's own addresses exempt from proxies."""
    local = "127.0.0.1,localhost"
    exempt = {name: ",".join(filter(None, [environment.get(name), local])) for name in ("NO_PROXY", "no_proxy")}
    return {**environment, **exempt}


def python(*words: str) -> list[str]:
    """Return the command that runs a module of this project with this interpreter."""
    return [sys.executable, "-m", *words]
