"""An attempt at a job, as Ray or Kubernetes starts it: `python -m services.jobs.runs.runner PLACE`. Runs its steps and leaves its signs.

The work itself is the project's own commands, each a process of its own. This one beats, keeps the log, hands a wish to stop on,
and says in the end what became of it; where it is killed, its command is killed with it, and silence says so.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from services.jobs.queue.states import Cause, StopReason
from services.jobs.runs.attempt_dir import HEARTBEAT_S, LOG_LIMIT, LOG_PIECE, AttemptDir, End
from services.jobs.runs.steps import Step, StepInput
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import join, open_folder
from zsbir.training_run.delivery import UNDELIVERED

CUT = f"\n[the log is cut here: it has reached {LOG_LIMIT >> 20} MiB]\n".encode()
DELIVERY_TRIES, DELIVERY_PAUSE_S = 10, 20.0
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

STORAGE_ERRORS = (InputError, RunError, OSError)
"""A store that is away for a while: signs are late, the work goes on."""


class Log:
    """All that the commands say: to this process's own output, and to storage in pieces."""

    def __init__(self, attempt_dir: AttemptDir):
        self._attempt_dir = attempt_dir
        self._piece, self._text, self._size = 0, bytearray(), 0
        self._changed, self._lock = False, threading.Lock()

    def add(self, data: bytes) -> None:
        """Something was said. Ray's own copy may fail, on a full disk: a command that nobody reads any more would stand still."""
        with self._lock:
            if self._size > LOG_LIMIT:
                return
            with suppress(OSError):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            room = LOG_LIMIT - self._size
            self._size += len(data)
            self._text += data if len(data) <= room else data[:room] + CUT
            self._changed = True

    def say(self, line: str) -> None:
        """A line of this process's own."""
        self.add(f"{line}\n".encode())

    def tail(self, size: int = 4000) -> str:
        """Its last bytes as text."""
        return bytes(self._text[-size:]).decode("utf-8", "replace")

    def write(self) -> None:
        """What is new goes to storage."""
        with self._lock:
            if not self._changed:
                return
            while len(self._text) > LOG_PIECE:
                self._attempt_dir.write_log(self._piece, bytes(self._text[:LOG_PIECE]))
                del self._text[:LOG_PIECE]
                self._piece += 1
            self._attempt_dir.write_log(self._piece, bytes(self._text))
            self._changed = False


class Attempt:
    """One run of a job's steps."""

    def __init__(self, attempt_dir: AttemptDir):
        self.attempt_dir, self.spec = attempt_dir, attempt_dir.spec()
        self.log = Log(attempt_dir)
        self.steps = [Step.of(said) for said in self.spec["steps"]]
        self.made: dict[str, str] = {}
        self._began_s = time.time()
        self._command: subprocess.Popen[bytes] | None = None
        self._stop, self._over = threading.Event(), threading.Event()
        self.stop_reason: StopReason = "preempted"

    def run(self) -> End:
        """Steps in order, as far as they go. Raises nothing that a step runs into."""
        for step in self.steps:
            if self._stop.is_set():
                return self._stopped("")
            try:
                code = self._step(step)
            except _DeliveryPending as reason:
                return End("busy", str(reason), made=self.made)
            if code:
                return self._failed(step, code)
            with suppress(*STORAGE_ERRORS):
                self.attempt_dir.tell_made(self.made)
        return End("succeeded", result=self.made[self.steps[-1].name], made=self.made)

    def watch(self) -> None:
        """The second thread: beat, keep the log, and hand on the wish to stop, until the work is over."""
        count = 0
        while not self._over.wait(HEARTBEAT_S if count else 0.0):
            count += 1
            with suppress(*STORAGE_ERRORS):
                self.attempt_dir.heartbeat(count)
            with suppress(*STORAGE_ERRORS):
                self.log.write()
            with suppress(*STORAGE_ERRORS):
                if self.attempt_dir.ended() is not None and not self._over.is_set():
                    self._leave()
            with suppress(*STORAGE_ERRORS):
                if not self._stop.is_set() and (reason := self.attempt_dir.stop_reason()) is not None:
                    self.ask_stop(reason)

    def ask_stop(self, reason: StopReason) -> None:
        """Let the command save its work and end. Once: a second signal would end it without."""
        if not self._stop.is_set():
            self.stop_reason = reason
            self._stop.set()
            if self._command is not None:
                with suppress(ProcessLookupError):
                    self._command.send_signal(signal.SIGINT)

    def close(self, end: End) -> None:
        """The last words, told until they are heard: without them the work would be done again."""
        self._over.set()
        self.log.say(f"{end.cause}{': ' + end.message if end.message else ''}")
        _insist(self.log.write)
        end = replace(end, began_s=self._began_s, ended_s=time.time())
        _insist(lambda: self.attempt_dir.end(end))

    def _leave(self) -> NoReturn:
        """It was held for lost, as its beats reached nobody for too long, and another attempt may be at work: end at once."""
        print("held for lost meanwhile; this attempt ends", file=sys.stderr)  # noqa: T201 - this process's own log
        if self._command is not None:
            with suppress(ProcessLookupError):
                self._command.kill()
        os._exit(1)

    def _step(self, step: Step) -> int:
        fed = {name: self._value(fed) for name, fed in step.fed.items()}
        argv = step.argv(fed, self.spec["root"])
        memo = _StepCache(self.spec["memo"], step.name, argv)
        done = memo.read()
        if done and len(self.steps) > 1:
            self.log.say(f"{step.name}: done before: {done}")
            self.made[step.name] = done
            self._deliver(step, argv)
            return 0
        code = self._command_of(step, argv)
        if not code:
            memo.write(self.made[step.name])
            self._deliver(step, argv)
        return code

    def _value(self, fed: StepInput) -> str:
        uri = self.made[fed.step]
        if fed.file:
            return str(Artifact(uri).file(fed.file))
        return uri

    def _command_of(self, step: Step, argv: Sequence[str]) -> int:
        words = [sys.executable, "-m", step.module, *argv]
        self.log.say("$ " + shlex.join(["python", *words[1:]]))
        self._command = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self.spec["env"], "ZSBIR_WATCH": join(self.attempt_dir.uri, step.name), "PYTHONUNBUFFERED": "1"},
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - it calls into the kernel alone
        )
        kills = _oom_kills()
        if self._stop.is_set():  # asked for between two steps
            self._command.send_signal(signal.SIGINT)
        result = bytearray()
        readers = [
            threading.Thread(target=_drain, args=(self._command.stderr, self.log.add), daemon=True),
            threading.Thread(target=_drain, args=(self._command.stdout, result.extend), daemon=True),
        ]
        for reader in readers:
            reader.start()
        code = self._command.wait()
        for reader in readers:
            reader.join(5)  # a process that the command left behind may still hold the other end
        if not code:
            self.made[step.name] = result.decode("utf-8", "replace").strip().rpartition("\n")[2]
            self.log.say(self.made[step.name])
        if code == -signal.SIGKILL and _oom_kills() > kills:
            self.log.say("killed by the kernel: MemoryError")
        return code

    def _deliver(self, step: Step, argv: Sequence[str]) -> None:
        """What MLflow missed of a finished training, the same command delivers when it answers again. _Untold when it does not."""
        if step.name != "train":
            return
        run = open_folder(self.made["train"])
        for _ in range(DELIVERY_TRIES):
            with suppress(*STORAGE_ERRORS):
                if run.size(UNDELIVERED) is None:
                    return
            if self._stop.wait(DELIVERY_PAUSE_S):
                return
            self._command_of(step, argv)
        raise _DeliveryPending("the training is done, and MLflow does not answer: told when it does")

    def _failed(self, step: Step, code: int) -> End:
        """Why, as far as it can be told from outside."""
        lines = [line for line in self.log.tail().splitlines() if line.strip()]
        told = next((line for line in reversed(lines) if line.startswith(("error:", "interrupted:"))), lines[-1] if lines else "")
        if code < 0:  # Python ends by SIGINT's own hand where it comes before anybody listens
            told = "interrupted" if code == -signal.SIGINT else f"killed by {signal.Signals(-code).name}"
        message = f"{step.name}: {told}" if len(self.steps) > 1 else told
        if self._stop.is_set():
            return self._stopped(message)
        with suppress(*STORAGE_ERRORS):
            kind = self.attempt_dir.status(step.name)["facts"].get("error", "")
            return End(_cause(code, kind, self.log.tail()), message[:500], made=self.made)
        return End(_cause(code, "", self.log.tail()), message[:500], made=self.made)

    def _stopped(self, message: str) -> End:
        return End(self.stop_reason, message[:500], made=self.made)


class _DeliveryPending(Exception):  # noqa: N818 - it says what MLflow is
    """MLflow was away for too long to keep a cluster's CPUs for it: a later attempt tells it."""


class _StepCache:
    """What a step of this job made, so that a later attempt, or a job that goes on with its work, need not look for it again."""

    def __init__(self, uri: str, name: str, argv: Sequence[str]):
        self._folder = open_folder(uri)
        self._key = f"{name}-{hashlib.sha256(json.dumps(list(argv)).encode()).hexdigest()[:16]}"

    def read(self) -> str:
        with suppress(*STORAGE_ERRORS):
            uri = self._folder.read(self._key).decode()
            return uri if exists(uri) or self._key.startswith("pretrain") else ""
        return ""

    def write(self, uri: str) -> None:
        with suppress(*STORAGE_ERRORS):
            self._folder.replace(self._key, uri.encode())


def _cause(code: int, error: str, tail: str) -> Cause:
    """error: the class of the command's error, as it told who watches."""
    if any(sign in tail for sign in ("OutOfMemoryError", "CUDA out of memory", "MemoryError", "Cannot allocate memory")):
        return "out_of_memory"
    by_error: dict[str, Cause] = {"Busy": "busy", "DataError": "data_error", "InputError": "user_error"}
    by_code: dict[int, Cause] = {2: "user_error", 130: "preempted", -signal.SIGKILL: "lost"}
    by_code |= {-signal.SIGTERM: "preempted", -signal.SIGINT: "preempted"}
    return by_error.get(error) or by_code.get(code, "unknown")


def _oom_kills() -> int:
    """How often this machine's kernel has killed for want of memory."""
    with suppress(OSError, ValueError):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0


def _drain(stream: Any, take: Callable[[bytes], None]) -> None:
    while data := stream.read1(65536):
        take(data)


def _die_with_parent() -> None:
    """The kernel kills the command when this process is gone: two attempts must never work at the same time."""
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ray ignores it, and who is started would too


def _insist(action: Callable[[], None], tries: int = 60, pause_s: float = 5.0) -> None:
    """Until the store takes it; after five minutes the dispatcher must judge without it."""
    for _ in range(tries):
        try:
            return action()
        except STORAGE_ERRORS:
            time.sleep(pause_s)
    return None


def main(uri: str) -> int:
    """The exit code for Ray: 0 when the job has succeeded."""
    attempt_dir = AttemptDir(uri)
    attempt = Attempt(attempt_dir)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: attempt.ask_stop("preempted"))
    if not attempt_dir.claim_start(f"{socket.gethostname()} {os.getpid()}"):
        print("somebody else has begun this attempt, or it was given up", file=sys.stderr)  # noqa: T201 - this process's own log
        return 1
    watcher = threading.Thread(target=attempt.watch, daemon=True, name="watch")
    watcher.start()
    try:
        end = attempt.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, it must be told
        end = End("unknown", f"{type(error).__name__}: {str(error)[:400]}", made=attempt.made)
    attempt.close(end)
    return 0 if end.cause == "succeeded" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
