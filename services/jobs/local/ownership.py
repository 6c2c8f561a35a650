"""Which processes belong to a service: told by what they inherited from it, never by the text of a command line.

Three signs, each of which covers what the others miss:

- The marker: a random text in the environment of every program. Descendants inherit it, so that it also finds those that have a
  session of their own and whose parents are gone, as Ray's job drivers have.
- The session: every program leads one. Ray's agents overwrite their environment when they set their process title, but stay in it.
- Descent: the children of all these.

Processes of other users are never looked at. What cannot be read is left alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from zsbir.base.errors import RunError

MARKER = "ZSBIR_SERVICE_MARKER"
"""The environment variable that holds the marker."""

KILL_S = 10.0
"""Seconds that killed processes may take to disappear."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Leader:
    """The leader of a session, as it was recorded when it was started. start: see `start_of`."""

    pid: int
    start: str

    @classmethod
    def of(cls, program: Mapping[str, Any]) -> Self:
        """Return the leader that an entry of `up.json` names."""
        return cls(int(program["pid"]), str(program.get("start", "")))

    def has_its_number(self) -> bool:
        """Return whether a session of this number can only be the one that was recorded.

        The kernel gives a number to no other process while a session of that number has members. So the session is another one
        only if its leader was started at another time, or if the machine has been booted since.
        """
        if not self.pid or not self.start:
            return False
        start = start_of(self.pid)
        return start == self.start or (not start and self.start.rpartition(" ")[0] == _boot_id())


def marked(marker: str) -> list[psutil.Process]:
    """Return the processes that have the marker in their environment; none for an empty marker."""
    return [process for process in _own_processes() if marker and _marker_of(process) == marker]


def in_session(leader: Leader, marker: str) -> list[psutil.Process]:
    """Return the processes in the session of `leader`, except those with an environment that lacks the marker.

    An empty marker makes no exceptions.
    """
    if not leader.has_its_number():
        return []
    members = [process for process in _own_processes() if _session(process) == leader.pid]
    return [process for process in members if not marker or _marker_of(process) in (marker, None)]


def with_descendants(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return these processes and all of this user that descend from them."""
    found = {process.pid: process for process in processes}
    waiting = list(found)
    children: dict[int, list[psutil.Process]] = {}
    for process in _own_processes():
        with suppress(psutil.Error):
            children.setdefault(process.ppid(), []).append(process)
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child.pid not in found:
                found[child.pid] = child
                waiting.append(child.pid)
    return list(found.values())


def belongs_to_another(leader: Leader) -> bool:
    """Return whether a recorded process is still there, and is another user's."""
    with suppress(psutil.Error):
        return is_process(leader.pid, leader.start) and psutil.Process(leader.pid).uids().real != os.getuid()
    return False


def of_service(leaders: Iterable[Leader], marker: str) -> list[psutil.Process]:
    """Return all processes of a service: by marker, by session, by descent."""
    members = [process for leader in leaders for process in in_session(leader, marker)]
    return with_descendants([*members, *marked(marker)])


def kill(find: Callable[[], Iterable[psutil.Process]]) -> None:
    """Send SIGKILL to what `find` returns, until it returns nothing: a process may have started another one meanwhile.

    RunError with the numbers of what does not end, as a process does not that waits in the kernel for a disk or a device.
    """
    until = time.monotonic() + KILL_S
    while doomed := list(find()):
        if time.monotonic() > until:
            left = ", ".join(str(process.pid) for process in doomed[:10])
            raise RunError(f"these processes do not end, not even killed: {left}; try again when what they wait for is back")
        for process in doomed:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)


def is_process(pid: int, start: str) -> bool:
    """Return whether the process that was started then still lives: its number may belong to another one by now."""
    with suppress(psutil.Error):
        return bool(start) and start_of(pid) == start and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def start_of(pid: int) -> str:
    """Return when a process was started, as this boot's id and clock ticks; empty where there is no such process.

    Setting the clock changes neither. Where there is no /proc, the time of creation stands in.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{_boot_id()} {fields[19]}"
    except (FileNotFoundError, ProcessLookupError):
        pass
    with suppress(psutil.Error):
        return "" if BOOT_ID.exists() else str(psutil.Process(pid).create_time())
    return ""


def _boot_id() -> str:
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""


def _own_processes() -> Iterator[psutil.Process]:
    """Yield the live processes of this user, except this one."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_own = process.pid != os.getpid() and process.uids().real == os.getuid()
            if is_own and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _marker_of(process: psutil.Process) -> str | None:
    """Return the marker in its environment, empty where it has none; None where the environment cannot be read.

    That is so where a process title has overwritten it.
    """
    with suppress(psutil.Error, OSError):
        environment = process.environ()
        return environment.get(MARKER, "") if environment else None
    return None


def _session(process: psutil.Process) -> int:
    with suppress(OSError):
        return os.getsid(process.pid)
    return 0
