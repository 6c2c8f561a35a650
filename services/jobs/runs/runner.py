"""The process of an attempt, as Ray or Kubernetes starts it: `python -m services.jobs.runs.runner FOLDER`.

The attempt's steps are the project's own commands, each in a process of its own. This process runs them in order, writes heartbeats
and the log, passes on a request to stop, and writes how the attempt ended. Where it is killed, its command is killed with it, and
the dispatcher learns of it from missing heartbeats.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from services.jobs.queue.states import Cause, StopReason
from services.jobs.runs.attempt_dir import HEARTBEAT_S, AttemptDir, End
from services.jobs.runs.causes import DECLINED, cause_of, cause_of_program
from services.jobs.runs.child import Child, Outcome
from services.jobs.runs.log import Log
from services.jobs.runs.model_inputs import pin_models
from services.jobs.runs.steps import COMMAND, Step, StepInput
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import DiskFull, InputError, RunError
from zsbir.base.events import say
from zsbir.base.layout import service_dir
from zsbir.base.outages import outage_of
from zsbir.base.signals import on_signals
from zsbir.base.storage import join, open_folder
from zsbir.training_run.delivery import UNDELIVERED

CANNOT_START = 127
"""The exit code by which shells say that there is no such program."""

LONGEST_ADDRESS = 2000
DELIVERY_TRIES, DELIVERY_PAUSE_S = 10, 20.0
MESSAGE_LENGTH = 480

STORAGE_ERRORS = (InputError, RunError, OSError)
"""Errors of storage that does not answer: what is written to the attempt's folder is late, and the work goes on."""


class Attempt:
    """One run of a job's steps."""

    def __init__(self, attempt_dir: AttemptDir):
        self.attempt_dir, self.spec = attempt_dir, attempt_dir.spec()
        self.log = Log(attempt_dir)
        self.steps = [Step.from_json(step) for step in self.spec["steps"]]
        self.made: dict[str, str] = {}
        self._stage_times: dict[str, dict[str, Any]] = {}
        self._began_s, self._began_monotonic_s = time.time(), time.monotonic()
        self._outcome = Outcome(0)
        self._command: Child | None = None
        self._stop, self._over = threading.Event(), threading.Event()
        self._stopping = threading.Lock()
        self.stop_reason: StopReason = "preempted"

    def run(self) -> End:
        """Run the steps in order, until one fails or the attempt is to stop. Return the end; a step's failure is not raised."""
        if end := self._resolve_models():
            return end
        for step in self.steps:
            if self._stop.is_set():
                return self._end_of_stopped("")
            try:
                code = self._run_timed(step)
            except _DeliveryPending as reason:
                return End("busy", str(reason), made=self.made)
            if code and self._outcome.error == DECLINED and not self._stop.is_set():
                return self._end_of_declined(step)
            if code:
                return self._end_of_failed(step, code)
            with suppress(*STORAGE_ERRORS):
                self.attempt_dir.write_results(self.made)
        return End("succeeded", result=self.made[self.steps[-1].name], made=self.made)

    def watch(self) -> None:
        """Write heartbeats and the log, and pass on a request to stop, until the work is over. Runs in a thread of its own."""
        count = 0
        while not self._over.wait(HEARTBEAT_S if count else 0.0):
            count += 1
            with suppress(*STORAGE_ERRORS):
                self.attempt_dir.write_heartbeat(count, self._ran_s)
            with suppress(*STORAGE_ERRORS):
                self.log.write()
            with suppress(*STORAGE_ERRORS):
                if self.attempt_dir.read_end() is not None and not self._over.is_set():
                    self._exit_as_lost()
            with suppress(*STORAGE_ERRORS):
                if not self._stop.is_set() and (reason := self.attempt_dir.stop_reason()) is not None:
                    self.request_stop(reason)

    def request_stop(self, reason: StopReason) -> None:
        """Have the command save its work and end. Only the first call counts: a second signal would end it at once.

        An operator's own program may be deaf to the first one; the second, which comes when its time is up, kills it.
        """
        with self._stopping:
            if not self._stop.is_set():
                self.stop_reason = reason
                self._stop.set()
            elif self._command is None or not self._is_program:
                return
            if self._command is not None:
                self._command.ask_to_end()

    def close(self, end: End) -> None:
        """Write the log and the end, again and again until storage takes them: without the end, the work would be repeated."""
        self._over.set()
        self.log.add_line(f"{end.cause}{': ' + end.message if end.message else ''}")
        _retry(self.log.write)
        end = replace(end, began_s=self._began_s, ended_s=time.time(), ran_s=self._ran_s)
        _retry(lambda: self.attempt_dir.write_end(end))

    @property
    def _ran_s(self) -> float:
        return time.monotonic() - self._began_monotonic_s

    def _exit_as_lost(self) -> NoReturn:
        """Exit at once: the dispatcher took this attempt for lost, and another one may be at work."""
        say("the dispatcher took this attempt for lost; it ends")
        if self._command is not None:
            self._command.kill()
        os._exit(1)

    def _resolve_models(self) -> End | None:
        """Put artifacts in the place of registered models: those of the first attempt. Return the end where that fails."""
        root = self.spec["root"]
        allowed = AllowedPaths([root, *self.spec.get("places", ())], private=[str(service_dir(root))])
        try:
            self.steps, found = pin_models(self.steps, root=root, memo=self.spec["memo"], allowed=allowed)
        except InputError as error:
            return End("user_error", f"error: {error}"[:500])
        except (RunError, OSError) as error:
            cause: Cause = "disk_full" if outage_of(error) is DiskFull else "unreachable"
            return End(cause, f"error: a registered model cannot be looked up: {error}"[:500])
        for each in found:
            self.log.add_line(each.sentence())
        if found:
            with suppress(*STORAGE_ERRORS):
                self.attempt_dir.write_models({f"{each.kind} {each.asked}": each.sentence() for each in found})
        return None

    def _run_timed(self, step: Step) -> int:
        """Run a step, and write when it began and how long it took."""
        times = self._stage_times.setdefault(step.name, {"began_s": self._ran_s})
        with suppress(*STORAGE_ERRORS):
            self.attempt_dir.write_stage_times(self._stage_times)
        code = self._run_step(step)
        if not code:
            times["took_s"] = self._ran_s - times["began_s"]
            with suppress(*STORAGE_ERRORS):
                self.attempt_dir.write_stage_times(self._stage_times)
        return code

    def _run_step(self, step: Step) -> int:
        inputs = {name: self._input_value(source) for name, source in step.inputs.items()}
        argv = step.argv(inputs, self.spec["root"], self.spec.get("places", ()))
        cache = _StepCache(self.spec["memo"], step.name, argv)
        done = cache.read()
        if done and len(self.steps) > 1:
            self.log.add_line(f"{step.name}: done before: {done}")
            self.made[step.name] = done
            self._stage_times[step.name]["repeated"] = True
            self._deliver_to_mlflow(step, argv)
            return 0
        code = self._run_command(step, argv)
        if not code:
            cache.write(self.made[step.name])
            self._deliver_to_mlflow(step, argv)
        return code

    def _input_value(self, source: StepInput) -> str:
        uri = self.made[source.step]
        return str(Artifact(uri).file(source.file)) if source.file else uri

    def _run_command(self, step: Step, argv: Sequence[str]) -> int:
        words = step.command(argv)
        self.log.add_line("$ " + shlex.join(words if self._is_program else ["python", *words[1:]]))
        cwd = str(step.values.get("cwd") or "") if self._is_program else ""
        try:
            self._command = Child(words, self._environment(step), self.log.add, cwd=cwd, is_program=self._is_program)
        except OSError as error:
            self._outcome = Outcome(CANNOT_START, error="InputError")
            self.log.add_line(f"error: {error.filename or words[0]!r} cannot be started: {error.strerror}")
            return CANNOT_START
        if self._stop.is_set():  # asked for between two steps
            self._command.ask_to_end()
        self._outcome = self._command.wait()
        if not self._outcome.code:
            self.made[step.name] = address_in(self._outcome.result) if self._is_program else self._outcome.result
            self.log.add_line(self.made[step.name])
        if self._outcome.out_of_memory:
            self.log.add_line("killed by the kernel: out of memory")
        return self._outcome.code

    @property
    def _is_program(self) -> bool:
        """Whether this attempt runs an operator's own program."""
        return self.steps[0].name == COMMAND

    def _environment(self, step: Step) -> dict[str, str]:
        """Return the command's environment. Its error is found by how its line begins, so that lines must not begin with a time."""
        inherited = {name: value for name, value in os.environ.items() if name != "ZSBIR_LOG_TIMES"}
        if self._is_program:  # `python` is this project's
            inherited["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)])
        return {**inherited, **self.spec["env"], "ZSBIR_WATCH": join(self.attempt_dir.uri, step.name), "PYTHONUNBUFFERED": "1"}

    def _deliver_to_mlflow(self, step: Step, argv: Sequence[str]) -> None:
        """Run a finished training's command again until MLflow has all of the run. _DeliveryPending where MLflow stays away."""
        if step.name != "train":
            return
        run = open_folder(self.made["train"])
        for _ in range(DELIVERY_TRIES):
            with suppress(*STORAGE_ERRORS):
                if run.size(UNDELIVERED) is None:
                    return
            if self._stop.wait(DELIVERY_PAUSE_S):
                return
            self._run_command(step, argv)
        raise _DeliveryPending("the training is done, and MLflow does not answer: a later attempt delivers it")

    def _end_of_failed(self, step: Step, code: int) -> End:
        """Return the end of an attempt whose step failed, with the command's own error line where it printed one."""
        line = self._last_line()
        if self._is_program and code > 0 and code != CANNOT_START:
            line = f"exit code {code}" if line.startswith("$ ") else f"exit code {code}: {line}"  # it may have printed nothing
        if code < 0:  # Python dies of a SIGINT that comes before its handler is installed
            line = "interrupted" if code == -signal.SIGINT else f"killed by {signal.Signals(-code).name}"
        message = self._in_step(step, line)
        if self._stop.is_set():
            return self._end_of_stopped(message)
        return End(self._cause(step, code), message, made=self.made)

    def _cause(self, step: Step, code: int) -> Cause:
        if self._outcome.out_of_memory:
            return "out_of_memory"
        error = self._outcome.error
        if self._is_program:
            return cause_of_program(code, error)
        if not error:
            with suppress(*STORAGE_ERRORS):
                error = self.attempt_dir.status(step.name)["facts"].get("error", "")
        return cause_of(code, error, self.log.tail())

    def _end_of_declined(self, step: Step) -> End:
        """Return the end of an attempt whose last step has answered no: the question was answered, in the words of its message."""
        message = self._last_line().removeprefix("error: ")
        judged = self.made.get("evaluate") or str(step.values.get("report", ""))
        return End("succeeded", self._in_step(step, message), judged, self.made)

    def _in_step(self, step: Step, line: str) -> str:
        """Return a line as the message of an end: of several steps, which one printed it."""
        return f"{line[:MESSAGE_LENGTH]} (in {step.name})" if len(self.steps) > 1 else line[:MESSAGE_LENGTH]

    def _last_line(self) -> str:
        """Return the command's own error line where it printed one, else the last line of the log."""
        lines = [line for line in self.log.tail().splitlines() if line.strip()]
        return next((line for line in reversed(lines) if line.startswith(("error:", "interrupted:"))), lines[-1] if lines else "")

    def _end_of_stopped(self, message: str) -> End:
        return End(self.stop_reason, message, made=self.made)


class _DeliveryPending(Exception):  # noqa: N818 - it says what MLflow is
    """MLflow stayed away for longer than a cluster's CPUs should be kept for it: a later attempt delivers."""


class _StepCache:
    """The result of a step, kept for later attempts at the same job and for jobs that go on with its work."""

    def __init__(self, uri: str, name: str, argv: Sequence[str]):
        self._folder = open_folder(uri)
        self._key = f"{name}-{hashlib.sha256(json.dumps(list(argv)).encode()).hexdigest()[:16]}"

    def read(self) -> str:
        """Return the URI of what the step made; empty where it was not done or is gone."""
        with suppress(*STORAGE_ERRORS):
            uri = self._folder.read(self._key).decode()
            return uri if exists(uri) or self._key.startswith("pretrain") else ""
        return ""

    def write(self, uri: str) -> None:
        """Keep the URI, where storage answers."""
        with suppress(*STORAGE_ERRORS):
            self._folder.replace(self._key, uri.encode())


def address_in(line: str) -> str:
    """Return the address of an artifact or a model, where the last line of a program's output is one; empty for any other text."""
    if re.fullmatch(r"models:/[\w.-]+[/@][\w.-]+", line):
        return line
    if not (line.startswith("s3://") or Path(line).is_absolute()) or len(line) > LONGEST_ADDRESS or not line.isprintable():
        return ""
    with suppress(*STORAGE_ERRORS, ValueError):
        return line if exists(line) else ""
    return ""


def _retry(action: Callable[[], None], tries: int = 60, pause_s: float = 5.0) -> None:
    """Call an action until storage answers, for five minutes at most: then the dispatcher judges without it."""
    for _ in range(tries):
        try:
            return action()
        except STORAGE_ERRORS:
            time.sleep(pause_s)
    return None


def main(uri: str) -> int:
    """Run the attempt of a folder. Return the exit code for Ray: 0 when the attempt succeeded."""
    attempt_dir = AttemptDir(uri)
    attempt = Attempt(attempt_dir)
    on_signals(lambda _: attempt.request_stop("preempted"))
    if not attempt_dir.claim_start(f"{socket.gethostname()} {os.getpid()}"):
        say("another process has begun this attempt, or it was given up")
        return 1
    watcher = threading.Thread(target=attempt.watch, daemon=True, name="watch")
    watcher.start()
    try:
        end = attempt.run()
    except Exception as error:  # noqa: BLE001 - whatever the error is, the end must be written
        end = End("unknown", f"{type(error).__name__}: {str(error)[:400]}", made=attempt.made)
    attempt.close(end)
    return 0 if end.cause == "succeeded" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
