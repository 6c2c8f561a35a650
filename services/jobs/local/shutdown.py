"""How a service ends: the keeper is asked to, running jobs save a checkpoint, and no process of the service is left."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from services.jobs.local.lock import is_locked, keeper_pid, write_grace_s
from services.jobs.local.ownership import Leader, in_session, kill, of_service
from services.jobs.local.paths import read_state, remove_state
from services.jobs.runs.attempt_dir import AttemptDir
from zsbir.base import events
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import jobs_folder

RUNNER_MODULE = "services.jobs.runs.runner"
KEEPER_END_S = 60
"""Seconds beyond the grace period after which a keeper that does not end is killed."""


def end_keeper(root: str, grace_s: float) -> None:
    """Ask the keeper to end after jobs had `grace_s` seconds for a checkpoint; kill it if it is a minute late.

    RunError where the keeper belongs to another user.
    """
    until, asked = time.monotonic() + grace_s + KEEPER_END_S, 0
    while is_locked(root):
        if keeper := keeper_pid(root):
            if keeper != asked:
                write_grace_s(root, grace_s)
                _signal_keeper(keeper, signal.SIGTERM)
                asked = keeper
            elif time.monotonic() > until:
                _signal_keeper(keeper, signal.SIGKILL)
        time.sleep(0.1)


def end_leftovers(root: str, grace_s: float) -> None:
    """End what a killed keeper left running: the dispatcher, then jobs after their checkpoints, then everything else."""
    state = read_state(root)
    if not state:
        return
    dispatchers = [Leader.of(program) for program in state["programs"] if program["name"] == "dispatcher"]
    kill(lambda: [process for leader in dispatchers for process in in_session(leader, _marker(root))])
    pause_jobs(root, lambda: grace_s)
    kill_service(root)
    shutil.rmtree(state["ray"]["temp"], ignore_errors=True)
    remove_state(root)


def kill_service(root: str) -> None:
    """Kill all processes of the service that `up` has recorded for this root."""
    kill(lambda: _processes(root))


def pause_jobs(root: str, grace_s: Callable[[], float]) -> None:
    """Let running jobs save a checkpoint and end. grace_s: returns the seconds for that, and is asked again and again.

    Storage that refuses does not keep the service from ending.
    """
    if grace_s() <= 0:
        return
    began_s = time.monotonic()
    with suppress(RunError, InputError, OSError):
        attempt_dirs = running_attempts(root)
        for attempt_dir in attempt_dirs:
            attempt_dir.request_stop("preempted")
        if attempt_dirs:
            events.say(f"waiting for {len(attempt_dirs)} running jobs to save a checkpoint; they continue with the next `up`")
        while time.monotonic() - began_s < grace_s() and not all(attempt_dir.read_end() for attempt_dir in attempt_dirs):
            time.sleep(0.5)


def running_attempts(root: str) -> list[AttemptDir]:
    """Return the attempts of this root that processes of its service are running."""
    found = set()
    for process in _processes(root):
        with suppress(psutil.Error):
            words = process.cmdline()
            module = words.index(RUNNER_MODULE) if RUNNER_MODULE in words else len(words)
            found |= {uri for uri in words[module + 1 : module + 2] if uri.startswith(f"{jobs_folder(root)}/")}
    return [
        attempt_dir for attempt_dir in map(AttemptDir, sorted(found)) if attempt_dir.is_claimed() and not attempt_dir.read_end()
    ]


def _signal_keeper(pid: int, number: signal.Signals) -> None:
    try:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    except PermissionError:
        raise RunError(f"this root's service is kept by process {pid} of another user, who alone can end it") from None


def _processes(root: str) -> list[psutil.Process]:
    return of_service(map(Leader.of, read_state(root).get("programs", ())), _marker(root))


def _marker(root: str) -> str:
    """Return the marker of the recorded service; empty where a version without markers has started it."""
    return str(read_state(root).get("marker", ""))
