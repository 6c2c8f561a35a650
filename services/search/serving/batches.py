"""Gathers the queries that arrive within a few milliseconds into one forward pass, and refuses those that it cannot answer in time.

One thread computes; torch and the scan use the cores. The queue in front of it is bounded, so that no load can fill the memory.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from services.common.errors import Busy
from services.search.serving.catalogue import Served
from zsbir.base import events
from zsbir.retrieval.options import SearchOptions
from zsbir.search_run.hits import Hit

MOST = 32
"""Queries of one forward pass."""

GATHER_S = 0.003
"""Seconds that the first query of a batch waits for others."""

MOST_WAITING = 128
"""Queries that may wait: four full batches."""


@dataclass(eq=False)
class Query:
    """One query: an image as its encoder takes it, or a photo of the index, whose neighbours are asked for.

    among: the photos to rank, None for all. options: how they are ranked, None for the index's own. until_s: the moment, by
    `time.monotonic`, after which nobody waits for the answer any more.
    """

    served: Served
    k: int
    pixels: np.ndarray | None = None
    row: int = -1
    among: np.ndarray | None = None
    min_score: float | None = None
    options: SearchOptions | None = None
    until_s: float = float("inf")
    answer: Future[list[Hit]] = field(default_factory=Future)


class Batcher:
    """The thread that computes. most, gather_s, most_waiting: as the constants of this module."""

    def __init__(self, *, most: int = MOST, gather_s: float = GATHER_S, most_waiting: int = MOST_WAITING):
        self._most, self._gather_s = most, gather_s
        self._waiting: queue.Queue[Query | None] = queue.Queue(most_waiting)
        self.sizes: dict[int, int] = {}
        """How many batches there were of each size."""
        self._thread = threading.Thread(target=self._run, daemon=True, name="search")
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many queries wait for a forward pass at the moment."""
        return self._waiting.qsize()

    def submit(self, query: Query) -> Future[list[Hit]]:
        """Return the future answer of a query. Busy where too many wait already."""
        try:
            self._waiting.put_nowait(query)
        except queue.Full:
            raise Busy("more searches wait than this service can answer in time; try again", retry_after_s=1) from None
        return query.answer

    def close(self) -> None:
        """End the thread, after the queries that wait."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """Answer the next batch; return False at the end. Nothing of it is kept, so that a replaced index can be closed."""
        batch = self._gather()
        groups: dict[int, list[Query]] = {}
        for query in batch or ():
            groups.setdefault(id(query.served), []).append(query)
        for group in groups.values():
            _answer(group)
        return batch is not None

    def _gather(self) -> list[Query] | None:
        """Return the next queries that somebody still waits for; None at the end."""
        first = self._waiting.get()
        batch, until_s = [first], time.monotonic() + self._gather_s
        while batch[-1] is not None and len(batch) < self._most:
            left_s = until_s - time.monotonic()
            try:
                batch.append(self._waiting.get(timeout=left_s) if left_s > 0 else self._waiting.get_nowait())
            except queue.Empty:
                break
        if batch[-1] is None:
            batch.pop()
            if not batch:
                return None
            self._waiting.put(None)
        live = [query for query in batch if query and query.answer.set_running_or_notify_cancel()]
        now_s = time.monotonic()
        for query in live:
            if query.until_s <= now_s:
                query.answer.set_exception(Busy("the search was not begun within its time; try again"))
        live = [query for query in live if not query.answer.done()]
        self.sizes[len(live)] = self.sizes.get(len(live), 0) + 1
        return live


def _answer(group: Sequence[Query]) -> None:
    """Answer queries of one index. Where that fails each is answered by itself, so that an error is that of one query alone."""
    try:
        engine = group[0].served.engine
        drawn = [(query, query.pixels) for query in group if query.pixels is not None]
        vectors = iter(engine.embed_pixels([pixels for _, pixels in drawn]) if drawn else ())
        together: dict[SearchOptions | None, list[tuple[Query, np.ndarray]]] = {}
        for (query, _), vector in zip(drawn, vectors, strict=True):
            if query.among is None:
                together.setdefault(query.options, []).append((query, vector))
            else:
                _give(query, engine.find(vector[None], query.k, among=query.among, options=query.options)[0])
        for options, asked in together.items():
            found = engine.find(np.stack([vector for _, vector in asked]), max(query.k for query, _ in asked), options=options)
            for (query, _), hits in zip(asked, found, strict=True):
                _give(query, hits)
        for query in group:
            if query.pixels is None:
                _give(query, engine.neighbours(query.row, query.k, among=query.among, options=query.options))
    except Exception as error:  # noqa: BLE001 - it is raised where the answer is waited for
        left = [query for query in group if not query.answer.done()]
        if len(group) > 1:
            for query in left:
                _answer([query])
            return
        for query in left:
            query.answer.set_exception(error)
        events.warn(f"a search failed: {error}")


def _give(query: Query, hits: Sequence[Hit]) -> None:
    lowest = query.min_score
    query.answer.set_result([hit for hit in hits[: query.k] if lowest is None or hit.score >= lowest])
