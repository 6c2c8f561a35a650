"""Ray clusters of several nodes for tests: raylets side by side on this machine, or each in a network namespace of its own.

A node is killed with SIGKILL, raylet and workers at once, as by a power cut. In namespaces it can also lose its network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from servers.processes import HOST, free_ports

START_S = 300
STARTED = "Ray runtime started"
"""What `ray start` says once a node has joined."""
BINARIES = Path(sys.executable).parent


class Nodes:
    """A cluster. Node 0 is its head, which has no CPUs. environment: what commands need to join it."""

    def __init__(self, folder: Path, network: Network | None = None):
        self._folder, self._network = folder, network
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._gcs, self._dashboard, self._client, self._agent = free_ports(4)
        self.address = f"{self._ip(0)}:{self._gcs}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        self.environment = {
            **clean,
            "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
            "RAY_memory_monitor_refresh_ms": "0",  # what others use of this machine's memory is no reason to kill a worker
            "GLOO_SOCKET_IFNAME": "eth0" if network else "lo",
        }

    def command(self, words: list[str], at: int = 0) -> list[str]:
        """Return the words of a command that runs on a node's network."""
        return self._network.command(words, at) if self._network else words

    def driver(self) -> dict[str, str]:
        """Return the environment of a command that joins the cluster."""
        return self.environment | {"RAY_ADDRESS": self.address}

    def start(self, number: int, cpus: int = 1, **environment: str) -> None:
        """Start a node, which comes again by itself whenever Ray ends it, as under a service manager."""
        ray = [str(BINARIES / "ray"), "start", "--block", f"--address={self.address}", f"--num-cpus={cpus}", *self._common(number)]
        again = ["sh", "-c", 'while :; do "$@"; sleep 1; done', "node", *ray]
        log = self._folder / f"{number}.log"
        before = log.read_text("utf-8").count(STARTED) if log.exists() else 0
        self._run(number, again, environment)
        until = time.monotonic() + START_S
        while log.read_text("utf-8").count(STARTED) <= before:
            assert time.monotonic() < until, f"a node did not join: {log.read_text('utf-8')[-1000:]}"
            time.sleep(0.5)

    def kill(self, number: int) -> None:
        """SIGKILL everything on a node at once."""
        process = self._processes.pop(number)
        doomed = [psutil.Process(process.pid)]
        doomed += doomed[0].children(recursive=True)
        doomed += [
            each for each in psutil.process_iter() if each.pid not in {one.pid for one in doomed} and self._is_of(each, number)
        ]
        for each in doomed:
            with suppress(psutil.Error):
                each.kill()
        process.wait()

    def workers(self, number: int) -> list[psutil.Process]:
        """Return the workers of a training on a node."""
        return [each for each in psutil.process_iter(["cmdline"]) if self._is_of(each, number) and "RayTrainWorker" in _words(each)]

    def alive(self) -> int:
        """Return the number of nodes that Ray holds for alive, the head included."""
        script = (
            "import sys; from ray._raylet import GcsClient; "
            "print(sum(info.state == 0 for info in GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20).values()))"
        )
        words = self.command([sys.executable, "-c", script, self.address])
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=120, check=True)
        return int(done.stdout.split()[-1])

    def until_alive(self, count: int) -> None:
        """Wait until Ray holds so many nodes for alive, the head included; it notices a death after some seconds."""
        until = time.monotonic() + START_S
        while (found := self.alive()) != count:
            assert time.monotonic() < until, f"{found} nodes are alive instead of {count}"
            time.sleep(0.5)

    def end(self) -> None:
        """Kill all nodes."""
        for number in list(self._processes):
            self.kill(number)

    def start_head(self) -> None:
        """Start the head and wait until it answers."""
        ports = [f"--port={self._gcs}", f"--dashboard-port={self._dashboard}", f"--ray-client-server-port={self._client}"]
        ports += [f"--dashboard-agent-listen-port={self._agent}", f"--dashboard-host={self._ip(0)}"]
        self._run(0, [str(BINARIES / "ray"), "start", "--head", "--block", "--num-cpus=0", *ports, *self._common(0)], {})
        until = time.monotonic() + START_S
        while True:
            with suppress(subprocess.SubprocessError):
                if self.alive():
                    return
            assert time.monotonic() < until, (self._folder / "0.log").read_text("utf-8")[-2000:]
            time.sleep(0.5)

    def _run(self, number: int, words: list[str], environment: Mapping[str, str]) -> None:
        with (self._folder / f"{number}.log").open("ab") as log:
            # The marker in its environment names a node's processes, which Ray puts into sessions of their own.
            env = self.environment | environment | {"ZSBIR_TEST_NODE": self._marker(number)}
            self._processes[number] = subprocess.Popen(
                self.command(words, number), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _common(self, number: int) -> list[str]:
        temp = f"{self._folder}/{number}"
        return [
            "--disable-usage-stats",
            f"--node-ip-address={self._ip(number)}",
            f"--temp-dir={temp}",
            "--object-store-memory=100000000",
        ]

    def _ip(self, number: int) -> str:
        return self._network.ip(number) if self._network else HOST

    def _marker(self, number: int) -> str:
        return f"{self._folder}:{number}"

    def _is_of(self, process: psutil.Process, number: int) -> bool:
        with suppress(psutil.Error, OSError):
            if process.environ().get("ZSBIR_TEST_NODE") == self._marker(number):
                return True
            # Ray writes its titles over the environment of some processes; their raylet's command line names its folder.
            return any(f"{self._folder}/{number}/" in " ".join(parent.cmdline()) for parent in process.parents())
        return False


class Network:
    """A bridge with a network namespace for each node. Needs root."""

    def __init__(self, nodes: int):
        self._name = f"zr{os.getpid()}"
        self._nodes = nodes
        self._bridge = f"{self._name}-b"
        self._ip_command("netns", "add", self._bridge)
        self._ip_command("-n", self._bridge, "link", "add", "br0", "type", "bridge")
        self._ip_command("-n", self._bridge, "link", "set", "br0", "up")
        for number in range(nodes):
            space, port = self._space(number), f"p{number}"
            self._ip_command("netns", "add", space)
            self._ip_command("-n", self._bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            self._ip_command("-n", self._bridge, "link", "set", port, "master", "br0", "up")
            self._ip_command("-n", space, "addr", "add", f"{self.ip(number)}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                self._ip_command("-n", space, "link", "set", link, "up")

    @staticmethod
    def reason_why_not() -> str:
        """Return why this machine can build none; empty where it can."""
        if not shutil.which("ip"):
            return "there is no command `ip` (iproute2)"
        if os.geteuid():
            return "network namespaces need root"
        name = f"zrt{os.getpid()}"
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        return f"no network namespaces here: {made.stderr.strip()}" if made.returncode else ""

    def ip(self, number: int) -> str:
        """Return the address of a node."""
        return f"10.77.0.{number + 1}"

    def command(self, words: list[str], number: int) -> list[str]:
        """Return the words of a command that runs on a node, under a host name of its own."""
        named = ["unshare", "--uts", "sh", "-c", f'hostname node{number}; exec "$@"', "sh", *words]
        return ["ip", "netns", "exec", self._space(number), *named]

    def cut(self, number: int) -> None:
        """Take a node's network away."""
        self._ip_command("-n", self._bridge, "link", "set", f"p{number}", "down")

    def mend(self, number: int) -> None:
        """Give a node its network back."""
        self._ip_command("-n", self._bridge, "link", "set", f"p{number}", "up")

    def remove(self) -> None:
        """Remove the namespaces and all links in them."""
        for space in (*map(self._space, range(self._nodes)), self._bridge):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)

    def _space(self, number: int) -> str:
        return f"{self._name}-{number}"

    @staticmethod
    def _ip_command(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


@contextmanager
def ray_nodes(network: Network | None = None) -> Iterator[Nodes]:
    """Start a cluster's head, and end everything afterwards."""
    with tempfile.TemporaryDirectory(prefix="zn", dir="/tmp", ignore_cleanup_errors=True) as folder:
        nodes = Nodes(Path(folder), network)
        try:
            nodes.start_head()
            yield nodes
        finally:
            nodes.end()


def _words(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or [])
