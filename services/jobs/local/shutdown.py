"""How a service ends: the keeper is asked to, running jobs save a checkpoint, and no process of the service is left."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import psutil

from services.jobs.local.lock import is_locked, keeper_pid, write_grace_s
from services.jobs.local.ownership import Leader, belongs_to_another, in_session, kill, of_service
from services.jobs.local.paths import read_state, remove_state
from services.jobs.runs.attempt_dir import AttemptDir
from zsbir.base import events
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import jobs_folder

RUNNER_MODULES = ("services.jobs.runs.runner", "services.jobs.work")
"""The modules that run an attempt: today's, and that of the version before, whose jobs may still be running."""

KEEPER_END_S = 60
"""Seconds beyond the grace period after which a keeper that does not end is killed."""

EXIT_S = 10
"""Seconds to wait for the process of a keeper that has done everything."""


@dataclass(frozen=True)
class Service:
    """What is known of a service's processes. marker: empty where a version without markers has started them."""

    root: str
    leaders: Sequence[Leader]
    marker: str

    @classmethod
    def of(cls, root: str, state: Mapping[str, Any]) -> Self:
        """Return the service that `up.json` describes."""
        return cls(root, [Leader.of(program) for program in state["programs"]], str(state.get("marker", "")))

    def processes(self) -> list[psutil.Process]:
        """Return all of its processes that live."""
        return of_service(self.leaders, self.marker)

    def kill(self) -> None:
        """Kill all of them. RunError where one does not end."""
        kill(self.processes)


def end_keeper(root: str, grace_s: float) -> None:
    """Ask the keeper to end after jobs had `grace_s` seconds for a checkpoint; kill it if it is a minute late.

    RunError where the keeper belongs to another user.
    """
    until, asked = time.monotonic() + grace_s + KEEPER_END_S, 0
    last = None
    while is_locked(root):
        if keeper := keeper_pid(root):
            if keeper != asked:
                with suppress(psutil.Error):
                    last = psutil.Process(keeper)
                write_grace_s(root, grace_s)
                _signal_keeper(keeper, signal.SIGTERM)
                asked = keeper
            elif time.monotonic() > until:
                _signal_keeper(keeper, signal.SIGKILL)
        time.sleep(0.1)
    with suppress(psutil.Error):
        if last:
            last.wait(EXIT_S)  # it gives the lock back before its process ends


def end_leftovers(root: str, grace_s: float) -> list[AttemptDir]:
    """End what a killed keeper left running: the dispatcher, then jobs after their checkpoints, then everything else.

    Return the attempts that were running. RunError where it belongs to another user, or does not end; what is known of it stays
    recorded then.
    """
    state = read_state(root)
    if not state:
        return []
    leaders = {program["name"]: Leader.of(program) for program in state["programs"]}
    foreign = next((name for name, leader in leaders.items() if belongs_to_another(leader)), None)
    if foreign:
        raise RunError(f"{foreign} of this root's service (process {leaders[foreign].pid}) is another user's, who alone can end it")
    service = Service.of(root, state)
    if "dispatcher" in leaders:
        kill(lambda: in_session(leaders["dispatcher"], service.marker))
    attempts = pause_jobs(service, lambda: grace_s)
    service.kill()
    shutil.rmtree(state["ray"]["temp"], ignore_errors=True)
    remove_state(root)
    return attempts


def pause_jobs(service: Service, grace_s: Callable[[], float]) -> list[AttemptDir]:
    """Let running jobs save a checkpoint and end; return their attempts.

    grace_s: returns the seconds for that, and is asked again and again; with 0 jobs and storage are left alone, and none is
    returned. Storage that refuses does not keep the service from ending.
    """
    attempt_dirs: list[AttemptDir] = []
    if grace_s() <= 0:
        return attempt_dirs
    began_s = time.monotonic()
    with suppress(RunError, InputError, OSError):
        attempt_dirs = running_attempts(service)
        for attempt_dir in attempt_dirs:
            attempt_dir.request_stop("preempted")
        if attempt_dirs:
            events.say(f"waiting for {len(attempt_dirs)} running jobs to save a checkpoint; they continue with the next `up`")
        while time.monotonic() - began_s < grace_s() and not all(attempt_dir.read_end() for attempt_dir in attempt_dirs):
            time.sleep(0.5)
    return attempt_dirs


def running_attempts(service: Service) -> list[AttemptDir]:
    """Return the attempts that processes of the service are running."""
    return [attempt_dir for attempt_dir in attempts_of(service) if attempt_dir.is_claimed() and not attempt_dir.read_end()]


def attempts_of(service: Service) -> list[AttemptDir]:
    """Return the attempts that processes of the service have, by their command lines alone: storage is not asked."""
    found = set()
    for process in service.processes():
        with suppress(psutil.Error):
            words = process.cmdline()
            module = next((words.index(name) for name in RUNNER_MODULES if name in words), len(words))
            found |= {uri for uri in words[module + 1 : module + 2] if uri.startswith(f"{jobs_folder(service.root)}/")}
    return list(map(AttemptDir, sorted(found)))


def _signal_keeper(pid: int, number: signal.Signals) -> None:
    try:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    except PermissionError:
        raise RunError(f"this root's service is kept by process {pid} of another user, who alone can end it") from None
