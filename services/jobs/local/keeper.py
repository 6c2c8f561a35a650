"""All that one machine needs, kept alive by one process: Ray, MLflow, the dispatcher, the API with its page. `up`, `down`.

What ends by itself is started again, on the same ports; what was started is written down with its start time, so that `down` ends
exactly that, also after the keeper itself was killed.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from services.common.auth import is_loopback
from services.jobs.local.machine import TIMES, Machine, UpSettings, write_secret
from services.jobs.local.paths import absolute_root, remember, remembered, state_folder
from services.jobs.local.process import Running, await_well, end_all, is_process, python, start_of
from services.jobs.queue.limits import Limits
from services.jobs.queue.store import open_store
from services.jobs.queue.tokens import Tokens
from services.jobs.runs.attempt_dir import AttemptDir
from zsbir.base import events
from zsbir.base.errors import InputError, Interrupted, RunError
from zsbir.base.files import write_atomic
from zsbir.base.layout import jobs_folder

WORK = "services.jobs.runs.runner"
GRACE_S = 120.0
UP_S = 240.0
"""Seconds that all of it may take to come up."""


def up(settings: UpSettings, *, foreground: bool = False) -> str:
    """Start it, and say what runs where; the address. What is up already stays as it is."""
    settings = settings.replace(root=absolute_root(settings.root))
    root = settings.root
    if settings.auth == "off" and not is_loopback(settings.host):
        raise InputError(f"everybody who reaches {settings.host} would be operator: without tokens, --host is this machine alone")
    log = _log_file(root)
    said_before = log.stat().st_size if log.exists() else 0
    if _is_kept(root):
        events.say("already up" if _is_ready(root) else "already coming up")
    elif foreground:
        keep(settings, told=True)
        return ""
    else:
        _start_keeper(settings, log)
    _follow_start(root, log, said_before)
    return _told(root)


def down(root: str, *, now: bool, grace_s: float | None = None) -> None:
    """End what `up` has started, and nothing else. Running jobs save a checkpoint first, and go on with the next `up`.

    grace_s: seconds for that; None: as `up` was told.
    """
    root = absolute_root(root)
    grace_s = 0.0 if now else remembered(root).get("grace_s", GRACE_S) if grace_s is None else grace_s
    if not _is_kept(root) and not remembered(root):
        events.say("nothing is up for this root")
        return
    _end_keeper(root, grace_s)
    with _kept(root):
        _end_left_behind(root, grace_s)
    events.say("down")


def keep(settings: UpSettings, *, told: bool = False) -> None:
    """The keeper: start everything, keep it alive, end it when asked to: with checkpoints, and by a second Ctrl-C without."""
    stop, hurry = threading.Event(), threading.Event()

    def ask(number: int, _frame: object) -> None:
        if number == signal.SIGINT and stop.is_set():
            hurry.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    with _kept(settings.root):
        _end_left_behind(settings.root, settings.grace_s)
        service = _Service(settings)
        try:
            service.start(stop)
            if told and not stop.is_set():
                events.say(_told(settings.root))
            while not stop.wait(0.5):
                try:
                    service.look_after()
                except OSError as error:  # a full disk passes; what runs must not end for it
                    events.warn(f"cannot look after what runs: {error}")
        finally:
            service.end(hurry)


class _Service:
    """The programs of one machine while they run, and the file that says what they are."""

    def __init__(self, settings: UpSettings):
        self.settings, self.root = settings, settings.root
        self.machine = Machine(settings)
        self.programs = [Running(program) for program in self.machine.programs]

    def start(self, stop: threading.Event) -> None:
        """All of it, unless it is asked to stop meanwhile."""
        self._open_store()
        self._remember(ready=False)
        dispatcher = [running for running in self.programs if running.program.name == "dispatcher"]
        for group in ([running for running in self.programs if running not in dispatcher], dispatcher):
            for running in group:
                running.start()
                self._remember(ready=False)
            late = await_well(group, UP_S, events.say, stop)
            if stop.is_set():
                return
            if late:
                raise RunError(f"{', '.join(late)} did not come up in {UP_S:g} s; see {self.machine.state / 'logs'}")
        self._remember(ready=True)

    def look_after(self) -> None:
        started = [running.program.name for running in self.programs if running.keep()]
        if started:
            self._remember(ready=True)

    def end(self, hurry: threading.Event) -> None:
        """The dispatcher first, so that nothing new begins; then the jobs, as long as they may take; then all else."""
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.machine.temp, ignore_errors=True)
            stack.callback(end_all, (_job_mark(self.root),))
            stack.callback((self.machine.state / "up.json").unlink, missing_ok=True)
            for running in self.programs:
                stack.callback(running.end)
            dispatcher = next((running for running in self.programs if running.program.name == "dispatcher"), None)
            if dispatcher and dispatcher.process:
                dispatcher.end()
                _pause_jobs(self.root, lambda: 0.0 if hurry.is_set() else _asked_grace_s(self.root, self.settings.grace_s))

    def _open_store(self) -> None:
        store = open_store(self.machine.store_url)
        running = self.settings.running or self.machine.cpus
        store.set_limits(Limits(running=running, cpus=self.machine.cpus), "up", only_first=True)
        if self.machine.auth == "tokens" and not Tokens(store).all():
            file = self.machine.state / "operator.token"
            write_secret(file, Tokens(store).make("operator", "operator", "up"))
            events.say(f"a first token, an operator's, is in {file}")

    def _remember(self, *, ready: bool) -> None:
        programs = [
            {"name": each.program.name, "pid": each.pid, "start": start_of(each.pid), "address": each.program.address}
            | {"log": str(each.program.log)}
            for each in self.programs
        ]
        keeper = {"pid": os.getpid(), "start": start_of(os.getpid())}
        remember(self.root, {**self.machine.said, "keeper": keeper, "programs": programs, "ready": ready})


def _start_keeper(settings: UpSettings, log: Path) -> None:
    """In the background. The store's URL is no argument: everybody may read those, and it may hold a password."""
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, **TIMES, **({"ZSBIR_JOBS_STORE": settings.store} if settings.store else {})}
    words = python("services.jobs", "keep", f"--settings={settings.replace(store='').model_dump_json()}")
    with log.open("ab") as file:
        keeper = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    while not _is_kept(settings.root) and keeper.poll() is None:
        time.sleep(0.05)


def _follow_start(root: str, log: Path, said_before: int) -> None:
    """Say what the keeper says, until all is up. RunError with its last line where it gives up. said_before: bytes of its log."""
    last = "it ended without a word"
    try:
        with log.open("r", encoding="utf-8", errors="replace") if log.exists() else io.StringIO() as lines:
            lines.seek(said_before)
            while not _is_ready(root):
                ended = not _is_kept(root)
                while line := lines.readline():
                    last = line.rstrip().split(" ", 2)[-1]  # without its time
                    events.say(last)
                if ended:
                    raise RunError(f"the service did not come up: {last}; see {log.parent}")
                time.sleep(0.2)
    except KeyboardInterrupt:
        raise Interrupted("it goes on coming up; python -m services.jobs down ends it") from None


def _told(root: str) -> str:
    said = remembered(root)
    for program in said["programs"]:
        events.say(f"{program['name']:<12}{program['address'] or '-':<26}pid {program['pid']:<9}{program['log']}")
    events.say(f"{'storage':<12}{root}")
    events.say(f"{'job store':<12}{said['store']}")
    if said.get("elsewhere"):
        events.say(f"{'for others':<12}{said['elsewhere']}")
    if said["auth"] == "tokens":
        events.say(f"{'auth':<12}tokens: python -m services.jobs tokens make NAME --role submitter")
    ray = said["ray"]
    events.say(
        "ray job submit beside it:  "
        f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={ray['token']} RAY_API_SERVER_ADDRESS={ray['dashboard']}"
    )
    return str(said["url"])


# --- who keeps it


@contextmanager
def _kept(root: str) -> Iterator[None]:
    """Hold the lock that says: this root's service has a keeper; the file has his number. RunError where there is one already."""
    state_folder(root).mkdir(parents=True, exist_ok=True)
    with _lock_file(root).open("a+") as file:
        for pause_s in (0.1, 0.2, 0.5, None):  # who only looks whether it is held, holds it for a moment
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if pause_s is None:
                    raise RunError("this root's service is kept by another process") from None
                time.sleep(pause_s)
        file.truncate(0)
        file.write(f"{os.getpid()} {start_of(os.getpid())}")
        file.flush()
        _grace_file(root).unlink(missing_ok=True)
        yield


def _is_kept(root: str) -> bool:
    """Whether somebody holds it: the kernel gives it back with the death of who does."""
    try:
        with _lock_file(root).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _keeper(root: str) -> int:
    """The number of who holds it; 0 where he has not said yet: what is written there may be an earlier one's."""
    with suppress(FileNotFoundError, ValueError):
        pid, _, start = _lock_file(root).read_text().partition(" ")
        return int(pid) if is_process(int(pid), start) else 0
    return 0


def _is_ready(root: str) -> bool:
    """Whether all is up that the one who keeps it now has started."""
    said = remembered(root)
    return bool(said.get("ready")) and said["keeper"]["pid"] == _keeper(root) and _is_kept(root)


def _end_keeper(root: str, grace_s: float) -> None:
    """Ask whoever keeps it to end, and let jobs save a checkpoint before; who does not listen is killed a minute later."""
    until, asked = time.monotonic() + grace_s + 60, 0
    while _is_kept(root):
        if keeper := _keeper(root):
            with suppress(ProcessLookupError):
                if keeper != asked:
                    write_atomic(_grace_file(root), str(grace_s).encode())
                    os.kill(keeper, signal.SIGTERM)
                    asked = keeper
                elif time.monotonic() > until:
                    os.kill(keeper, signal.SIGKILL)
        time.sleep(0.1)


def _lock_file(root: str) -> Path:
    return state_folder(root) / "keeper.lock"


def _grace_file(root: str) -> Path:
    """Where `down` says how long jobs may take to save a checkpoint; also when it has thought better of it."""
    return state_folder(root) / "grace_s"


def _asked_grace_s(root: str, otherwise_s: float) -> float:
    with suppress(OSError, ValueError):
        return float(_grace_file(root).read_text())
    return otherwise_s


def _log_file(root: str) -> Path:
    return state_folder(root) / "logs" / "keeper.log"


# --- how it ends


def _pause_jobs(root: str, grace_s: Callable[[], float]) -> None:
    """Running jobs save a checkpoint. grace_s: seconds for that, asked again and again. What storage refuses is let be."""
    if grace_s() <= 0:
        return
    began_s = time.monotonic()
    with suppress(RunError, InputError, OSError):
        attempt_dirs = _at_work(root)
        for attempt_dir in attempt_dirs:
            attempt_dir.ask_stop("preempted")
        if attempt_dirs:
            events.say(f"{len(attempt_dirs)} running jobs save a checkpoint; they go on when the service is up again")
        while time.monotonic() - began_s < grace_s() and not all(attempt_dir.ended() for attempt_dir in attempt_dirs):
            time.sleep(0.5)


def _at_work(root: str) -> list[AttemptDir]:
    """The attempts that processes of this machine work at."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        module = words.index(WORK) if WORK in words else len(words)
        found |= {uri for uri in words[module + 1 : module + 2] if uri.startswith(f"{jobs_folder(root)}/")}
    return [attempt_dir for attempt_dir in map(AttemptDir, sorted(found)) if attempt_dir.began() and not attempt_dir.ended()]


def _end_left_behind(root: str, grace_s: float) -> None:
    """What a killed keeper left running: the dispatcher; jobs, after their checkpoints; then all else, Ray by its own folder."""
    said = remembered(root)
    if not said:
        return
    programs = {program["name"]: program for program in said["programs"]}
    if "dispatcher" in programs:
        _kill(programs.pop("dispatcher"))
    _pause_jobs(root, lambda: grace_s)
    for program in programs.values():
        _kill(program)
    end_all((said["ray"]["temp"], _job_mark(root)))
    shutil.rmtree(said["ray"]["temp"], ignore_errors=True)
    (state_folder(root) / "up.json").unlink(missing_ok=True)


def _kill(program: Mapping[str, Any]) -> None:
    """One that was remembered, if it is still that one."""
    if program["pid"] and is_process(program["pid"], program.get("start", "")):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(program["pid"], signal.SIGKILL)


def _job_mark(root: str) -> str:
    """What stands in the command line of every attempt of this root."""
    return f"{WORK} {jobs_folder(root)}/"
