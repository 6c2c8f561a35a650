"""Closes MLflow runs that ended attempts have left open, in a thread beside the dispatcher's loop."""

from __future__ import annotations

import threading
from collections.abc import Callable

from services.jobs.queue.records import Attempt, Lease
from services.jobs.queue.store import Store
from services.jobs.queue.transactions import StaleLease
from zsbir.base import events

POLL_S, RETRY_S = 3.0, 15.0
"""Seconds between two rounds; the same while MLflow does not answer."""

STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "unknown": "FAILED", "out_of_memory": "FAILED"}
"""MLflow's status of a run whose attempt ended by each cause. All others are KILLED: a person or the cluster ended them."""


class MlflowCleanup:
    """The closing of MLflow runs of ended attempts. lease: returns the dispatcher's lease as it is now."""

    def __init__(self, store: Store, tracking_uri: str, lease: Callable[[], Lease | None]):
        self._store, self._uri, self._lease = store, tracking_uri, lease

    def run(self, stop: threading.Event) -> None:
        """Run rounds until `stop` is set."""
        pause_s, warned = POLL_S, False
        while not stop.wait(pause_s):
            try:
                self.round()
                pause_s, warned = POLL_S, False
            except StaleLease:
                continue
            except Exception as error:  # noqa: BLE001 - MLflow has many errors; none of them may end this thread
                pause_s = RETRY_S
                if not warned:
                    warned = True
                    events.warn(f"MLflow does not answer ({type(error).__name__}); runs of ended jobs are closed when it does")

    def round(self) -> int:
        """Close the runs of ended attempts, and return how many attempts there were."""
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
