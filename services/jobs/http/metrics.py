"""Metrics for Prometheus: of the queue, read from the store at each scrape, and of the requests that this process has served."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from services.jobs.queue.records import Lease
from services.jobs.queue.states import RETRY_LIMITS, STATES
from services.jobs.queue.store import Store

ALIVE_S = 15.0
"""Seconds without a heartbeat after which a dispatcher counts as dead."""

LONG_S = 120.0
"""The largest interval between two checks, as of a slow scraper, after which a heartbeat between them still counts as recent."""

WAIT_BOUNDS_S = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
CAUSES = ("succeeded", "cancelled", "timed_out", *RETRY_LIMITS)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True)
class Dispatcher:
    """The dispatcher as far as this process has seen. seen_s_ago: seconds since its last heartbeat; None before the first one."""

    holder: str
    epoch: int
    alive: bool
    seen_s_ago: float | None


class DispatcherMonitor:
    """Tells from the dispatcher's lease whether it is alive: its count of heartbeats grows between two checks.

    clock: this process's monotonic seconds, replaced in tests. Clocks of other machines are not trusted.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic):
        self._store, self._clock = store, clock
        self._seen: Lease | None = store.seen_lease()
        self._moved_s: float | None = None
        self._checked_s = clock()

    def check(self) -> Dispatcher:
        """Return the dispatcher as it is now."""
        lease, now_s = self._store.seen_lease(), self._clock()
        if lease != self._seen:
            # After a long interval nobody knows when the count grew: the dispatcher may have died right after.
            self._seen, self._moved_s = lease, now_s if now_s - self._checked_s < LONG_S else None
        self._checked_s = now_s
        if lease is None:
            return Dispatcher("", 0, alive=False, seen_s_ago=None)
        ago_s = None if self._moved_s is None else now_s - self._moved_s
        alive = bool(lease.holder) and ago_s is not None and ago_s < ALIVE_S
        return Dispatcher(lease.holder, lease.epoch, alive, ago_s)


class _QueueCollector(Collector):
    """Metrics of the store at the moment of a scrape."""

    def __init__(self, store: Store, monitor: DispatcherMonitor):
        self._store, self._monitor = store, monitor

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering this collector reads nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each metric family once."""
        jobs, counts = GaugeMetricFamily("zsbir_jobs", "Jobs by state.", labels=["state"]), self._store.counts()
        for state in STATES:
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs
        attempts = CounterMetricFamily("zsbir_attempts", "Ended attempts by the cause of their end.", labels=["cause"])
        causes = self._store.causes()
        for cause in CAUSES:
            attempts.add_metric([cause], causes.get(cause, 0))
        yield attempts
        yield self._waits()
        limit = GaugeMetricFamily("zsbir_running_limit", "Attempts that may run at a time.", value=self._store.limits().running)
        yield limit
        alive = float(self._monitor.check().alive)
        yield GaugeMetricFamily("zsbir_dispatcher_alive", "Whether a dispatcher is alive.", value=alive)

    def _waits(self) -> Metric:
        counts, sum_s = self._store.waits(WAIT_BOUNDS_S)
        bounds = [*(f"{bound:.1f}" for bound in WAIT_BOUNDS_S), "+Inf"]
        family = HistogramMetricFamily("zsbir_queue_wait_seconds", "From submission to the first attempt.")
        family.add_metric([], buckets=list(zip(bounds, map(float, counts), strict=True)), sum_value=sum_s)
        return family


class Metrics:
    """All metrics of one application."""

    def __init__(self, store: Store, monitor: DispatcherMonitor):
        self._registry = CollectorRegistry()
        self._registry.register(_QueueCollector(store, monitor))
        labels = ["route", "method", "status"]
        self._requests = Counter("zsbir_http_requests_total", "Requests served.", labels, registry=self._registry)
        self._seconds = Histogram("zsbir_http_request_seconds", "Time to serve one.", ["route"], registry=self._registry)

    def served(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request. route: its template. Text that a client can choose freely never becomes a label."""
        self._requests.labels(route, method if method in METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format. RunError if the store does not answer."""
        return generate_latest(self._registry)
