"""Status files for programs that follow a command from elsewhere, such as the job queue.

They are written to the folder that `ZSBIR_WATCH` names, a path or `s3://bucket/prefix`; without it nothing is recorded.

    driver.json, worker.json   {"progress": {...}, "facts": {...}, "metrics": {...}}: the command, its first data-parallel worker
    curve.json                 {"rows": [{"step": 10, "train/loss": 1.2}, ...]}

Each process writes its own file, a few seconds after something has changed. A folder that cannot be written stops no work.

The class of the error that a command ends with is a fact as well. It is also written to the pipe that `ZSBIR_ERROR_PIPE` names, a
file descriptor: where the disk is full or the store is away, the folder does not get it.
"""

from __future__ import annotations

import atexit
import json
import os
import stat
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from zsbir.base import events
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import open_folder

WATCH = "ZSBIR_WATCH"
ERROR_PIPE = "ZSBIR_ERROR_PIPE"
EVERY_S = 2.0
"""Seconds between two writes."""

MAX_ROWS = 500
"""Rows of a curve that are written: of longer curves every other row, and so on. Rows recorded with `keep` all stay."""


class _Recorder:
    """The status of one process, and the thread that writes it."""

    def __init__(self, uri: str, name: str):
        self.uri, self._folder, self._name = uri, open_folder(uri), name
        self._status: dict[str, dict[str, Any]] = {"progress": {}, "facts": {}, "metrics": {}}
        self._rows: dict[int, dict[str, float]] = {}
        self._kept: set[int] = set()
        self._changed: set[str] = set()
        self._lock, self._writing = threading.Lock(), threading.Lock()
        threading.Thread(target=self._write_regularly, daemon=True, name="watch").start()
        atexit.register(self.flush)

    def record(self, section: str, values: Mapping[str, Any]) -> None:
        with self._lock:
            self._status[section].update(values)
            self._changed.add("status")

    def record_row(self, step: int, metrics: Mapping[str, float], *, keep: bool) -> None:
        with self._lock:
            self._rows.setdefault(step, {"step": step}).update(metrics)
            self._kept |= {step} if keep else set()
            self._status["metrics"].update({"step": step, **metrics})
            self._changed |= {"status", "rows"}

    def flush(self) -> None:
        """Write what has changed, now."""
        with self._writing:
            with self._lock:
                changed, self._changed = self._changed, set()
                status = json.dumps({**self._status, "updated_s": time.time()})
                rows = json.dumps({"rows": self._thinned_rows()}) if "rows" in changed else ""
            try:
                if rows:
                    self._folder.replace("curve.json", rows.encode())
                if changed:
                    self._folder.replace(f"{self._name}.json", status.encode())
            except (InputError, RunError, OSError):
                with self._lock:
                    self._changed |= changed  # the next flush writes it

    def _thinned_rows(self) -> list[dict[str, float]]:
        steps = sorted(self._rows)
        stride = max(1, -(-len(steps) // MAX_ROWS))
        chosen = {*steps[::stride], *steps[-1:], *self._kept}
        return [self._rows[step] for step in steps if step in chosen]

    def _write_regularly(self) -> None:
        while True:
            time.sleep(EVERY_S)
            self.flush()


_recorder: _Recorder | None = None
_started = False
_error_pipe: int | None = None


def start() -> None:
    """Follow this process from now on, if `ZSBIR_WATCH` asks for it. Calls after the first change nothing.

    InputError for an address that cannot be one of a folder; then nothing is recorded.
    """
    if not _started:
        _take_error_pipe()
        uri = os.environ.get(WATCH, "")
        _use(None)
        _use(_Recorder(uri, "driver") if uri else None)


def start_worker(uri: str) -> None:
    """Record as the first worker of the command that is followed at `uri`; with an empty one, record nothing."""
    _use(_Recorder(uri, "worker") if uri else None)


def stop() -> None:
    """Record nothing more: another process reports this one's work, as a sweep does of its trials."""
    _use(None)


def folder_uri() -> str:
    """Return the folder of the status files, for workers in other processes; "" where nothing is recorded."""
    recorder = _current()
    return recorder.uri if recorder else ""


def record_metrics(step: int, metrics: Mapping[str, float], *, keep: bool = False) -> None:
    """Record metrics of an optimiser step. keep: its row stays in the curve however long that gets, as an evaluation's should."""
    if recorder := _current():
        recorder.record_row(step, metrics, keep=keep)


def record_facts(**values: Any) -> None:
    """Record what is known by now: the run's address, the step it resumed at, its MLflow run, the error it ended with."""
    if recorder := _current():
        recorder.record("facts", values)


def report_error(name: str) -> None:
    """Record the class of the error that this command ends with, and tell it to the program that started the command.

    The pipe is inherited by all that a program starts, so a line on it also says which process writes.
    """
    record_facts(error=name)
    if _error_pipe is not None:
        with suppress(OSError):  # nobody reads any more
            os.write(_error_pipe, f"{os.getpid()} {name}\n".encode())


def _take_error_pipe() -> None:
    """Keep the pipe's descriptor, and have no process that this one starts take the same number for a pipe of its own."""
    global _error_pipe  # noqa: PLW0603 - a process has one
    text = os.environ.pop(ERROR_PIPE, "")
    with suppress(OSError, OverflowError):
        if text.isdecimal() and stat.S_ISFIFO(os.fstat(int(text)).st_mode):
            _error_pipe = int(text)
            os.set_inheritable(_error_pipe, False)


def record_found(uri: str) -> None:
    """Record that the command's result was there already, and that it makes nothing."""
    record_facts(found=uri)


def record_score(value: float, metric: str, on: str, step: int | None = None) -> None:
    """Record how good the result is, so far or at last; a later score takes the place of an earlier one.

    metric: such as map_all. on: the classes that were scored, "dev" or "unseen". step: the optimiser step of the encoder that was
    scored, which is the one that is kept; None for an evaluation.
    """
    record_facts(score={"value": value, "metric": metric, "on": on, "step": step})


def flush() -> None:
    """Write now what would be written soon: for processes that others may end."""
    if recorder := _current():
        recorder.flush()


def _current() -> _Recorder | None:
    start()
    return _recorder


def _use(recorder: _Recorder | None) -> None:
    global _recorder, _started
    _started, _recorder = True, recorder
    events.subscribe(_record_progress)


def _record_progress(now: events.ProgressEvent) -> None:
    if recorder := _current():
        left_s = (now.total - now.done) / now.per_s if now.total and now.per_s else None
        recorder.record("progress", {**now._asdict(), "left_s": left_s})
