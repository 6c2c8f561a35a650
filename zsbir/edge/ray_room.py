"""Whether a Ray cluster has room for the workers that are needed, has had it, or may get it; saying so while one waits for it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import ray
from ray._private.state import state as cluster_state
from ray._private.worker import global_worker

from zsbir.base import events, watch
from zsbir.base.errors import InputError

JOIN_S = 60.0
"""Age in seconds from which on a cluster's nodes are taken to have joined: until then, too few of them are no user's error."""

LOOK_S = 1.0
"""Seconds between two looks at a cluster that has no room."""

REPEAT_S = 60.0
"""Seconds between two lines that say that something still waits."""

ALIVE = 0
"""Ray's state of a node that is alive (GcsNodeInfo)."""


@dataclass(frozen=True)
class Need:
    """What is needed of a cluster: `workers` processes, each of which holds `cpus` and `gpus` on one node."""

    workers: int
    cpus: float = 1.0
    gpus: float = 0.0

    def __str__(self) -> str:
        each = f"{self.cpus:g} CPU{'' if self.cpus == 1 else 's'}"
        each += f" and {self.gpus:g} GPU{'' if self.gpus == 1 else 's'}" if self.gpus else ""
        return f"{self.workers} worker{'' if self.workers == 1 else 's'} of {each}{' each' if self.workers > 1 else ''}"

    def fitting(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """Return how many workers fit on nodes of these resources, at most as many as are needed."""
        return min(self.workers, sum(self._on(node) for node in nodes))

    def _on(self, node: Mapping[str, float]) -> int:
        amounts = ((self.cpus, node.get("CPU", 0.0)), (self.gpus, node.get("GPU", 0.0)))
        return int(min((math.floor(has / needs + 1e-9) for needs, has in amounts if needs), default=self.workers))


@dataclass(frozen=True)
class Node:
    """A node of a cluster. began_s, ended_s: when it joined and left, in seconds since 1970; infinity while it is there."""

    resources: Mapping[str, float]
    began_s: float
    ended_s: float = math.inf


def await_room(need: Need, *, may_grow: bool) -> None:
    """Return once the cluster has nodes for `need`, whether or not others use them at the moment. Wait without a limit, and say so.

    InputError for more than the cluster has ever had at one time, or than its autoscaler can add. may_grow: False for a cluster of
    this process, which no other node joins.
    """
    waiting = Waiting()
    while (fitting := need.fitting(node.resources for node in _nodes() if node.ended_s == math.inf)) < need.workers:
        most = max(fitting, _most_ever(need, _nodes()), _most_to_come(need))
        if most < need.workers and (not may_grow or _age_s() >= JOIN_S):
            verb = "is" if need.workers == 1 else "are"
            raise InputError(
                f"{need} {verb} needed, and the Ray cluster has never had room for more than {most}: "
                "use fewer workers (--num-workers), or smaller ones (--cpus-per-worker, --gpus-per-worker)"
            )
        waiting.say(f"the cluster to have nodes for {need}, it has them for {fitting}")
        time.sleep(LOOK_S)
    waiting.end("the cluster has the nodes")


def _nodes() -> list[Node]:
    """Return every node that the cluster remembers, those that have left included."""
    infos = global_worker.gcs_client.get_all_node_info(timeout=10)
    return [
        Node(
            dict(info.resources_total),
            info.start_time_ms / 1000,
            math.inf if info.state == ALIVE else info.end_time_ms / 1000,
        )
        for info in infos.values()
    ]


def _age_s() -> float:
    """Return the cluster's age, by the clock of this machine."""
    return time.time() - min((node.began_s for node in _nodes()), default=time.time())


def _most_ever(need: Need, nodes: list[Node]) -> int:
    """Return how many of the workers fitted at the best time: a node that came back is not counted twice."""
    times = [node.began_s for node in nodes]
    return max((need.fitting(node.resources for node in nodes if node.began_s <= at_s < node.ended_s) for at_s in times), default=0)


def _most_to_come(need: Need) -> int:
    """Return how many of the workers fit once an autoscaler has added all nodes that it may; 0 without an autoscaler."""
    with suppress(Exception):  # a part of Ray that is not public: without it, only what the cluster has had counts
        config = cluster_state.get_cluster_config()
        groups = config.node_group_configs if config else []
        counts = [(dict(group.resources), need.workers if group.max_count < 0 else group.max_count) for group in groups]
        return need.fitting(resources for resources, count in counts for _ in range(min(count, need.workers)))
    return 0


class Waiting:
    """Says that something waits, for what and since when: on standard error, and to whoever follows this process.

    patience_s: seconds before the first line.
    """

    def __init__(self, patience_s: float = 0.0):
        self._since_s: float | None = None
        self._next_s = 0.0
        self._patience_s = patience_s

    def say(self, what: str) -> None:
        """Say that it waits for `what`, now and once a minute. The first call begins the waiting."""
        now_s = time.time()
        if self._since_s is None:
            self._since_s, self._next_s = now_s, now_s + self._patience_s
        if now_s < self._next_s:
            return
        line = f"waiting since {time.strftime('%H:%M:%S', time.localtime(self._since_s))} for {what}{_free()}"
        watch.record_facts(waiting=line)
        events.say(line)
        self._next_s = now_s + REPEAT_S

    def end(self, why: str) -> None:
        """Say that the waiting is over, if it was ever said that it began."""
        if self._since_s is not None and time.time() - self._since_s >= self._patience_s:
            events.say(f"{why}, after {time.time() - self._since_s:.0f} s")
            watch.record_facts(waiting="")
        self._since_s = None


def _free() -> str:
    """Return what of the cluster is free at the moment, in brackets; empty where it does not say."""
    with suppress(Exception):  # the cluster does not answer for a moment
        has, free = ray.cluster_resources(), ray.available_resources()
        names = [name for name in ("CPU", "GPU") if has.get(name)]
        return f" ({', '.join(f'{free.get(name, 0):g} of {has[name]:g} {name}s are free' for name in names)})" if names else ""
    return ""


def nodes_alive() -> Iterator[Mapping[str, float]]:
    """Yield the resources of each node that is there now."""
    yield from (node.resources for node in _nodes() if node.ended_s == math.inf)


def workers_alive(class_name: str) -> int | None:
    """Return how many actors of a class this Ray job has whose processes are there; None where the cluster does not answer."""
    with suppress(Exception):
        actors = cluster_state.actor_table(None, job_id=global_worker.current_job_id, actor_state_name="ALIVE")
        return sum(1 for actor in actors.values() if actor["ActorClassName"] == class_name)
    return None
