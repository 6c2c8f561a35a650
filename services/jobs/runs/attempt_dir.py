"""An attempt's folder in storage: where it leaves its signs, in whatever process or cluster it runs.

    <root>/jobs/<submission id>/
        spec.json            what to do, written before it is started
        began                who does it: created once, so that of several who try one works (the dispatcher may take it, too)
        beat                 changes every few seconds while it lives
        stop                 written when it is to save its work and end, with the reason
        <step>/{driver,worker,curve}.json    how far it is (see zsbir.base.watch)
        log/000000.txt ...   all that it says, in pieces of LOG_PIECE bytes
        made.json            what its steps have made so far
        end.json             how it ended; the last thing it writes

What is written here outlives the cluster. The dispatcher believes it before it believes Ray.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

from services.jobs.queue.states import STOP_REASONS, Cause, StopReason
from zsbir.base.layout import job_attempt_uri
from zsbir.base.storage import Folder, open_folder

HEARTBEAT_S = 2.0
"""Seconds between two beats."""

LOG_PIECE = 256 * 1024
LOG_LIMIT = 256 * LOG_PIECE
"""Bytes of log that are kept of an attempt, 64 MiB: what comes after is left out, and its log says so."""


UNDELIVERED = ".undelivered"
"""The mark of a finished run that MLflow lacks something of (see zsbir.train)."""


@dataclass(frozen=True)
class End:
    """How an attempt ended, by its own account. result: URI of what it made. made: URIs by step, in a pipeline.

    began_s, ended_s: seconds since 1970, where they are known: who reads this may come hours later.
    """

    cause: Cause
    message: str = ""
    result: str = ""
    made: Mapping[str, str] | None = None
    began_s: float | None = None
    ended_s: float | None = None


class AttemptDir:
    """Reads and writes one attempt's folder."""

    def __init__(self, uri: str):
        self.uri = uri
        self._folder: Folder = open_folder(uri)

    # --- what the dispatcher writes

    def specify(self, spec: Mapping[str, Any]) -> None:
        """Once; a dispatcher that comes after one that was killed finds it there."""
        self._folder.create("spec.json", json.dumps(spec).encode())

    def ask_stop(self, reason: StopReason) -> None:
        """The first reason stays."""
        self._folder.create("stop", reason.encode())

    def claim_start(self, who: str) -> bool:
        """Whether `who` is the one that began; nobody else can any more."""
        return self._folder.create("began", who.encode())

    # --- what the attempt writes; the dispatcher writes the end of one that it holds for lost

    def heartbeat(self, count: int) -> None:
        """It lives; and when it said so."""
        self._folder.replace("beat", f"{count} {time.time():.1f}".encode())

    def end(self, end: End) -> None:
        """The last word; the first of several stays."""
        self._folder.create("end.json", json.dumps(asdict(end)).encode())

    def tell_made(self, made: Mapping[str, str]) -> None:
        """What its steps have made so far."""
        self._folder.replace("made.json", json.dumps(dict(made)).encode())

    def write_log(self, piece: int, data: bytes) -> None:
        """A piece of the log as it is now; all but the last have LOG_PIECE bytes."""
        self._folder.sub("log").replace(_piece(piece), data)

    # --- what anybody reads

    def spec(self) -> dict[str, Any]:
        """FileNotFoundError where there is none."""
        return dict(json.loads(self._folder.read("spec.json")))

    def began(self) -> bool:
        """Whether somebody has begun."""
        return self._folder.size("began") is not None

    def began_by(self) -> str:
        """Who has begun, or has made sure that nobody does; empty where nobody has."""
        with suppress(FileNotFoundError):
            return self._folder.read("began").decode()
        return ""

    def beats(self) -> str | None:
        """What changes with each beat; None before the first."""
        return self._folder.version("beat")

    def last_heartbeat_s(self) -> float | None:
        """When the last one was, in seconds since 1970 by its clock; None before the first."""
        with suppress(FileNotFoundError, ValueError):
            return float(self._folder.read("beat").split()[1])
        return None

    def stop_reason(self) -> StopReason | None:
        """None where nobody has asked."""
        with suppress(FileNotFoundError):
            said = self._folder.read("stop").decode()
            return next((reason for reason in STOP_REASONS if reason == said), "preempted")
        return None

    def made(self) -> dict[str, str]:
        """URIs of what its steps have made so far, by step."""
        return self._json("made.json")

    def ended(self) -> End | None:
        """None as long as it has not."""
        said = self._json("end.json")
        known = {field.name: said[field.name] for field in fields(End) if field.name in said}
        return End(**known) if "cause" in known else None

    def steps(self) -> Sequence[str]:
        """The names of its steps."""
        with suppress(FileNotFoundError):
            return [step["name"] for step in self.spec()["steps"]]
        return []

    def status(self, step: str) -> dict[str, Any]:
        """How far a step is: {"progress": {label, done, total, unit, per_s, left_s}, "facts": {}, "metrics": {}, "updated_s"}.

        What its first worker says goes before what its command says.
        """
        driver, worker = self._json(f"{step}/driver.json"), self._json(f"{step}/worker.json")
        status: dict[str, Any] = {
            name: {**driver.get(name, {}), **worker.get(name, {})} for name in ("progress", "facts", "metrics")
        }
        return {**status, "updated_s": max(driver.get("updated_s", 0.0), worker.get("updated_s", 0.0))}

    def curve(self, step: str) -> list[dict[str, float]]:
        """Rows of metrics by optimiser step, as far as there are some."""
        return list(self._json(f"{step}/curve.json").get("rows", []))

    def log(self, offset: int, limit: int = LOG_PIECE) -> bytes:
        """Bytes of its log from `offset`; fewer than `limit` where it ends, or a piece does."""
        piece, start = divmod(offset, LOG_PIECE)
        with suppress(FileNotFoundError):
            return self._folder.sub("log").read_range(_piece(piece), start, min(limit, LOG_PIECE - start))
        return b""

    def log_size(self) -> int:
        """Bytes of its log so far."""
        pieces = [name for name in self._folder.sub("log").names() if re.fullmatch(r"\d{6}\.txt", name)]
        if not pieces:
            return 0
        return (len(pieces) - 1) * LOG_PIECE + (self._folder.sub("log").size(pieces[-1]) or 0)

    def _json(self, key: str) -> dict[str, Any]:
        """Empty where it is not there, or is not what was written here: somebody's hand, or a version of another day."""
        with suppress(FileNotFoundError, ValueError, TypeError):
            return dict(json.loads(self._folder.read(key)))
        return {}


def attempt_dir_of(root: str, submission_id: str) -> AttemptDir:
    """The folder of that attempt below a storage root."""
    return AttemptDir(job_attempt_uri(root, submission_id))


def _piece(number: int) -> str:
    return f"{number:06d}.txt"
