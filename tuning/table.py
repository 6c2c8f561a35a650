"""The record of a sweep: one row a trial, in one small Parquet file that is replaced as a whole at every change.

Whichever process is killed, the table says which configurations were begun, what each scored so far and how it ended; the same
command reads it and goes on. It is written before a trial starts; a decision is written together with the score it rests on.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from zsbir.base.errors import InputError
from zsbir.base.storage import Folder

if TYPE_CHECKING:
    import pyarrow as pa

State = Literal["begun", "finished", "stopped", "failed"]
"""begun: to be trained, or being trained. stopped: ended early by the scheduler. All but `begun` are final."""

Origin = Literal["base", "warm", "random", "grid", "tpe"]

TABLE = "table.parquet"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


Scores = tuple[tuple[int, float], ...]
"""(optimiser step, dev mAP@all) in order."""


@dataclass(frozen=True)
class Further:
    """The training of a further seed of a trial. run: URI of its Run. scores: none until the training has finished."""

    run: str
    scores: Scores = ()


@dataclass(frozen=True)
class Trial:
    """One configuration, its scores and its state.

    point: values of the fields of the space, and of other fields that a configuration to start from changes. run: URI of its Run.
    scores: of that run. further: the trainings of its other seeds, in order. seconds: of training, over all attempts and seeds.
    """

    number: int
    origin: Origin
    point: dict[str, Any]
    state: State = "begun"
    run: str = ""
    scores: Scores = ()
    seconds: float = 0.0
    error: str = ""
    further: tuple[Further, ...] = ()
    began_utc: str = field(default_factory=_now)
    ended_utc: str = ""

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and score of the best evaluation so far of its first seed; of equal scores the first."""
        return max(self.scores, key=lambda pair: (pair[1], -pair[0])) if self.scores else None

    @property
    def runs(self) -> tuple[str, ...]:
        """The URIs of the runs of all its seeds, in order."""
        return (self.run, *(seed.run for seed in self.further))

    @property
    def curves(self) -> tuple[Scores, ...]:
        """The scores of each of its seeds that has some, in order."""
        return tuple(scores for scores in (self.scores, *(seed.scores for seed in self.further)) if scores)

    @property
    def score(self) -> float | None:
        """Its best score so far; with several seeds the mean of the best score of each that has some."""
        return _mean([max(score for _, score in scores) for scores in self.curves])

    @property
    def steps(self) -> int:
        """Steps that it has trained until the last evaluation of each seed."""
        return sum(scores[-1][0] for scores in self.curves)

    @property
    def ended(self) -> bool:
        """Whether its state is final."""
        return self.state != "begun"

    def best_until(self, step: int) -> float | None:
        """Return the best score of its first seed among the evaluations up to a step: what early stopping judges."""
        scores = [score for at, score in self.scores if at <= step]
        return max(scores) if scores else None

    def score_until(self, step: int) -> float | None:
        """Return its best score among the evaluations up to a step; with several seeds the mean over those that have some."""
        reached = [[score for at, score in scores if at <= step] for scores in self.curves]
        return _mean([max(scores) for scores in reached if scores])

    def row(self) -> dict[str, Any]:
        """Return the trial as a row of the Parquet file."""
        step, score = self.best or (None, None)
        return {
            **{
                name: getattr(self, name)
                for name in ("number", "origin", "state", "run", "seconds", "error", "began_utc", "ended_utc")
            },
            "point": json.dumps(self.point),
            "score": score,
            "best_step": step,
            "scores": _pairs(self.scores),
            "further": [{"run": seed.run, "scores": _pairs(seed.scores)} for seed in self.further],
        }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _pairs(scores: Scores) -> list[dict[str, float]]:
    return [{"step": at, "score": value} for at, value in scores]


def leader(trials: Iterable[Trial]) -> Trial | None:
    """Return the trial with the best dev score among those that may be kept, of equal scores the first; None if none has a score.

    Trials that failed or were stopped early are never kept, however well they scored on the way.
    """
    scored = [trial for trial in trials if trial.score is not None and trial.state in ("begun", "finished")]
    return max(scored, key=lambda trial: (trial.score, -trial.number), default=None)


class Table:
    """The trials of one sweep, stored in its folder. A method that changes something has written it when it returns."""

    def __init__(self, folder: Folder):
        self._folder = folder
        self._trials = {trial.number: trial for trial in _read(folder)}

    def __len__(self) -> int:
        return len(self._trials)

    @property
    def trials(self) -> list[Trial]:
        """All trials of the sweep, in the order of their numbers."""
        return [self._trials[number] for number in sorted(self._trials)]

    def trial(self, number: int) -> Trial:
        """Return the trial of this number."""
        return self._trials[number]

    def begin(self, trial: Trial) -> None:
        """Add a new trial, before anything is done for it."""
        assert trial.number not in self._trials, f"trial {trial.number} was begun before"
        self._put(trial)

    def scored(self, number: int, step: int, score: float, *, stopped: bool) -> None:
        """Add an evaluation, and whether the trial is stopped because of it."""
        trial = self._trials[number]
        self._put(replace(trial, scores=(*trial.scores, (step, score)), **_ending("stopped" if stopped else trial.state)))

    def scored_further(self, number: int, place: int, scores: Scores) -> None:
        """Set the scores of a further seed, the place-th one from 0, whose training has finished."""
        trial = self._trials[number]
        further = list(trial.further)
        further[place] = replace(further[place], scores=scores)
        self._put(replace(trial, further=tuple(further)))

    def end(self, number: int, state: State, *, error: str = "") -> None:
        """End a trial; one that has ended already stays as it is."""
        trial = self._trials[number]
        if not trial.ended:
            self._put(replace(trial, error=error, **_ending(state)))

    def spent(self, number: int, seconds: float) -> None:
        """Add seconds of training to a trial."""
        trial = self._trials[number]
        self._put(replace(trial, seconds=trial.seconds + seconds))

    def reopen(self, numbers: Iterable[int]) -> None:
        """Set failed trials back, so that they are trained again."""
        for number in numbers:
            self._put(replace(self._trials[number], state="begun", error="", ended_utc=""))

    def _put(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        self._folder.replace(TABLE, as_parquet(self.trials))


def _schema() -> pa.Schema:
    import pyarrow as pa

    scores = pa.list_(pa.struct([("step", pa.int32()), ("score", pa.float64())]))
    return pa.schema(
        [
            ("number", pa.int32()),
            ("origin", pa.string()),
            ("state", pa.string()),
            ("point", pa.string()),
            ("run", pa.string()),
            ("score", pa.float64()),
            ("best_step", pa.int32()),
            ("scores", scores),
            ("seconds", pa.float64()),
            ("error", pa.string()),
            ("began_utc", pa.string()),
            ("ended_utc", pa.string()),
            ("further", pa.list_(pa.struct([("run", pa.string()), ("scores", scores)]))),
        ]
    )


def as_parquet(trials: Iterable[Trial]) -> bytes:
    """Return the contents of the table's file; `read_trials` is the inverse."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([trial.row() for trial in trials], _schema()), out)
    return out.getvalue()


def _scores(pairs: Iterable[Mapping[str, Any]]) -> Scores:
    return tuple((pair["step"], pair["score"]) for pair in pairs)


def _ending(state: State) -> dict[str, Any]:
    return {"state": state} if state == "begun" else {"state": state, "ended_utc": _now()}


def _read(folder: Folder) -> list[Trial]:
    try:
        data = folder.read(TABLE)
    except FileNotFoundError:
        return []
    return read_trials(data, where=folder.uri)


def read_trials(data: bytes, *, where: str = "") -> list[Trial]:
    """Return the trials in a table's file. Raises InputError if it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(io.BytesIO(data), schema=_schema()).to_pylist()
        return [
            Trial(
                number=row["number"],
                origin=row["origin"],
                point=json.loads(row["point"]),
                state=row["state"],
                run=row["run"],
                scores=_scores(row["scores"]),
                seconds=row["seconds"],
                error=row["error"],
                further=tuple(Further(seed["run"], _scores(seed["scores"])) for seed in row["further"] or ()),  # 0.1.0 had none
                began_utc=row["began_utc"],
                ended_utc=row["ended_utc"],
            )
            for row in rows
        ]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the trial table in {where} cannot be read ({error}); remove the sweep's folder to start anew") from None
