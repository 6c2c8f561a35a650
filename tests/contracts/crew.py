"""Processes for tests, forked from one that has imported what they need: each costs hundredths of a second instead of several."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, NamedTuple

PRELOADED = ["contracts.workers"]
TESTS = str(Path(__file__).resolve().parents[1])


class Outcome(NamedTuple):
    """What became of a job: its result or the exception's class and line, and what it said on standard error."""

    value: Any
    error: str
    said: str


class Crew:
    """Starts processes that each do one job: a function of a module that can be imported, such as `contracts.workers`."""

    def __enter__(self) -> Crew:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [TESTS, before]))
        try:
            assert self.do(os.getpid).value, "the first one starts the process that the others are forked from"
        finally:
            os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass  # the process that they are forked from ends with this one

    def start(self, job: Callable[..., Any], *words: Any, env: Mapping[str, str] = os.environ) -> tuple[BaseProcess, Connection]:
        """Start a process that does a job and sends the Outcome; the caller waits for it, or kills it."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_do, args=(theirs, dict(env), job, words), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def do(self, job: Callable[..., Any], *words: Any, env: Mapping[str, str] = os.environ) -> Outcome:
        """Do one job in a process of its own."""
        return self.together(job, [words], env=env)[0]

    def together(
        self, job: Callable[..., Any], each: Sequence[Sequence[Any]], env: Mapping[str, str] = os.environ
    ) -> list[Outcome]:
        """Do a job once for each list of words, in one process each, all at the same time."""
        started = [self.start(job, *words, env=env) for words in each]
        outcomes: list[Outcome] = [Outcome(None, "killed", "")] * len(started)

        def wait(number: int) -> None:
            outcomes[number] = outcome(started[number][1])

        threads = [Thread(target=wait, args=(number,)) for number in range(len(started))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for process, _ in started:
            process.join()
        return outcomes

    def barrier(self, parties: int) -> Any:
        """Return a barrier for that many processes, to hand to their jobs."""
        return self._context.Barrier(parties)


def outcome(connection: Connection) -> Outcome:
    """Return what a process sent before it ended."""
    try:
        sent: Outcome = connection.recv()
    except EOFError:
        return Outcome(None, "killed", "")
    return sent


def _do(connection: Connection, env: dict[str, str], job: Callable[..., Any], words: Sequence[Any]) -> None:
    os.environ.clear()
    os.environ.update(env)
    said = StringIO()
    with redirect_stderr(said):
        try:
            value, error = job(*words), ""
        except BaseException as raised:  # noqa: BLE001 - whatever it is, the test looks at it
            value, error = None, f"{type(raised).__name__}: {raised}"
    connection.send(Outcome(value, error, said.getvalue()))
