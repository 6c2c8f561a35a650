"""A Ray cluster on such machines, with object storage beside them: started, broken and mended, by programs and by people.

What is running is noted in a file, so that each command of a person finds it again.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from infra.cluster_in_a_box import notes
from infra.cluster_in_a_box.interrupts import put_off
from infra.cluster_in_a_box.machine import HOME, PRIVATE
from infra.cluster_in_a_box.namespaces import BRIDGE, Holder, is_process
from infra.cluster_in_a_box.notes import NODES, BoxError, Facts

CHECKOUT = Path(__file__).resolve().parents[2]
BINARIES = Path(sys.executable).parent
GCS, DASHBOARD, S3 = 6379, 8265, 9000
START_S = 900.0
STARTED = "Ray runtime started"
"""What `ray start` says once a node has joined."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NODES_OF_RAY = """
import json, sys
from ray._raylet import GcsClient
found = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20).values()
print(json.dumps({info.node_manager_address: info.state == 0 for info in sorted(found, key=lambda info: info.start_time_ms)}))
"""
_AGENT_PORTS = [
    "--dashboard-agent-listen-port=52365",
    "--dashboard-agent-grpc-port=52366",
    "--runtime-env-agent-port=52367",
    "--metrics-export-port=52368",
]
"""Where a port is not named, a raylet waits for its agent to choose one, and aborts where a busy machine takes too long."""
_KEEP_ON = 'while :; do "$@"; sleep 1; done'
"""Starts Ray again whenever it ends, as a service manager does."""


def name_of(number: int) -> str:
    """Return what a machine is called: "head", "node1"."""
    return f"node{number}" if number else "head"


def address_of(number: int) -> str:
    """Return a machine's network address."""
    return f"10.77.0.{number + 1}"


class Box:
    """Machines 0 (the head, which computes nothing) to `nodes`, with Ray on each, and an S3 server that all of them reach."""

    def __init__(self, folder: Path, facts: Facts):
        self.folder, self.facts = folder, facts
        self.holder = Holder(*facts.holder)

    @classmethod
    def make(cls, folder: Path, nodes: int = 3, cpus: int = 1, store: Mapping[str, str] | None = None) -> Box:
        """Make a box without machines. BoxError where there is one, or where namespaces cannot be had.

        store: the address, `endpoint`, of an S3 server that the host reaches by http://, `key`, `secret` and `bucket`; by default
        one in memory (moto) is started.
        """
        if not 1 <= nodes <= NODES:
            raise BoxError(f"a box has 1 to {NODES} nodes")
        folder = folder.absolute()
        notes.make_folder(folder)
        if (before := notes.read(folder)) and is_process(*before.holder):
            raise BoxError("the box is up already; end it with `down`")
        box = cls(folder, Facts(nodes, cpus, secrets.token_hex(32), dict(store or {})))
        try:
            with put_off():
                box.holder = Holder.start()
                box.facts.holder = (box.holder.pid, box.holder.began_s)
                box._save()  # from here on `down` finds it, whatever happens
            if not store:
                box.facts.store = box._moto()
                box._save()
            box.let_in(S3, box.facts.store["endpoint"].removeprefix("http://").rstrip("/"))
        except BaseException as error:
            box.end()
            if isinstance(error, OSError):
                raise BoxError(str(error)) from None
            raise
        return box

    @classmethod
    def open(cls, folder: Path) -> Box:
        """Return the box that was made in this folder. BoxError where there is none, or where others can have written there."""
        facts = notes.read(folder)
        if facts is None:
            raise BoxError(f"no box is up in {folder}; start one with `up`")
        return cls(folder.absolute(), facts)

    # Machines

    def boot(self, number: int) -> None:
        """Start a machine, empty: what the last one of this name had on its disk is gone.

        BoxError for a machine that runs, or that the box does not have. OSError where the kernel refuses one.
        """
        self._check(number)
        if self.alive(number):
            raise BoxError(f"{name_of(number)} is running")
        names = [f"{address_of(each)} {name_of(each)}" for each in range(self.facts.nodes + 1)]
        hosts = "\n".join(["127.0.0.1 localhost", *names, f"{BRIDGE} store"])
        needed = (CHECKOUT, Path(sys.prefix), Path(sys.base_prefix))
        kept = {path for each in needed for path in (each, each.resolve()) if any(map(path.is_relative_to, PRIVATE))}
        with put_off(), tempfile.TemporaryDirectory(dir=self.folder, prefix="stage") as stage:
            first = self.holder.boot(
                number, name=name_of(number), address=address_of(number), hosts=hosts, stage=Path(stage), kept=sorted(kept)
            )
            self.facts.machines[str(number)] = (first, psutil.Process(first).create_time())
            self._save()
        token = self.disk(number) / HOME[1:] / ".ray" / "auth_token"
        token.parent.mkdir(parents=True)
        token.write_text(self.facts.token, "utf-8")

    def alive(self, number: int) -> bool:
        """Return whether a machine runs."""
        return is_process(*self.facts.machines.get(str(number), (0, 0.0)))

    def first(self, number: int) -> int:
        """Return the first process of a machine that runs, as the host numbers it. BoxError where it does not run."""
        self._check(number)
        if not self.alive(number):
            raise BoxError(f"{name_of(number)} is not running; `start {name_of(number)}` starts it")
        return self.facts.machines[str(number)][0]

    def _check(self, number: int) -> None:
        if not 0 <= number <= self.facts.nodes:
            raise BoxError(f"there is no {name_of(number)}: there are {name_of(0)} and {name_of(1)} to {name_of(self.facts.nodes)}")

    def disk(self, number: int) -> Path:
        """Return where the host sees the root of a machine's files."""
        return Path(f"/proc/{self.first(number)}/root")

    def unplug(self, number: int) -> None:
        """End a machine as a power cut does: every process at once, its disk gone."""
        first = psutil.Process(self.first(number))
        first.kill()
        until = time.monotonic() + START_S
        while self.alive(number) and time.monotonic() < until:
            time.sleep(0.01)

    def cut(self, number: int) -> None:
        """Take a machine's network away."""
        self.first(number)
        self.holder.cut(number)

    def mend(self, number: int) -> None:
        """Give a machine its network back."""
        self.first(number)
        self.holder.mend(number)

    def processes(self, number: int) -> list[psutil.Process]:
        """Return the processes of a machine, as the host sees them."""
        space = Path(f"/proc/{self.first(number)}/ns/pid").readlink()
        found = []
        for process in psutil.process_iter(["cmdline"]):
            with suppress(OSError):
                if Path(f"/proc/{process.pid}/ns/pid").readlink() == space:
                    found.append(process)
        return found

    # Commands

    def environment(self) -> dict[str, str]:
        """Return the environment of every command on a machine. It leads to Ray, to the store and to nothing of the host's user."""
        store = self._store()
        return {
            "HOME": HOME,
            "PATH": f"{BINARIES}{os.pathsep}{SYSTEM_PATH}",
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_ADDRESS": f"{address_of(0)}:{GCS}",
            "RAY_API_SERVER_ADDRESS": f"http://{address_of(0)}:{DASHBOARD}",
            "RAY_memory_monitor_refresh_ms": "0",  # what others use of the host's memory is no reason to kill a worker
            "GLOO_SOCKET_IFNAME": "eth0",
            "ZSBIR_ROOT": f"s3://{store['bucket']}/zsbir",
            **_for_s3(f"http://{BRIDGE}:{S3}", store),
        }

    def store_environment(self) -> dict[str, str]:
        """Return the variables that lead a command of the host to the same store."""
        store = self._store()
        return _for_s3(store["endpoint"], store)

    def _store(self) -> dict[str, str]:
        if not self.facts.store:
            raise BoxError("the box was not made to the end; end it with `down`")
        return self.facts.store

    def command(self, number: int, words: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
        """Return the words of a command that runs on a machine."""
        return self.holder.enter(self.first(number), words, {**self.environment(), **(environment or {})})

    def ask(self, number: int, words: Sequence[str], timeout_s: float = 120.0) -> str:
        """Run a command on a machine and return what it prints. subprocess.SubprocessError where it fails."""
        done = subprocess.run(self.command(number, words), capture_output=True, text=True, timeout=timeout_s, check=True)
        return done.stdout

    # Ray

    def join(self, number: int, environment: Mapping[str, str] | None = None) -> None:
        """Start Ray on a machine and wait until it has joined; it comes again by itself whenever it ends."""
        ray = ["ray", "start", "--block", "--disable-usage-stats", "--temp-dir=/tmp/ray", "--object-store-memory=100000000"]
        own = [f"--node-ip-address={address_of(number)}", *_AGENT_PORTS]
        if number:
            own += [f"--address={address_of(0)}:{GCS}", f"--num-cpus={self.facts.cpus}"]
        else:
            own += ["--head", "--num-cpus=0", f"--port={GCS}", f"--dashboard-port={DASHBOARD}", "--dashboard-host=0.0.0.0"]
        log = self.log(number)
        before = log.read_text("utf-8", "replace").count(STARTED) if log.exists() else 0
        words = [*ray, *own]
        variables = {name: value for name, value in self.environment().items() if name != "RAY_ADDRESS"}
        again = self.holder.enter(self.first(number), ["sh", "-c", _KEEP_ON, "ray", *words], {**variables, **(environment or {})})
        process = self._launch(again, log)
        self._until(lambda: log.read_text("utf-8", "replace").count(STARTED) > before, process, f"Ray of {name_of(number)}", log)
        if not number:
            self._until(self.nodes_of_ray, process, "Ray's head", log)

    def start(self, number: int, environment: Mapping[str, str] | None = None) -> None:
        """Boot a machine, and let it join the cluster. Where it does not, or somebody interrupts, it is unplugged again."""
        self.boot(number)
        try:
            self.join(number, environment)
        except BaseException:
            if self.alive(number):
                self.unplug(number)
            raise

    def nodes_of_ray(self) -> dict[str, bool]:
        """Return the addresses of the nodes that Ray's head knows, and which it holds for alive; empty where it does not answer."""
        with suppress(subprocess.SubprocessError, BoxError):
            return dict(json.loads(self.ask(0, ["python", "-c", _NODES_OF_RAY, f"{address_of(0)}:{GCS}"]).splitlines()[-1]))
        return {}

    def log(self, number: int) -> Path:
        """Return the file of what Ray has said on a machine."""
        return self.folder / f"{name_of(number)}.log"

    # The store, and other doors in the walls

    def let_in(self, port: int, host_address: str) -> None:
        """Let the machines reach a server that listens on the host ("127.0.0.1:5432"), at 10.77.0.100:port."""
        self._forward(f"host-{port}", f"unix:{port}.in", f"tcp:{host_address}", network=False)
        self._forward(str(port), f"tcp:{BRIDGE}:{port}", f"unix:{port}.in", network=True)

    def let_out(self, number: int, port: int, host_port: int) -> None:
        """Let the host reach a server of a machine, at 127.0.0.1:host_port."""
        path = f"{number}-{port}.out"
        self._forward(f"box-{host_port}", f"unix:{path}", f"tcp:{address_of(number)}:{port}", network=True)
        self._forward(f"out-{host_port}", f"tcp:127.0.0.1:{host_port}", f"unix:{path}", network=False)

    def shut(self, port: int) -> None:
        """Let nobody reach 10.77.0.100:port: connections are reset, and new ones refused."""
        for name in (str(port), *((f"host-{port}",) if port != S3 else ())):
            pid, began_s = self.facts.doors.get(name, (0, 0.0))
            if is_process(pid, began_s):
                psutil.Process(pid).kill()

    def s3_down(self) -> None:
        """Let the store be away. It keeps what it holds."""
        self.shut(S3)

    def s3_up(self) -> None:
        """Let the store be there again."""
        if not self.s3_is_up():
            self._forward(str(S3), f"tcp:{BRIDGE}:{S3}", f"unix:{S3}.in", network=True)

    def s3_is_up(self) -> bool:
        """Return whether the machines can reach the store."""
        return is_process(*self.facts.doors.get(str(S3), (0, 0.0)))

    def end(self) -> None:
        """End everything that was started, and forget it. Logs stay."""
        self.holder.end()
        notes.forget(self.folder)

    def _moto(self) -> dict[str, str]:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        words = [str(BINARIES / "python"), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        log = self.folder / "s3.log"
        process = self._launch(self.holder.inside(words, network=False), log)
        store = {"endpoint": f"http://127.0.0.1:{port}", "key": "box", "secret": "box-secret", "bucket": "zsbir"}
        self._until(lambda: _listens(port), process, "the S3 server", log)
        make = "import boto3; boto3.client('s3').create_bucket(Bucket='zsbir')"
        env = {**os.environ, **_for_s3(store["endpoint"], store)}
        done = subprocess.run([sys.executable, "-c", make], env=env, capture_output=True, text=True, timeout=START_S, check=False)
        if done.returncode:
            raise BoxError(f"the S3 server takes no bucket: {' '.join(done.stderr.split())[-500:]}")
        return store

    def _forward(self, name: str, taken: str, made: str, *, network: bool) -> None:
        """Let a process pass connections on. Sockets are named as the folder has them: a whole path may be too long for one."""
        log = self.folder / f"{name}.door.log"
        log.unlink(missing_ok=True)
        words = [sys.executable, str(Path(__file__).with_name("forward.py")), taken, made]
        process = self._launch(self.holder.inside(words, network=network), log)
        self._until(
            lambda: "ready" in log.read_text("utf-8", "replace").splitlines(), process, f"a way from {taken} to {made}", log
        )
        (child,) = process.children()
        self.facts.doors[name] = (child.pid, child.create_time())
        self._save()

    def _launch(self, words: Sequence[str], log: Path) -> psutil.Popen:
        with log.open("ab") as out:
            return psutil.Popen(
                list(words), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=self.folder
            )

    def _until(self, true: Callable[[], object], process: psutil.Popen, what: str, log: Path) -> None:
        """Wait for what a process does. BoxError with the end of its log where it ends before, or takes too long."""
        end = time.monotonic() + START_S
        while not true():
            if process.poll() is not None or time.monotonic() > end or not self.holder.alive:
                raise BoxError(f"{what} did not come: {' '.join(log.read_text('utf-8', 'replace').split())[-500:]}")
            time.sleep(0.2)

    def _save(self) -> None:
        notes.save(self.folder, self.facts)


def _for_s3(endpoint: str, store: Mapping[str, str]) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": store["key"],
        "AWS_SECRET_ACCESS_KEY": store["secret"],
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False
