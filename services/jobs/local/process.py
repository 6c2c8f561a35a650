"""Programs that one machine's service consists of: how each is started, found well, and ended with all that it started itself."""

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
import psutil

from zsbir.base import events

BACKOFF_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a program that ended is started again: the next one each time, until it has lived for a minute."""

END_S = 10.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Program:
    """What is to run. well: answers when it does its work. marks: texts in command lines of what it leaves behind."""

    name: str
    words: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    well: str = ""
    marks: Sequence[str] = ()


class Running:
    """One program, kept alive."""

    def __init__(self, program: Program):
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self._failures, self._started_s, self._next_s = 0, 0.0, 0.0

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        return self.process.pid if self.process and self.process.poll() is None else 0

    def start(self) -> None:
        """In a session of its own, so that all of it can be ended at once."""
        end_all(self.program.marks)
        self.program.log.parent.mkdir(parents=True, exist_ok=True)
        with self.program.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.program.words),
                env={**_direct(os.environ), **self.program.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started_s = time.monotonic()

    def keep(self) -> bool:
        """Start it again where it has ended; whether it was started."""
        if self.pid:
            return False
        now = time.monotonic()
        if self.process is not None:
            code = self.process.returncode
            self._failures = 0 if now - self._started_s > 60 else self._failures + 1
            self._next_s = now + BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
            self.end(signal.SIGKILL)
            events.warn(f"{self.program.name} has ended (exit code {code}); it is started again, see {self.program.log}")
            self.process = None
        if now < self._next_s:
            return False
        self.start()
        return True

    def is_well(self) -> bool:
        """Whether it runs, and answers where it has an address."""
        return bool(self.pid) and (not self.program.well or answers(self.program.well))

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, and end it; then all that is left of it."""
        if self.process is not None:
            if self.process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(self.process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(END_S)
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        end_all(self.program.marks)


def await_well(
    programs: Sequence[Running], timeout_s: float, tell: Callable[[str], None], stop: threading.Event | None = None
) -> list[str]:
    """Wait until all are well, or `stop` is set; names of those that are not in time."""
    until = time.monotonic() + timeout_s
    waiting = list(programs)
    while waiting and time.monotonic() < until and not (stop and stop.is_set()):
        for running in list(waiting):
            running.keep()
            if running.is_well():
                waiting.remove(running)
                tell(f"{running.program.name} is up")
        time.sleep(0.2)
    return [running.program.name for running in waiting]


def answers(address: str) -> bool:
    """Whether an HTTP server answers there, if only to say that one may not."""
    try:
        return httpx.get(address, timeout=3, trust_env=False).status_code < 500
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def end_all(marks: Sequence[str]) -> None:
    """SIGKILL to every process whose command line has one of these texts, and to what it started: Ray's agents change names."""
    if not marks:
        return
    doomed: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if process.pid != os.getpid() and any(mark in words for mark in marks):
            with suppress(psutil.NoSuchProcess):
                doomed |= {found.pid: found for found in (process, *process.children(recursive=True))}
    for process in doomed.values():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(list(doomed.values()), timeout=END_S)


def is_process(pid: int, start: str) -> bool:
    """Whether that very process lives: a number alone may be somebody else's by now."""
    with suppress(psutil.NoSuchProcess):
        return bool(start) and start_of(pid) == start and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def start_of(pid: int) -> str:
    """When a process was started, in words that no clock that is set anew changes; empty where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{BOOT_ID.read_text().strip()} {fields[19]}"  # ticks since this boot
    except (FileNotFoundError, ProcessLookupError):
        pass
    with suppress(psutil.NoSuchProcess):
        return "" if BOOT_ID.exists() else str(psutil.Process(pid).create_time())
    return ""


def _direct(environment: Mapping[str, str]) -> dict[str, str]:
    """That environment, in which no proxy stands between the programs of this machine."""
    here = "127.0.0.1,localhost"
    return {**environment, **{name: ",".join(filter(None, [environment.get(name), here])) for name in ("NO_PROXY", "no_proxy")}}


def python(*words: str) -> list[str]:
    """A module of this project as a command."""
    return [sys.executable, "-m", *words]
