"""An attempt's folder in storage: what the attempt records of itself, in whatever process or cluster it runs.

    <root>/jobs/<submission id>/
        spec.json            what to do; written before the attempt is started
        began                the process that runs the attempt: created once, so that one of several wins, or the dispatcher
        beat                 changes every few seconds while the attempt is alive
        stop                 why the attempt is to save its work and end
        <step>/{driver,worker,curve}.json    how far the step is (see zsbir.base.watch)
        log/000000.txt ...   the log, in pieces of LOG_PIECE bytes
        models.json          what the registered models in its configuration stand for
        made.json            what its steps have made so far
        end.json             how the attempt ended; written last

These files outlive the cluster, and the dispatcher believes them before it believes Ray.
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
"""Seconds between two heartbeats."""

LOG_PIECE = 256 * 1024
LOG_LIMIT = 256 * LOG_PIECE
"""Bytes of an attempt's log that are kept, 64 MiB. The rest is left out, and a last line of the log says so."""


@dataclass(frozen=True)
class End:
    """How an attempt ended. result: URI of what it made. made: URIs of what its steps made, by step.

    ran_s: how long it ran, where that is known: a dispatcher may read this hours later, and the clocks of two machines differ.
    began_s, ended_s: seconds since 1970 by the clock of the attempt's node.
    """

    cause: Cause
    message: str = ""
    result: str = ""
    made: Mapping[str, str] | None = None
    began_s: float | None = None
    ended_s: float | None = None
    ran_s: float | None = None


class AttemptDir:
    """One attempt's folder, to read and to write."""

    def __init__(self, uri: str):
        self.uri = uri
        self._folder: Folder = open_folder(uri)

    # --- written by the dispatcher

    def write_spec(self, spec: Mapping[str, Any]) -> None:
        """Write what the attempt is to do, once: a dispatcher that follows one that was killed finds it there."""
        self._folder.create("spec.json", json.dumps(spec).encode())

    def request_stop(self, reason: StopReason) -> None:
        """Ask the attempt to save its work and end. The first reason stays."""
        self._folder.create("stop", reason.encode())

    def claim_start(self, who: str) -> bool:
        """Claim the right to run this attempt. Return whether `who` has it; after that nobody else can get it."""
        return self._folder.create("began", who.encode())

    # --- written by the attempt; the dispatcher writes the end of an attempt that is lost

    def write_heartbeat(self, count: int, ran_s: float = 0.0) -> None:
        """Show that the attempt is alive. count: different in each heartbeat. ran_s: seconds for which it has run."""
        self._folder.replace("beat", f"{count} {time.time():.1f} {ran_s:.1f}".encode())

    def write_end(self, end: End) -> None:
        """Write how the attempt ended. The first of several stays."""
        self._folder.create("end.json", json.dumps(asdict(end)).encode())

    def write_results(self, made: Mapping[str, str]) -> None:
        """Write the URIs of what its steps have made so far, by step."""
        self._folder.replace("made.json", json.dumps(dict(made)).encode())

    def write_models(self, models: Mapping[str, str]) -> None:
        """Write which artifact each registered model in its configuration stands for, as a sentence by address."""
        self._folder.replace("models.json", json.dumps(dict(models)).encode())

    def write_log(self, piece: int, data: bytes) -> None:
        """Write a piece of the log as it is now. All pieces but the last have LOG_PIECE bytes."""
        self._folder.sub("log").replace(_piece_name(piece), data)

    # --- read by anybody

    def spec(self) -> dict[str, Any]:
        """Return what the attempt is to do. FileNotFoundError where no specification was written."""
        return dict(json.loads(self._folder.read("spec.json")))

    def is_claimed(self) -> bool:
        """Return whether a process has claimed the attempt, to run it or to keep others from running it."""
        return self._folder.size("began") is not None

    def claimed_by(self) -> str:
        """Return the `who` of the claim; empty where nobody has claimed the attempt."""
        with suppress(FileNotFoundError):
            return self._folder.read("began").decode()
        return ""

    def heartbeat_version(self) -> str | None:
        """Return a text that changes with each heartbeat; None before the first one."""
        return self._folder.version("beat")

    def last_heartbeat_s(self) -> float | None:
        """Return when the last heartbeat was, in seconds since 1970 by the attempt's clock; None before the first one."""
        with suppress(FileNotFoundError, ValueError, IndexError):
            return float(self._folder.read("beat").split()[1])
        return None

    def last_heartbeat_ran_s(self) -> float | None:
        """Return for how many seconds the attempt had run at its last heartbeat; None before the first, or in earlier versions."""
        with suppress(FileNotFoundError, ValueError, IndexError):
            return float(self._folder.read("beat").split()[2])
        return None

    def stop_reason(self) -> StopReason | None:
        """Return why the attempt is to end; None where nobody has asked. A reason of another version counts as a preemption."""
        with suppress(FileNotFoundError):
            written = self._folder.read("stop").decode()
            return next((reason for reason in STOP_REASONS if reason == written), "preempted")
        return None

    def results(self) -> dict[str, str]:
        """Return the URIs of what its steps have made so far, by step."""
        return self._json("made.json")

    def models(self) -> dict[str, str]:
        """Return what each registered model in its configuration stands for; none before it has been resolved."""
        return {str(address): str(sentence) for address, sentence in self._json("models.json").items()}

    def read_end(self) -> End | None:
        """Return how the attempt ended; None as long as it has not."""
        written = self._json("end.json")
        known = {field.name: written[field.name] for field in fields(End) if field.name in written}
        return End(**known) if "cause" in known else None

    def step_names(self) -> Sequence[str]:
        """Return the names of its steps, in order; none without a specification."""
        with suppress(FileNotFoundError):
            return [step["name"] for step in self.spec()["steps"]]
        return []

    def status(self, step: str) -> dict[str, Any]:
        """Return how far a step is: {"progress": {label, done, total, unit, per_s, left_s}, "facts", "metrics", "updated_s"}.

        What its first worker writes takes precedence over what its command writes.
        """
        driver, worker = self._json(f"{step}/driver.json"), self._json(f"{step}/worker.json")
        status: dict[str, Any] = {
            name: {**driver.get(name, {}), **worker.get(name, {})} for name in ("progress", "facts", "metrics")
        }
        return {**status, "updated_s": max(driver.get("updated_s", 0.0), worker.get("updated_s", 0.0))}

    def curve(self, step: str) -> list[dict[str, float]]:
        """Return rows of metrics by optimiser step; none where a step has none."""
        return list(self._json(f"{step}/curve.json").get("rows", []))

    def log(self, offset: int, limit: int = LOG_PIECE) -> bytes:
        """Return bytes of the log from `offset`; fewer than `limit` where the log or a piece of it ends."""
        piece, start = divmod(offset, LOG_PIECE)
        with suppress(FileNotFoundError):
            return self._folder.sub("log").read_range(_piece_name(piece), start, min(limit, LOG_PIECE - start))
        return b""

    def log_size(self) -> int:
        """Return the size of the log so far, in bytes."""
        pieces = [name for name in self._folder.sub("log").names() if re.fullmatch(r"\d{6}\.txt", name)]
        if not pieces:
            return 0
        return (len(pieces) - 1) * LOG_PIECE + (self._folder.sub("log").size(pieces[-1]) or 0)

    def _json(self, key: str) -> dict[str, Any]:
        """Return a JSON object; empty where the file is missing, or was changed by hand or written by another version."""
        with suppress(FileNotFoundError, ValueError, TypeError):
            return dict(json.loads(self._folder.read(key)))
        return {}


def attempt_dir_of(root: str, submission_id: str) -> AttemptDir:
    """Return the folder of an attempt below a storage root."""
    return AttemptDir(job_attempt_uri(root, submission_id))


def _piece_name(number: int) -> str:
    return f"{number:06d}.txt"
