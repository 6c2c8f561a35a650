"""One function over many chunks of work on Ray actors, with the results in the order of the chunks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from zsbir.base import code
from zsbir.base.errors import ClusterError
from zsbir.edge.ray_cluster import connected
from zsbir.edge.ray_room import Need, Waiting, workers_alive

CHUNKS_A_TASK = 4
"""Chunks in one task, several so that an actor decodes the next while its network computes."""

TASK_TRIES = 3
"""Workers that may be lost over one task before it is given up, because the task itself may kill them."""

PATIENCE_S = 20.0
"""Seconds without a finished task after which it is looked whether the workers are there."""

_AHEAD = 4
"""Tasks for each worker that may be given out or finished before the oldest one is finished."""


def ray_map(
    make: Callable[..., Any],
    arguments: tuple[Any, ...],
    method: str,
    chunks: Iterable[Any],
    *,
    workers: int,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    chunks_a_task: int = CHUNKS_A_TASK,
    tasks_at_once: int = 1,
) -> Iterator[Any]:
    """Call `getattr(make(*arguments), method)(chunks)` on `workers` actors, and yield the results of the chunks in order.

    The method takes a list of chunks and yields one result for each; it is called in `tasks_at_once` threads of an actor. Chunks
    are read from the iterable as they are given out. A lost worker is replaced, and its tasks are tried again. Raises what the
    method raised, InputError where a node runs other code than this process, and ClusterError when a task was lost too often.
    """
    with connected(Need(workers, cpus_per_worker, gpus_per_worker)):
        actor_class = ray.remote(
            num_cpus=cpus_per_worker,
            num_gpus=gpus_per_worker,
            max_restarts=-1,
            max_task_retries=TASK_TRIES - 1,
            max_concurrency=tasks_at_once,
        )(_Actor)
        actors = [actor_class.remote(make, arguments, method, code.running_code()) for _ in range(workers)]
        try:
            for results in _in_order(actors, _tasks(chunks, chunks_a_task), tasks_at_once + 1):
                yield from results
        finally:
            for actor in actors:
                ray.kill(actor)


class _Actor:
    """Makes the object with its first task, so that an error in making it is the task's error, not a lost worker."""

    def __init__(self, make: Callable[..., Any], arguments: tuple[Any, ...], method: str, expected: Mapping[str, str]):
        self._make, self._arguments, self._method, self._expected = make, arguments, method, expected
        self._made: Any = None
        self._lock = threading.Lock()

    def run(self, chunks: Sequence[Any]) -> list[Any]:
        with self._lock:
            if self._made is None:
                code.check_same(self._expected)
                self._made = self._make(*self._arguments)
        return list(getattr(self._made, self._method)(chunks))


def _tasks(chunks: Iterable[Any], size: int) -> Iterator[list[Any]]:
    chunks = iter(chunks)
    while task := list(islice(chunks, size)):
        yield task


def _in_order(actors: Sequence[Any], tasks: Iterator[list[Any]], queue: int) -> Iterator[list[Any]]:
    """Yield results in the order of tasks. A task goes to the actor with the fewest tasks; each has at most `queue` at a time."""
    order: deque[Any] = deque()
    given: dict[Any, int] = {}
    load = [0] * len(actors)
    task = next(tasks, None)
    while order or task is not None:
        while task is not None and min(load) < queue and len(order) < _AHEAD * len(actors):
            actor = load.index(min(load))
            order.append(actors[actor].run.remote(task))
            given[order[-1]] = actor
            load[actor] += 1
            task = next(tasks, None)
        for done in _first_done(given, len(actors)) if given else ():
            load[given.pop(done)] -= 1
        while order and order[0] not in given:
            yield _result(order.popleft())


def _first_done(given: Mapping[Any, int], workers: int) -> list[Any]:
    """Wait for the first of the tasks that is done. Say so where the actors for them have found no room in the cluster."""
    waiting = Waiting()
    while not (done := ray.wait(list(given), num_returns=1, timeout=PATIENCE_S)[0]):
        alive = workers_alive(_Actor.__name__)
        if alive is not None and alive < workers:
            waiting.say(f"{workers} workers to start; {alive} are there")
    waiting.end("a worker has finished a task")
    return list(done)


def _result(reference: Any) -> list[Any]:
    try:
        results: list[Any] = ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None
    except RayActorError as error:
        raise ClusterError(
            f"a Ray worker was lost {TASK_TRIES} times over the same work ({' '.join(str(error).split())[:200]})"
        ) from None
    return results
