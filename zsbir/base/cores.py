"""How many cores this process may use, and how many of them are free.

Two threads that wait for each other on one free core are several times slower than one thread: whoever starts threads asks here.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

LOOK_S = 0.25
"""Seconds for which the load of the machine is watched."""

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def usable_cores() -> int:
    """Return how many cores this process may use: those that it may run on, fewer where its container has a quota; at least 1."""
    allowed = len(_allowed())
    quota = _quota()
    return max(1, min(allowed, int(quota + 0.5))) if quota else allowed


def free_cores() -> int:
    """Return how many of the usable cores other programs leave idle, watched for LOOK_S. At least 1."""
    before, began_s = _busy_s(), time.monotonic()
    own_s = time.process_time()
    time.sleep(LOOK_S)
    after, elapsed_s = _busy_s(), time.monotonic() - began_s
    if before is None or after is None:
        return usable_cores()
    busy = max(0.0, after - before - (time.process_time() - own_s)) / elapsed_s
    return max(1, min(usable_cores(), round(len(_allowed()) - busy)))


def _allowed() -> set[int]:
    """Return the numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _busy_s() -> float | None:
    """Return the seconds that the allowed cores have worked since the machine was started, together; None where nothing tells."""
    names = {f"cpu{number}" for number in _allowed()}
    busy = None
    with suppress(OSError, ValueError):
        for line in (PROC / "stat").read_text("ascii").splitlines():
            name, *fields = line.split()
            if name in names:
                user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
                busy = (busy or 0) + user + nice + system + irq + softirq + steal
    return None if busy is None else busy / os.sysconf("SC_CLK_TCK")


def _quota() -> float | None:
    """Return the cores that the container may use, by version 2 or 1 of Linux's control groups; None where there is no limit."""
    for folder in _cgroup_folders():
        with suppress(OSError, ValueError, ZeroDivisionError):
            limit, period = (folder / "cpu.max").read_text("ascii").split()
            if limit != "max":
                return int(limit) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        limit_us = int((CGROUPS / "cpu" / "cpu.cfs_quota_us").read_text("ascii"))
        return limit_us / int((CGROUPS / "cpu" / "cpu.cfs_period_us").read_text("ascii")) if limit_us > 0 else None
    return None


def _cgroup_folders() -> list[Path]:
    """Return the folder of this process's control group and those above it: any of them may hold the limit."""
    with suppress(OSError):
        for line in (PROC / "self" / "cgroup").read_text("utf-8").splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":
                own = CGROUPS / path.strip("/")
                return [own, *(folder for folder in own.parents if folder.is_relative_to(CGROUPS))]
    return [CGROUPS]
