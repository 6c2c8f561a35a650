"""The truth about a sweep: one row a trial, in one small Parquet file that is replaced whole at every change.

Whoever is killed, the table says which configurations were begun, what each scored so far and how it ended; the same command
reads it and goes on. It is written before a trial starts, and a decision together with the score it rests on.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from zsbir.base.errors import InputError
from zsbir.base.storage import Folder

State = Literal["begun", "finished", "stopped", "failed"]
"""begun: to be trained, or in the middle of it. stopped: ended early, by the scheduler. The other three never change again."""

Origin = Literal["base", "warm", "random", "grid", "tpe"]

TABLE = "table.parquet"

SCHEMA = pa.schema(
    [
        ("number", pa.int32()),
        ("origin", pa.string()),
        ("state", pa.string()),
        ("point", pa.string()),
        ("run", pa.string()),
        ("score", pa.float64()),
        ("best_step", pa.int32()),
        ("scores", pa.list_(pa.struct([("step", pa.int32()), ("score", pa.float64())]))),
        ("seconds", pa.float64()),
        ("error", pa.string()),
        ("began_utc", pa.string()),
        ("ended_utc", pa.string()),
    ]
)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Trial:
    """One configuration and what became of it.

    point: values of the fields of the space, and what else a warm start changes. run: URI of its Run. scores: (optimiser step,
    dev mAP@all) in order.
    seconds: of training, over all attempts.
    """

    number: int
    origin: Origin
    point: dict[str, Any]
    state: State = "begun"
    run: str = ""
    scores: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    error: str = ""
    began_utc: str = field(default_factory=_now)
    ended_utc: str = ""

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and score of its best evaluation so far; of equal ones the first."""
        return max(self.scores, key=lambda pair: (pair[1], -pair[0])) if self.scores else None

    @property
    def score(self) -> float | None:
        """Its best score so far."""
        return self.best[1] if self.best else None

    @property
    def ended(self) -> bool:
        """Whether nothing will be trained for it any more."""
        return self.state != "begun"

    def best_until(self, step: int) -> float | None:
        """The best score among its evaluations up to a step."""
        scores = [score for at, score in self.scores if at <= step]
        return max(scores) if scores else None

    def row(self) -> dict[str, Any]:
        """As SCHEMA has it."""
        step, score = self.best or (None, None)
        return {
            **{
                name: getattr(self, name)
                for name in ("number", "origin", "state", "run", "seconds", "error", "began_utc", "ended_utc")
            },
            "point": json.dumps(self.point),
            "score": score,
            "best_step": step,
            "scores": [{"step": at, "score": value} for at, value in self.scores],
        }


class Table:
    """The trials of one sweep, kept in `place`. Every method that changes something has written it when it returns."""

    def __init__(self, folder: Folder):
        self._place = folder
        self._trials = {trial.number: trial for trial in _read(folder)}

    def __len__(self) -> int:
        return len(self._trials)

    @property
    def trials(self) -> list[Trial]:
        """All, by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    def trial(self, number: int) -> Trial:
        """The trial of that number."""
        return self._trials[number]

    def begin(self, trial: Trial) -> None:
        """A new trial, before anything is done for it."""
        assert trial.number not in self._trials, f"trial {trial.number} was begun before"
        self._put(trial)

    def scored(self, number: int, step: int, score: float, *, stopped: bool) -> None:
        """An evaluation, and whether the trial ends for it."""
        trial = self._trials[number]
        self._put(replace(trial, scores=(*trial.scores, (step, score)), **_ending("stopped" if stopped else trial.state)))

    def end(self, number: int, state: State, *, error: str = "") -> None:
        """A trial has ended. One that had ended before stays as it was."""
        trial = self._trials[number]
        if not trial.ended:
            self._put(replace(trial, error=error, **_ending(state)))

    def spent(self, number: int, seconds: float) -> None:
        """More seconds of training."""
        trial = self._trials[number]
        self._put(replace(trial, seconds=trial.seconds + seconds))

    def reopen(self, numbers: Iterable[int]) -> None:
        """Failed trials that are to be tried again."""
        for number in numbers:
            self._put(replace(self._trials[number], state="begun", error="", ended_utc=""))

    def _put(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        self._place.replace(TABLE, as_parquet(self.trials))


def as_parquet(trials: Iterable[Trial]) -> bytes:
    """The table's file; `read_trials` is the inverse."""
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([trial.row() for trial in trials], SCHEMA), out)
    return out.getvalue()


def _ending(state: State) -> dict[str, Any]:
    return {"state": state} if state == "begun" else {"state": state, "ended_utc": _now()}


def _read(folder: Folder) -> list[Trial]:
    try:
        data = folder.read(TABLE)
    except FileNotFoundError:
        return []
    return read_trials(data, where=folder.uri)


def read_trials(data: bytes, *, where: str = "") -> list[Trial]:
    """The rows of a trial table's file. InputError when it is none."""
    try:
        rows = pq.read_table(io.BytesIO(data), schema=SCHEMA).to_pylist()
        return [
            Trial(
                number=row["number"],
                origin=row["origin"],
                point=json.loads(row["point"]),
                state=row["state"],
                run=row["run"],
                scores=tuple((pair["step"], pair["score"]) for pair in row["scores"]),
                seconds=row["seconds"],
                error=row["error"],
                began_utc=row["began_utc"],
                ended_utc=row["ended_utc"],
            )
            for row in rows
        ]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the trial table in {where} cannot be read ({error}); remove the sweep's folder to start anew") from None
