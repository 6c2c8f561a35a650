"""All that one machine needs, kept alive by one process: Ray, MLflow, the dispatcher, the API with its page. `up`, `down`.

What ends by itself is started again, on the same ports; what was started is written down with its start time, so that `down` ends
exactly that, also after the keeper itself was killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from services.jobs.limits import Limits
from services.jobs.machine import TIMES, Machine, UpSettings, write_secret
from services.jobs.place import JOBS, place_of
from services.jobs.programs import Running, await_well, end_all, is_process, python, started_s
from services.jobs.store import open_store
from services.jobs.tokens import Tokens
from services.jobs.whereabouts import absolute_root, remember, remembered, state_folder
from zsbir.base import events
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import join

UP_S = 240.0
"""Seconds that all of it may take to come up."""


def up(settings: UpSettings, *, foreground: bool = False) -> str:
    """Start it, and say what runs where; the address. What is up already stays as it is."""
    settings = settings.replace(root=absolute_root(settings.root))
    root = settings.root
    if _keeper_lives(remembered(root)):
        events.say("already up")
        return _told(root)
    _end_left_behind(root)
    if foreground:
        keep(settings)
        return ""
    log = state_folder(root) / "logs" / "keeper.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        words = python("services.jobs", "keep", f"--settings={settings.model_dump_json()}")
        keeper = subprocess.Popen(
            words, env=os.environ | TIMES, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    _follow_start(root, keeper, log)
    return _told(root)


def down(root: str, *, now: bool, grace_s: float) -> None:
    """End what `up` has started, and nothing else. Running jobs save a checkpoint first, and go on with the next `up`."""
    root = absolute_root(root)
    said = remembered(root)
    if not said:
        events.say("nothing is up for this root")
        return
    pid, begun_s = said["keeper"]["pid"], said["keeper"]["started_s"]
    if is_process(pid, begun_s):
        os.kill(pid, signal.SIGINT if now else signal.SIGTERM)
        until = time.monotonic() + grace_s + 60
        while is_process(pid, begun_s):
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
    _end_left_behind(root)
    events.say("down")


def keep(settings: UpSettings) -> None:
    """The keeper: start everything, keep it alive, end it when asked to (SIGTERM: with checkpoints; SIGINT: at once)."""
    stop, hurry = threading.Event(), threading.Event()

    def ask(number: int, _frame: object) -> None:
        if number == signal.SIGINT or stop.is_set():
            hurry.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    service = _Service(settings)
    try:
        service.start()
        while not stop.wait(0.5):
            service.look_after()
    finally:
        service.end(hurry)


class _Service:
    """The programs of one machine while they run, and the file that says what they are."""

    def __init__(self, settings: UpSettings):
        self.settings, self.root = settings, settings.root
        self.machine = Machine(settings)
        self.programs = [Running(program) for program in self.machine.programs]

    def start(self) -> None:
        self._open_store()
        self._remember(ready=False)
        dispatcher = [running for running in self.programs if running.program.name == "dispatcher"]
        for group in ([running for running in self.programs if running not in dispatcher], dispatcher):
            for running in group:
                running.start()
                self._remember(ready=False)
            late = await_well(group, UP_S, events.say)
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
                with suppress(RunError, InputError, OSError):
                    self._pause_jobs(hurry)

    def _pause_jobs(self, hurry: threading.Event) -> None:
        places = [place_of(self.root, attempt.submission_id) for _, attempt in open_store(self.machine.store_url).live()]
        begun = [place for place in places if place.began()]
        if not begun or hurry.is_set():
            return
        events.say(f"{len(begun)} running jobs save a checkpoint; they go on when the service is up again")
        for place in begun:
            place.ask_stop("preempted")
        until = time.monotonic() + self.settings.grace_s
        while time.monotonic() < until and not hurry.wait(0.5) and not all(place.ended() for place in begun):
            continue

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
            {"name": each.program.name, "pid": each.pid, "started_s": started_s(each.pid), "address": each.program.address}
            | {"log": str(each.program.log)}
            for each in self.programs
        ]
        keeper = {"pid": os.getpid(), "started_s": started_s(os.getpid())}
        remember(self.root, {**self.machine.said, "keeper": keeper, "programs": programs, "ready": ready})


def _follow_start(root: str, keeper: subprocess.Popen[bytes], log: Path) -> None:
    """Say what the keeper says, until all is up. RunError with its last line where it gives up."""
    with log.open("r", encoding="utf-8", errors="replace") as lines:
        lines.seek(0, os.SEEK_END)
        while True:
            line = lines.readline()
            if line:
                events.say(line.rstrip().split(" ", 2)[-1])  # without its time
                continue
            said = remembered(root)
            if said.get("ready") and said["keeper"]["pid"] == keeper.pid:
                return
            if keeper.poll() is not None:
                rest = lines.read().strip() or "it ended without a word"
                raise RunError(f"the service did not come up: {rest.splitlines()[-1]}; see {log.parent}")
            time.sleep(0.2)


def _told(root: str) -> str:
    said = remembered(root)
    for program in said["programs"]:
        events.say(f"{program['name']:<12}{program['address'] or '-':<26}pid {program['pid']:<9}{program['log']}")
    events.say(f"{'storage':<12}{root}")
    events.say(f"{'job store':<12}{said['store']}")
    if said["auth"] == "tokens":
        events.say(f"{'auth':<12}tokens: python -m services.jobs tokens make NAME --role submitter")
    ray = said["ray"]
    events.say(
        "ray job submit beside it:  "
        f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={ray['token']} RAY_API_SERVER_ADDRESS={ray['dashboard']}"
    )
    return str(said["url"])


def _keeper_lives(said: dict[str, Any]) -> bool:
    return bool(said) and is_process(said["keeper"]["pid"], said["keeper"]["started_s"])


def _end_left_behind(root: str) -> None:
    """What a killed keeper left running: its programs by number and start time, Ray by its own folder."""
    said = remembered(root)
    for program in said.get("programs", []):
        if program["pid"] and is_process(program["pid"], program["started_s"]):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(program["pid"], signal.SIGKILL)
    if said:
        end_all((said["ray"]["temp"], _job_mark(root)))
        shutil.rmtree(said["ray"]["temp"], ignore_errors=True)
        (state_folder(root) / "up.json").unlink(missing_ok=True)


def _job_mark(root: str) -> str:
    """What stands in the command line of every attempt of this root."""
    return f"services.jobs.work {join(root, JOBS)}/"
