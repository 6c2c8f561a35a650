"""For who watches from elsewhere: how far a command is, as data, in the folder that `ZSBIR_WATCH` names, if it names one.

    driver.json, worker.json   {"progress": {...}, "facts": {...}, "metrics": {...}}: the command, its first data-parallel worker
    curve.json                 {"rows": [{"step": 10, "train/loss": 1.2}, ...]}

Each process writes its own file, a few seconds after something has changed. A place that cannot be written ends no work.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import Folder, open_folder

WATCH = "ZSBIR_WATCH"
EVERY_S = 2.0
"""Seconds between two writings."""

MAX_ROWS = 500
"""Rows of a curve that are written: of longer ones every other row, and so on; rows of evaluations all stay."""


class _Watched:
    """What one process has to tell, and the thread that writes it."""

    def __init__(self, uri: str, name: str):
        self.uri, self._place, self._name = uri, open_folder(uri), name
        self._signs: dict[str, dict[str, Any]] = {"progress": {}, "facts": {}, "metrics": {}}
        self._rows: dict[int, dict[str, float]] = {}
        self._changed: set[str] = set()
        self._lock, self._writing, self._wake = threading.Lock(), threading.Lock(), threading.Event()
        threading.Thread(target=self._work, daemon=True, name="watch").start()
        atexit.register(self.flush)

    def tell(self, what: str, values: Mapping[str, Any]) -> None:
        with self._lock:
            self._signs[what].update(values)
            self._changed.add("signs")

    def row(self, step: int, metrics: Mapping[str, float]) -> None:
        with self._lock:
            self._rows.setdefault(step, {"step": step}).update(metrics)
            self._signs["metrics"].update({"step": step, **metrics})
            self._changed |= {"signs", "rows"}

    def flush(self) -> None:
        """Write what has changed, now."""
        with self._writing:
            with self._lock:
                changed, self._changed = self._changed, set()
                signs = json.dumps({**self._signs, "updated_s": time.time()})
                rows = (
                    json.dumps({"rows": _thinned([self._rows[step] for step in sorted(self._rows)])}) if "rows" in changed else ""
                )
            try:
                if rows:
                    _put(self._place, "curve.json", rows)
                if changed:
                    _put(self._place, f"{self._name}.json", signs)
            except (InputError, RunError, OSError):
                with self._lock:
                    self._changed |= changed  # the next time writes it

    def _work(self) -> None:
        while True:
            time.sleep(EVERY_S)
            self.flush()


_here: _Watched | None = None
_asked = False


def _watched() -> _Watched | None:
    global _here, _asked  # noqa: PLW0603 - one a process, like the environment that asks for it
    if not _asked:
        _asked = True
        uri = os.environ.get(WATCH, "")
        _here = _Watched(uri, "driver") if uri else None
    return _here


def place() -> str:
    """The folder, for workers in other processes (see `work_for`); empty where nobody watches."""
    watched = _watched()
    return watched.uri if watched else ""


def work_for(uri: str) -> None:
    """Speak as the first worker of the command that is watched at `uri`; with an empty one, not at all."""
    global _here, _asked
    _asked, _here = True, (_Watched(uri, "worker") if uri else None)


def be_silent() -> None:
    """Another process tells of this one's work, as a sweep does of its trials."""
    work_for("")


def progress(label: str, *, done: int, total: int | None, unit: str, per_s: float) -> None:
    """How far the command is; left_s: seconds left at this rate."""
    if watched := _watched():
        left_s = (total - done) / per_s if total and per_s else None
        watched.tell("progress", {"label": label, "done": done, "total": total, "unit": unit, "per_s": per_s, "left_s": left_s})


def figures(step: int, metrics: Mapping[str, float]) -> None:
    """Metrics of an optimiser step."""
    if watched := _watched():
        watched.row(step, metrics)


def facts(**values: Any) -> None:
    """What is known now: the run's address, where it resumed, its MLflow run, how it failed."""
    if watched := _watched():
        watched.tell("facts", values)


def flush() -> None:
    """Write now what would be written soon: for processes that others may end."""
    if watched := _watched():
        watched.flush()


def _put(place: Folder, name: str, text: str) -> None:
    place.replace(name, text.encode())


def _thinned(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    stride = -(-len(rows) // MAX_ROWS)
    if stride <= 1:
        return rows
    return [row for number, row in enumerate(rows) if number % stride == 0 or number == len(rows) - 1 or _is_score(row)]


def _is_score(row: Mapping[str, float]) -> bool:
    return any(name.startswith("dev/") for name in row)
