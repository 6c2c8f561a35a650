"""Machines made of Linux namespaces, on a bridge of their own: booted, unplugged, cut off from the network.

All of them live below one process, the holder: when it is killed, the kernel ends every process of every machine. Nothing on the
host's own network is changed. Root is needed, or a kernel that gives user namespaces to everybody (`unshare -Urnm true` succeeds).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from infra.cluster_in_a_box.machine import HOME

TOOLS = ("ip", "unshare", "nsenter")
BRIDGE = "10.77.0.100"
"""The address of what the machines reach on the bridge beside each other: the store, and the host's servers that were let in."""
WAIT_S = 60.0

# The bridge's own hardware address, or it would take that of a port, and change with each machine that comes and goes.
_HOLD = """
ip link set lo up && ip link add br0 address 02:00:0a:4d:00:64 type bridge && ip addr add {bridge}/24 dev br0 && ip link set br0 up
ip -o link show br0 | grep -q UP && echo ready
exec >&- 2>&- </dev/null
while :; do sleep 999 & wait; done
"""


def reason_why_not() -> str:
    """Return why no machines can be made here; empty where they can."""
    if sys.platform != "linux":
        return "namespaces are a part of Linux"
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"this machine lacks the commands {', '.join(missing)} (iproute2, util-linux)"
    as_root = [] if os.geteuid() == 0 else ["-U", "-r"]
    made = subprocess.run(["unshare", *as_root, "-n", "-m", "-p", "-f", "true"], capture_output=True, text=True, check=False)
    need = "run it as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_*)"
    return f"no namespaces can be made here ({made.stderr.strip()}): {need}" if made.returncode else ""


def is_process(pid: int, began_s: float) -> bool:
    """Return whether the process that was started at this time under this number still runs."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - began_s) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class Holder:
    """The process that holds the bridge's network, and below which all others of the box run."""

    def __init__(self, pid: int, began_s: float):
        self.pid, self.began_s = pid, began_s

    @classmethod
    def start(cls) -> Holder:
        """Start it and make the bridge."""
        as_root = [] if os.geteuid() == 0 else ["-U", "-r"]
        words = ["unshare", *as_root, "-n", "-m", "-p", "-f", "--kill-child", "--mount-proc"]
        pid = _started([*words, "sh", "-c", _HOLD.format(bridge=BRIDGE)], depth=1)
        return cls(pid, psutil.Process(pid).create_time())

    @property
    def alive(self) -> bool:
        """Whether the process that holds the bridge still runs."""
        return is_process(self.pid, self.began_s)

    def end(self) -> None:
        """Kill it, and with it everything in the box."""
        if self.alive:
            psutil.Process(self.pid).kill()
            _until(lambda: not self.alive, "the end of the box")

    def inside(self, words: Sequence[str], *, network: bool = True, processes: bool = True) -> list[str]:
        """Return the words of a command on the bridge's network, or on the host's, among the processes that end with the holder.

        It sees the host's files.
        """
        entered = [*self._user(), *(["-n"] if network else []), *(["-p"] if processes else [])]
        return ["nsenter", "-t", str(self.pid), *entered, *words]

    def boot(self, number: int, *, name: str, address: str, hosts: str, stage: Path, kept: Sequence[Path]) -> int:
        """Start a machine and return the number of its first process, with which it ends.

        hosts: the lines of its /etc/hosts. stage: an empty folder that is used meanwhile. kept: folders that it
        sees although they lie below what it has for itself (`machine.PRIVATE`). OSError where it cannot be started.
        """
        facts = {"name": name, "address": address, "hosts": hosts, "stage": str(stage), "kept": [str(path) for path in kept]}
        first = [sys.executable, "-I", "-S", str(Path(__file__).with_name("machine.py")), json.dumps(facts)]
        new = ["unshare", "-n", "-m", "-u", "-i", "-p", "-f", "--kill-child", "--mount-proc", *first]
        words = ["nsenter", "-t", str(self.pid), *self._user(), "-n", "-m", "-p", *new]
        return _started(words, depth=2, meanwhile=lambda pid: self._plug_in(number, pid))

    def _plug_in(self, number: int, pid: int) -> None:
        port = f"p{number}"
        _until(lambda: not self._ip("link", "show", port), f"the end of the last machine {number}")
        # The same hardware address as the last machine of this name: others would go on sending to that one for a minute.
        hardware = f"02:00:0a:4d:00:{number + 1:02x}"
        made = self._ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "address", hardware, "netns", str(pid))
        made = made and self._ip("link", "set", port, "master", "br0", "up")
        if not made:
            raise OSError(f"machine {number} cannot be connected to the bridge")

    def cut(self, number: int) -> None:
        """Take a machine's network away: what is sent is lost, and nobody is told."""
        self._ip("link", "set", f"p{number}", "down")

    def mend(self, number: int) -> None:
        """Give a machine its network back."""
        self._ip("link", "set", f"p{number}", "up")

    def is_cut(self, number: int) -> bool:
        """Return whether a machine's network was taken away."""
        words = self.inside(["ip", "-o", "link", "show", f"p{number}"], processes=False)
        flags = subprocess.run(words, capture_output=True, text=True, check=False).stdout.partition("<")[2].partition(">")[0]
        return "UP" not in flags.split(",")

    def enter(self, machine: int, words: Sequence[str], environment: Mapping[str, str], folder: str = HOME) -> list[str]:
        """Return the words of a command on a machine, with this environment and no other. machine: its first process."""
        variables = [f"{name}={value}" for name, value in environment.items()]
        within = ["env", "-i", f"--chdir={folder}", *variables, *words]
        return ["nsenter", "-t", str(machine), *self._user(), "-n", "-m", "-u", "-i", "-p", *within]

    def _user(self) -> list[str]:
        return [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]

    def _ip(self, *words: str) -> bool:
        done = subprocess.run(self.inside(["ip", *words], processes=False), capture_output=True, timeout=WAIT_S, check=False)
        return done.returncode == 0


def _started(words: Sequence[str], depth: int, meanwhile: Callable[[int], None] | None = None) -> int:
    """Start a process that says "ready", and return the number of its descendant that does: a child of a child, by `depth`.

    Where it does not, or somebody interrupts, all of them are ended. OSError with what they said.
    """
    process = subprocess.Popen(
        list(words),
        env={"PATH": os.environ.get("PATH", os.defpath)},  # whoever is on the machine can read it
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return _ready(process, depth, meanwhile)
    except BaseException:
        _end(process)
        raise


def _ready(process: subprocess.Popen[bytes], depth: int, meanwhile: Callable[[int], None] | None) -> int:
    found = psutil.Process(process.pid)
    for _ in range(depth):
        _until(partial(_has_child_or_ended, process, found), "the first process of a machine")
        if process.poll() is not None:
            break
        found = found.children()[0]
    if meanwhile and process.poll() is None:
        meanwhile(found.pid)
    assert process.stdout is not None
    said = ""
    while line := process.stdout.readline().decode("utf-8", "replace"):
        if line == "ready\n":
            return found.pid
        said += line
    raise OSError(f"no machine can be made here: {' '.join(said.split()) or 'its first process ended'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that came of it, and wait for their end."""
    below: list[psutil.Process] = []
    with suppress(psutil.Error):
        below = psutil.Process(process.pid).children(recursive=True)
    for each in below:
        with suppress(psutil.Error):
            each.kill()
    process.kill()
    process.wait()
    psutil.wait_procs(below, timeout=WAIT_S)


def _has_child_or_ended(process: subprocess.Popen[bytes], parent: psutil.Process) -> bool:
    return process.poll() is not None or bool(parent.children())


def _until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > end:
            raise OSError(f"{what} did not come within {WAIT_S:g} s")
        time.sleep(0.02)
