"""All that one machine needs, kept alive by one process: Ray, MLflow, the dispatcher, the API with its page. `up`, `down`.

What ends by itself is started again, on the same ports; what was started is written down with its start time, so that `down` ends
exactly that, also after the keeper itself was killed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from pydantic import Field

from services.jobs.database import shown as shown_url
from services.jobs.limits import Limits
from services.jobs.place import JOBS, place_of
from services.jobs.programs import Program, Running, await_well, end_all, is_process, python, started_s
from services.jobs.store import open_store
from services.jobs.tokens import Tokens
from services.jobs.whereabouts import PORT, absolute_root, default_store, remember, remembered, state_folder
from zsbir.base import events
from zsbir.base.config import Config
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import default_root, is_remote, join

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TIMES = {"ZSBIR_LOG_TIMES": "1"}
UP_S = 240.0
"""Seconds that all of it may take to come up."""


class UpSettings(Config):
    """What one machine's service is."""

    root: str = Field(default_factory=default_root, description="storage root of all jobs, also ZSBIR_ROOT")
    store: str = Field(
        "", description="job store, sqlite:///file or postgresql://user@host/name; none: a file of the service's own"
    )
    host: str = Field("127.0.0.1", description="where API and page listen; anything but this machine asks for tokens")
    port: int = Field(PORT, ge=0, le=65535, description="their port; 0, or where it is taken: a free one")
    auth: str = Field("", pattern="^(tokens|off|)$", description="tokens or off; none: off on this machine alone, tokens elsewhere")
    running: int = Field(0, ge=0, description="jobs at a time, when the queue is new; 0: as many as CPUs")
    cpus: int = Field(0, ge=0, description="CPUs of the Ray node; 0: all")
    gpus: int = Field(-1, ge=-1, description="GPUs of the Ray node; -1: all")
    places: tuple[str, ...] = Field(
        (), description="more folders and s3:// prefixes that jobs may read; the root, and here, they may"
    )
    patience_s: float = Field(20.0, gt=0, description="seconds of an attempt's silence before it may be lost")
    grace_s: float = Field(120.0, gt=0, description="seconds for a final checkpoint")


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
    """The programs of one machine, and the file that says what they are."""

    def __init__(self, settings: UpSettings):
        self.settings, self.root = settings, settings.root
        self.state = state_folder(self.root)
        self.state.mkdir(parents=True, exist_ok=True)
        self.store_url = settings.store or default_store(self.root)
        self.temp = tempfile.mkdtemp(prefix="zsbir-ray-", dir="/tmp")  # sockets lie there: their paths must be short
        self.tracking_uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        self.cpus = settings.cpus or os.cpu_count() or 1
        self.programs: list[Running] = []
        self.said: dict[str, Any] = {}

    def start(self) -> None:
        self._open_store()
        self._plan()
        self._remember(ready=False)
        dispatcher = [running for running in self.programs if running.program.name == "dispatcher"]
        for group in ([running for running in self.programs if running not in dispatcher], dispatcher):
            for running in group:
                running.start()
                self._remember(ready=False)
            late = await_well(group, UP_S, events.say)
            if late:
                raise RunError(f"{', '.join(late)} did not come up in {UP_S:g} s; see {self.state / 'logs'}")
        self._remember(ready=True)

    def look_after(self) -> None:
        started = [running.program.name for running in self.programs if running.keep()]
        if started:
            self._remember(ready=True)

    def end(self, hurry: threading.Event) -> None:
        """The dispatcher first, so that nothing new begins; then the jobs, as long as they may take; then all else."""
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.temp, ignore_errors=True)
            stack.callback(end_all, (_job_mark(self.root),))
            stack.callback((self.state / "up.json").unlink, missing_ok=True)
            for running in self.programs:
                stack.callback(running.end)
            dispatcher = next((running for running in self.programs if running.program.name == "dispatcher"), None)
            if dispatcher and self.said:
                dispatcher.end()
                with suppress(RunError, InputError, OSError):
                    self._pause_jobs(hurry)

    def _pause_jobs(self, hurry: threading.Event) -> None:
        places = [place_of(self.root, attempt.submission_id) for _, attempt in open_store(self.store_url).live()]
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
        store = open_store(self.store_url)
        running = self.settings.running or self.cpus
        store.set_limits(Limits(running=running, cpus=self.cpus), "up", only_first=True)
        if self._auth() == "tokens" and not Tokens(store).all():
            file = self.state / "operator.token"
            _write_secret(file, Tokens(store).make("operator", "operator", "up"))
            events.say(f"a first token, an operator's, is in {file}")

    def _auth(self) -> str:
        return self.settings.auth or ("off" if self.settings.host in LOOPBACK else "tokens")

    def _plan(self) -> None:
        """The programs, and their ports: chosen once, so that what is started again is found where it was."""
        gcs, client, dashboard, agent, tracking = _free_ports(5)
        port = self.settings.port if _is_free(self.settings.host, self.settings.port) else _free_ports(1)[0]
        token = self.state / "ray.token"
        _write_secret(token, secrets.token_hex(32))
        ray_address = f"http://127.0.0.1:{dashboard}"
        ray_env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_API_SERVER_ADDRESS": ray_address}
        path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        programs = [self._ray(gcs, client, dashboard, agent, {**path, **ray_env, **quiet})]
        if not self.tracking_uri:
            self.tracking_uri = f"http://127.0.0.1:{tracking}"
            programs.append(self._mlflow(tracking, {**path, **quiet}))
        programs += [self._dispatcher(ray_address, ray_env), self._api(port)]
        self.programs = [Running(program) for program in programs]
        self.said = {
            "url": f"http://{self.settings.host}:{port}",
            "root": self.root,
            "store": shown_url(self.store_url),
            "ray": {"address": f"127.0.0.1:{gcs}", "dashboard": ray_address, "token": str(token), "temp": self.temp},
            "mlflow": self.tracking_uri,
            "auth": self._auth(),
        }

    def _log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def _ray(self, gcs: int, client: int, dashboard: int, agent: int, env: dict[str, str]) -> Program:
        words = [_program("ray"), "start", "--head", "--block", "--disable-usage-stats", f"--port={gcs}", f"--temp-dir={self.temp}"]
        words += [f"--ray-client-server-port={client}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        words += [f"--num-cpus={self.cpus}", *([f"--num-gpus={self.settings.gpus}"] if self.settings.gpus >= 0 else [])]
        well = f"http://127.0.0.1:{dashboard}/api/version"
        return Program("ray", words, self._log("ray"), env, f"http://127.0.0.1:{dashboard}", well, marks=(self.temp,))

    def _mlflow(self, port: int, env: dict[str, str]) -> Program:
        """Over the same database, and with artifacts in the same place, as commands without a server use."""
        if is_remote(self.root):
            database, artifacts = self.state / "mlflow.db", ["--artifacts-destination", join(self.root, "mlflow")]
        else:
            database = Path(self.root) / "mlflow.db"
            artifacts = ["--default-artifact-root", (Path(self.root) / "mlflow-artifacts").as_uri(), "--no-serve-artifacts"]
        words = [_program("mlflow"), "server", "--backend-store-uri", f"sqlite:///{database}", *artifacts]
        words += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        address = f"http://127.0.0.1:{port}"
        return Program("mlflow", words, self._log("mlflow"), env, address, f"{address}/health")

    def _dispatcher(self, ray_address: str, env: dict[str, str]) -> Program:
        words = python("services.jobs", "dispatch", f"--root={self.root}", f"--store={self.store_url}", f"--ray={ray_address}")
        words += [
            f"--tracking-uri={self.tracking_uri}",
            f"--patience-s={self.settings.patience_s}",
            f"--grace-s={self.settings.grace_s}",
        ]
        return Program("dispatcher", words, self._log("dispatcher"), {**env, **TIMES})

    def _api(self, port: int) -> Program:
        places = ",".join([str(Path.cwd()), *self.settings.places])
        words = python("services.jobs", "serve", f"--root={self.root}", f"--store={self.store_url}", f"--places={places}")
        words += [f"--host={self.settings.host}", f"--port={port}", f"--auth={self._auth()}", f"--mlflow-url={self.tracking_uri}"]
        address = f"http://{self.settings.host}:{port}"
        return Program("api", words, self._log("api"), {}, address, f"{address}/healthz")

    def _remember(self, *, ready: bool) -> None:
        programs = [
            {"name": each.program.name, "pid": each.pid, "started_s": started_s(each.pid), "address": each.program.address}
            | {"log": str(each.program.log)}
            for each in self.programs
        ]
        keeper = {"pid": os.getpid(), "started_s": started_s(os.getpid())}
        remember(self.root, {**self.said, "keeper": keeper, "programs": programs, "ready": ready})


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


def _program(name: str) -> str:
    """A command of this very environment."""
    return str(Path(sys.executable).parent / name)


def _write_secret(file: Path, text: str) -> None:
    """Readable by its owner alone, from the first byte on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)


def _free_ports(count: int) -> list[int]:
    """Free ports that are none of those which the system gives to outgoing connections, or Ray to its workers (10002-19999)."""
    found: list[int] = []
    order = list(range(20_000, 32_000))
    for port in sorted(order, key=lambda _: secrets.randbits(32)):
        if len(found) == count:
            break
        if _is_free("127.0.0.1", port):
            found.append(port)
    return found


def _is_free(host: str, port: int) -> bool:
    if not port:
        return False
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True
