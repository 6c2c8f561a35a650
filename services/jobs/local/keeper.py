"""`up` and `down`: everything that one machine needs (Ray, MLflow, the dispatcher, the API), kept running by one process.

A program that ends is started again on the same port. Each is recorded in `up.json` with its start time, so that `down` ends
exactly what was started, also after the keeper itself was killed.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from services.common.auth import is_loopback
from services.common.private import open_log, write_private
from services.common.tokens import Tokens
from services.jobs.local.addresses import announce
from services.jobs.local.lock import hold_lock, is_locked, is_ready, read_grace_s
from services.jobs.local.machine import LOG_TIMES, Machine
from services.jobs.local.ownership import MARKER, start_of
from services.jobs.local.paths import absolute_root, make_state_folder, read_state, remove_state, state_folder, write_state
from services.jobs.local.process import Running, await_healthy, python
from services.jobs.local.saved import saved_line
from services.jobs.local.settings import GRACE_S, UpSettings
from services.jobs.local.shutdown import Service, attempts_of, end_keeper, end_leftovers, pause_jobs
from services.jobs.queue.limits import Limits
from services.jobs.queue.store import open_store
from services.jobs.runs.attempt_dir import AttemptDir
from zsbir.base import events
from zsbir.base.errors import InputError, Interrupted, RunError
from zsbir.base.signals import on_signals

UP_S = 240.0
"""Seconds that all programs together may take to come up."""


def up(settings: UpSettings, *, foreground: bool = False) -> str:
    """Start the job service on this machine: Ray, MLflow, the dispatcher, and the API with its page.

    Say what runs where, and give the page's address. A service that is up already stays as it is.
    """
    settings = settings.replace(root=absolute_root(settings.root))
    root = settings.root
    if settings.auth == "off":
        if not is_loopback(settings.host):
            raise InputError(
                f"without tokens, everybody who reaches {settings.host} would be operator; "
                "leave out --auth off, or listen on this machine alone (--host 127.0.0.1)"
            )
        events.warn("without tokens, every user of this machine is operator here: they can run, read and cancel jobs")
    make_state_folder(root)
    log = _log_file(root)
    log_offset = log.stat().st_size if log.exists() else 0
    if is_locked(root):
        events.say("already up" if is_ready(root) else "already coming up")
    elif foreground:
        keep(settings, announced=True)
        return ""
    else:
        _start_keeper(settings, log)
    _follow_start(root, log, log_offset)
    return announce(root)


def down(root: str, *, now: bool, grace_s: float | None = None) -> None:
    """End what `up` has started, and nothing else. Running jobs save a checkpoint first and continue with the next `up`.

    grace_s: seconds for these checkpoints; None for the number that was given to `up`.
    """
    root = absolute_root(root)
    if now:
        grace_s = 0.0
    elif grace_s is None:
        grace_s = float(read_state(root).get("grace_s", GRACE_S))
    if not is_locked(root) and not read_state(root):
        events.say("nothing is up for this root")
        return
    state = read_state(root)
    running = attempts_of(Service.of(root, state)) if state else []
    end_keeper(root, grace_s)
    with hold_lock(root):
        running += end_leftovers(root, grace_s)
    _say_saved(running, root)
    events.say("down; `up` starts it again, with the same addresses")


def _say_saved(attempts: Iterable[AttemptDir], root: str) -> None:
    """Say of each attempt that was running what it has saved."""
    for attempt in {attempt.uri: attempt for attempt in attempts}.values():
        events.say(saved_line(attempt, root))


def keep(settings: UpSettings, *, announced: bool = False) -> None:
    """Start the service, keep it running, and end it on SIGTERM or SIGINT after jobs have saved a checkpoint.

    A second SIGINT ends it without waiting for checkpoints. announced: say what runs where once it is up.
    """
    stop, hurry = threading.Event(), threading.Event()

    def request_stop(number: int) -> None:
        if number == signal.SIGINT and stop.is_set():
            hurry.set()
        stop.set()

    on_signals(request_stop)
    with hold_lock(settings.root):
        _say_saved(end_leftovers(settings.root, settings.grace_s), settings.root)
        service = _Service(settings)
        try:
            service.start(stop)
            if announced and not stop.is_set():
                events.say(announce(settings.root))
            while not stop.wait(0.5):
                try:
                    service.restart_ended()
                except OSError as error:  # a full disk may have room again later; the programs must not end for it
                    events.warn(f"cannot restart or record programs: {error}")
        finally:
            service.end(hurry)


class _Service:
    """The programs of one machine while they run, and `up.json`, which describes them."""

    def __init__(self, settings: UpSettings):
        self.settings, self.root = settings, settings.root
        self.machine = Machine(settings)
        self.programs = [Running(program, self.machine.marker) for program in self.machine.programs]

    def start(self, stop: threading.Event) -> None:
        """Start all programs, the dispatcher last; return early once `stop` is set. RunError for what does not come up."""
        self._open_store()
        self._write_state(ready=False)
        dispatcher = [running for running in self.programs if running.program.name == "dispatcher"]
        for group in ([running for running in self.programs if running not in dispatcher], dispatcher):
            for running in group:
                running.start()
                self._write_state(ready=False)
            late = await_healthy(group, UP_S, events.say, stop)
            if stop.is_set():
                return
            if late:
                raise RunError(f"{', '.join(late)} did not come up in {UP_S:g} s; see {self.machine.state / 'logs'}")
        self._write_state(ready=True)

    def restart_ended(self) -> None:
        """Start programs again that have ended, and record their new process numbers."""
        started = [running.program.name for running in self.programs if running.restart_if_ended()]
        if started:
            self._write_state(ready=True)

    def end(self, hurry: threading.Event) -> None:
        """End the dispatcher, so that no job starts; then the jobs, which have a grace period; then everything else."""
        paused: list[AttemptDir] = []
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.machine.ray_temp, ignore_errors=True)
            stack.callback(self._kill_rest)
            for running in self.programs:
                stack.callback(running.end)
            dispatcher = next((running for running in self.programs if running.program.name == "dispatcher"), None)
            if dispatcher and dispatcher.process:
                dispatcher.end()
                paused = pause_jobs(
                    self._service, lambda: 0.0 if hurry.is_set() else read_grace_s(self.root, self.settings.grace_s)
                )
        _say_saved(paused, self.root)

    @property
    def _service(self) -> Service:
        """Its processes, as this process knows them: `up.json` may have been removed or damaged meanwhile."""
        return Service(self.root, [running.leader for running in self.programs], self.machine.marker)

    def _kill_rest(self) -> None:
        """Kill what is left, and forget the service; what does not end stays recorded for the next `down`."""
        self._service.kill()
        remove_state(self.root)

    def _open_store(self) -> None:
        store = open_store(self.machine.store_url)
        running = self.settings.running or self.machine.cpus
        store.set_limits(Limits(running=running, cpus=self.machine.cpus), "up", only_first=True)
        if self.machine.auth == "tokens":
            _keep_owner_token(self.machine.owner_token, Tokens(store))

    def _write_state(self, *, ready: bool) -> None:
        programs = [
            {"name": each.program.name, "pid": each.leader.pid, "start": each.leader.start, "address": each.program.address}
            | {"log": str(each.program.log)}
            for each in self.programs
        ]
        keeper = {"pid": os.getpid(), "start": start_of(os.getpid())}
        write_state(self.root, {**self.machine.summary, "keeper": keeper, "programs": programs, "ready": ready})


def _keep_owner_token(file: Path, tokens: Tokens) -> None:
    """Make sure that a file holds a valid token of the user who starts the service, by which their commands are known.

    Its name is that of the one user of a service without tokens: earlier jobs stay theirs.
    """
    text = file.read_text("utf-8").strip() if file.exists() else ""
    if not text or tokens.bearer(text) is None:
        write_private(file, tokens.make("local", "operator", "up"))


def _start_keeper(settings: UpSettings, log: Path) -> None:
    """Start the keeper in the background.

    The job store's URL is passed in the environment: it may hold a password, and every user of the machine can read arguments.
    """
    inherited = {name: value for name, value in os.environ.items() if name != MARKER}  # of a service that this shell is a job of
    env = {**inherited, **LOG_TIMES, **({"ZSBIR_JOBS_STORE": settings.store} if settings.store else {})}
    command = python("services.jobs", "keep", f"--settings={settings.replace(store='').model_dump_json()}")
    with open_log(log) as file:
        keeper = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    while not is_locked(settings.root) and keeper.poll() is None:
        time.sleep(0.05)


def _follow_start(root: str, log: Path, log_offset: int) -> None:
    """Repeat the keeper's log lines until everything is up. RunError with the last line where it gives up.

    log_offset: size in bytes that its log had before the start.
    """
    last = "the keeper ended without a message"
    try:
        with log.open("r", encoding="utf-8", errors="replace") if log.exists() else io.StringIO() as lines:
            lines.seek(log_offset)
            while not is_ready(root):
                ended = not is_locked(root)
                while line := lines.readline():
                    last = line.rstrip().split(" ", 2)[-1]  # without its time
                    events.say(last)
                if ended:
                    raise RunError(f"the service did not come up: {last}; see {log.parent}")
                time.sleep(0.2)
    except KeyboardInterrupt:
        raise Interrupted("the service continues to start; end it with: python -m services.jobs down") from None


def _log_file(root: str) -> Path:
    return state_folder(root) / "logs" / "keeper.log"
