"""How many workers a cluster has room for: now, at its best time, and once it has grown."""

from __future__ import annotations

import pytest
from ray.core.generated import autoscaler_pb2

from zsbir.base.errors import InputError
from zsbir.edge import ray_room
from zsbir.edge.ray_room import Need, Node, Waiting, await_room

SMALL, LARGE, GPU = {"CPU": 1.0}, {"CPU": 8.0}, {"CPU": 8.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("need", "nodes", "fitting"),
    [
        (Need(4), [SMALL, SMALL], 2),
        (Need(4), [LARGE], 4),
        (Need(2, cpus=4), [{"CPU": 2.0}] * 4, 0),
        (Need(3, cpus=0.1), [{"CPU": 0.3}], 3),
        (Need(4, cpus=1, gpus=1), [LARGE, GPU], 2),
        (Need(4, cpus=1, gpus=0.5), [GPU], 4),
        (Need(1, gpus=1), [{}], 0),
        (Need(1), [], 0),
    ],
)
def test_a_worker_fits_on_one_node_or_not_at_all(need, nodes, fitting):
    assert need.fitting(nodes) == fitting


def test_a_node_that_came_back_is_not_counted_twice():
    nodes = [Node(SMALL, 0), Node(SMALL, 10, 20), Node(SMALL, 30, 40), Node(SMALL, 35, 50)]
    assert ray_room._most_ever(Need(9), nodes) == 3


@pytest.fixture
def cluster(monkeypatch):
    """A cluster as a list of its nodes that a test changes, and what an autoscaler may add; the time goes on with each look."""
    nodes: list[Node] = []
    config = autoscaler_pb2.ClusterConfig()
    looks = []

    def wait(seconds):
        looks.append(seconds)
        if len(looks) == 5:
            nodes.append(Node(LARGE, 100))
        assert len(looks) < 10, "it would wait for ever"

    monkeypatch.setattr(ray_room, "_nodes", lambda: list(nodes))
    monkeypatch.setattr(ray_room, "_free", lambda: "")
    monkeypatch.setattr(ray_room.time, "sleep", wait)
    monkeypatch.setattr(ray_room.cluster_state, "get_cluster_config", lambda: config)
    return nodes, config, looks


def test_more_than_the_cluster_ever_had_is_the_users_error(cluster):
    nodes, _, looks = cluster
    nodes += [Node(SMALL, 0), Node(SMALL, 5, 6)]
    with pytest.raises(
        InputError, match=r"3 workers of 1 CPU each are needed, .* never had room for more than 2: use fewer workers"
    ):
        await_room(Need(3), may_grow=True)
    assert not looks


def test_what_the_cluster_had_yesterday_is_waited_for_and_said(cluster, capsys):
    nodes, _, looks = cluster
    nodes += [Node(SMALL, 0), Node(SMALL, 5, 6)]
    await_room(Need(2), may_grow=True)
    assert len(looks) == 5
    waiting, over = capsys.readouterr().err.splitlines()
    assert waiting.startswith("waiting since ")
    assert "2 workers of 1 CPU each, it has them for 1" in waiting
    assert over.startswith("the cluster has the nodes, after ")


@pytest.mark.parametrize(("count", "waits"), [(2, True), (-1, True), (1, False)])
def test_what_an_autoscaler_can_add_is_waited_for(count, waits, cluster):
    nodes, config, looks = cluster
    nodes += [Node(SMALL, 0)]
    config.node_group_configs.add(resources={"CPU": 1}, max_count=count)
    if waits:
        await_room(Need(2), may_grow=True)
    else:
        with pytest.raises(InputError, match="never had room for more than 1"):
            await_room(Need(2), may_grow=True)
    assert bool(looks) == waits


def test_nodes_of_a_young_cluster_may_still_be_joining(cluster, monkeypatch):
    nodes, _, looks = cluster
    nodes += [Node(SMALL, 1000)]
    monkeypatch.setattr(ray_room.time, "time", lambda: 1000 + ray_room.JOIN_S / 2)
    await_room(Need(2), may_grow=True)
    assert looks
    nodes[:] = [Node(SMALL, 1000)]
    with pytest.raises(InputError):
        await_room(Need(2), may_grow=False)  # nobody else knows the cluster of one command


def test_waiting_is_said_once_a_minute_and_only_where_it_takes_long(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(ray_room, "_free", lambda: "")
    monkeypatch.setattr(ray_room.time, "time", lambda: now)
    waiting = Waiting(patience_s=20)
    for now in range(0, 15):  # noqa: B007 - read by the clock
        waiting.say("room")
    waiting.end("there is room")
    assert capsys.readouterr().err == ""
    for now in range(100, 100 + 20 + 121):  # noqa: B007
        waiting.say("room")
    waiting.end("there is room")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert len(set(lines[:3])) == 1, "since when stays the same"
    assert lines[3] == "there is room, after 140 s"
