"""Metrics for Prometheus: what is served, what waits, and the requests that this process has answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.search.serving.batches import Batcher
from services.search.serving.catalogue import Catalogue

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10)


class _Collector(Collector):
    """What is so at the moment of a scrape."""

    def __init__(self, catalogue: Catalogue, batcher: Batcher, under_way: Callable[[], int]):
        self._catalogue, self._batcher, self._under_way = catalogue, batcher, under_way

    def describe(self) -> list[Metric]:
        """Return nothing: registering this collector asks nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each metric family once."""
        photos = GaugeMetricFamily(
            "zsbir_search_photos", "Photos of each index that is served.", labels=["alias", "model", "index"]
        )
        for served in self._catalogue.now:
            photos.add_metric([served.alias, served.model, served.digest], served.engine.photos)
        yield photos
        yield GaugeMetricFamily("zsbir_searches_under_way", "Searches that have a place.", value=self._under_way())
        yield GaugeMetricFamily("zsbir_searches_waiting", "Queries that wait for a forward pass.", value=self._batcher.waiting)
        sizes = dict(self._batcher.sizes)
        yield CounterMetricFamily(
            "zsbir_search_batches", "Forward passes, or scans where no image was asked for.", sum(sizes.values())
        )
        queries = sum(size * count for size, count in sizes.items())
        yield CounterMetricFamily("zsbir_search_queries", "Queries answered in these.", queries)


class Metrics:
    """All metrics of one application."""

    def __init__(self, catalogue: Catalogue, batcher: Batcher, under_way: Callable[[], int]):
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(catalogue, batcher, under_way))
        labels = ["route", "method", "status"]
        self._requests = Counter("zsbir_http_requests_total", "Requests served.", labels, registry=self._registry)
        self._seconds = Histogram(
            "zsbir_http_request_seconds", "Time to serve one.", ["route"], buckets=SECONDS, registry=self._registry
        )

    def served(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request. route: its template. Text that a client can choose freely never becomes a label."""
        self._requests.labels(route, method if method in METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)
