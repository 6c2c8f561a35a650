"""What ended attempts leave behind elsewhere: MLflow runs that still call themselves running. Beside the dispatcher's loop."""

from __future__ import annotations

import threading
from collections.abc import Callable

from services.jobs.queue.records import Attempt, Lease
from services.jobs.queue.store import StaleLease, Store
from zsbir.base import events

EVERY_S, AWAY_S = 3.0, 15.0
"""Seconds between two looks; the same while MLflow does not answer."""

STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "unknown": "FAILED", "out_of_memory": "FAILED"}
"""How MLflow calls what ended by that cause; all others were ended by somebody: KILLED."""


class MlflowCleanup:
    """Ends MLflow runs of ended attempts. lease: the dispatcher's, as it is now."""

    def __init__(self, store: Store, tracking_uri: str, lease: Callable[[], Lease | None]):
        self._store, self._uri, self._lease = store, tracking_uri, lease

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        pause_s, said = EVERY_S, False
        while not stop.wait(pause_s):
            try:
                self.round()
                pause_s, said = EVERY_S, False
            except StaleLease:
                continue
            except Exception as error:  # noqa: BLE001 - MLflow has many errors; none of them may end this thread
                pause_s = AWAY_S
                if not said:
                    said = True
                    events.warn(f"MLflow does not answer ({type(error).__name__}); runs of ended jobs are closed when it does")

    def round(self) -> int:
        """Look after what there is; how many attempts."""
        lease = self._lease()
        if lease is None:
            return 0
        found = self._store.uncleaned()
        for _, attempt in found:
            self._close(attempt)
            self._store.mark_cleaned(lease, attempt)
        return len(found)

    def _close(self, attempt: Attempt) -> None:
        if not self._uri:
            return
        from zsbir.edge.tracking import close_runs  # MLflow takes seconds to load

        close_runs(self._uri, attempt.submission_id, STATUS.get(attempt.cause or "", "KILLED"))
