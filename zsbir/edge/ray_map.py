"""The same work on many workers: chunks dealt out to actors, results in the chunks' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray

from zsbir.edge.ray_cluster import connected

CHUNKS_A_TASK = 4
"""So that an actor decodes ahead of its network."""


def ray_map(
    make: Callable[..., Any],
    arguments: tuple[Any, ...],
    method: str,
    chunks: Sequence[Any],
    *,
    workers: int,
    gpus_per_worker: float = 0,
) -> Iterator[Any]:
    """`getattr(make(*arguments), method)(chunks)` over `workers` actors; yields the results of the chunks in order.

    The method takes a list of chunks and yields one result for each. A lost worker's tasks are tried again on a new one.
    """
    with connected(cpus=workers, gpus=workers * gpus_per_worker):
        actor_class = ray.remote(num_cpus=1, num_gpus=gpus_per_worker, max_restarts=2, max_task_retries=2)(_Actor)
        actors = [actor_class.remote(make, arguments, method) for _ in range(workers)]
        tasks = [chunks[start : start + CHUNKS_A_TASK] for start in range(0, len(chunks), CHUNKS_A_TASK)]
        waiting: deque[Any] = deque()
        for number, task in enumerate(tasks):
            waiting.append(actors[number % workers].run.remote(task))
            if len(waiting) > 2 * workers:
                yield from ray.get(waiting.popleft())
        while waiting:
            yield from ray.get(waiting.popleft())
        for actor in actors:
            ray.kill(actor)


class _Actor:
    def __init__(self, make: Callable[..., Any], arguments: tuple[Any, ...], method: str):
        self._call = getattr(make(*arguments), method)

    def run(self, chunks: Sequence[Any]) -> list[Any]:
        return list(self._call(chunks))
