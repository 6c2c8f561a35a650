"""One command of an attempt as a process: its output, its result, the error that it reports, and how it is asked to end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsbir.base import watch
from zsbir.base.signals import STOP_SIGNALS

LONGEST_REPORT = 4096
"""Bytes that are read of the errors that a command, and what it starts, report: a line each."""

LONGEST_RESULT = 64 * 1024
"""Bytes at the end of standard output in which the result is looked for, its last line."""

SECOND_ASKING_S = 5.0
"""Seconds after which a second request to end kills a program: signals sometimes come twice."""

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Outcome:
    """How a command ended. code: its exit code, or minus the signal. result: the last line of its standard output.

    error: the class of its error, as its own process reports it; empty where it did not: what commands that it starts report is for
    it to handle. out_of_memory: the kernel killed it for that.
    """

    code: int
    result: str = ""
    error: str = ""
    out_of_memory: bool = False


class Child:
    """A running command. OSError where it cannot be started.

    log: takes what it prints on standard error. is_program: it is a program of an operator's own; then its standard output is
    logged, too, and what it starts ends with it.
    """

    def __init__(
        self, words: Sequence[str], env: Mapping[str, str], log: Callable[[bytes], None], *, cwd: str = "", is_program: bool = False
    ):
        self._log, self._is_program = log, is_program
        self._result = bytearray()
        self._asked_s: float | None = None
        self._report, error_pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                list(words),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                env={**env, watch.ERROR_PIPE: str(error_pipe)},
                cwd=cwd or None,
                pass_fds=(error_pipe,),
                start_new_session=is_program,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it only makes system calls
            )
        except BaseException:
            os.close(self._report)
            raise
        finally:
            os.close(error_pipe)
        self._kills = _oom_kill_count()

    def wait(self) -> Outcome:
        """Wait for its end, and return how it ended."""
        readers = [
            threading.Thread(target=_copy_stream, args=(self._process.stderr, self._log), daemon=True),
            threading.Thread(target=_copy_stream, args=(self._process.stdout, self._take_output), daemon=True),
        ]
        for reader in readers:
            reader.start()
        code = self._process.wait()
        if self._is_program:
            self._signal_all(signal.SIGKILL)
        for reader in readers:
            reader.join(5)  # a process that the command left behind may still hold the other end
        result = bytes(self._result).decode("utf-8", "replace").strip().rpartition("\n")[2]
        out_of_memory = code == -signal.SIGKILL and _oom_kill_count() > self._kills
        return Outcome(code, result, _read_report(self._report, self._process.pid), out_of_memory)

    def ask_to_end(self) -> None:
        """Send SIGINT, to save its work and end. A program that is asked again, seconds later, is killed."""
        if not self._is_program:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
            return
        now_s = time.monotonic()
        if self._asked_s is None:
            self._asked_s = now_s
            self._signal_all(signal.SIGINT)
        elif now_s - self._asked_s > SECOND_ASKING_S:
            self._signal_all(signal.SIGKILL)

    def kill(self) -> None:
        """Kill the process with SIGKILL; of a program of an operator's, the processes that it has started, too."""
        with suppress(ProcessLookupError):
            self._process.kill()
        if self._is_program:
            self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: int) -> None:
        """Send a signal to a program and to all that it has started in its session's group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _take_output(self, data: bytes) -> None:
        self._result += data
        if self._is_program:
            self._log(data)
            del self._result[:-LONGEST_RESULT]


def _read_report(pipe: int, pid: int) -> str:
    """Return the class of the error that this process has reported last, and close the pipe; empty where it has reported none."""
    os.set_blocking(pipe, False)
    with os.fdopen(pipe, "rb", buffering=0) as file, suppress(OSError):
        lines = (file.read(LONGEST_REPORT) or b"").decode("ascii", "replace").splitlines()
        writers = [line.partition(" ") for line in lines]
        return next((name for writer, _, name in reversed(writers) if writer == str(pid)), "")
    return ""


def _oom_kill_count() -> int:
    """Return how often this machine's kernel has killed a process for lack of memory."""
    with suppress(OSError, ValueError):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0


def _copy_stream(stream: Any, take: Callable[[bytes], None]) -> None:
    """Pass on all that a pipe delivers, until it closes."""
    while data := stream.read1(65536):
        take(data)


def _die_with_parent() -> None:
    """Have the kernel kill the command when this process dies: two attempts must never work at the same time."""
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, set(STOP_SIGNALS))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ray ignores it, and a process that it starts inherits that
