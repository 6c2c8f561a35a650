"""Trainings over several machines that are lost, missing, or run other code; test_three_nodes.py has machines of their own."""

from __future__ import annotations

import re
import time

import pytest
from servers.cluster import LONG_S, changed_copy, lose_a_node, make_whole, until_ray_sees

from zsbir.base.code import package_sha256

pytestmark = pytest.mark.slow


def test_a_node_is_lost_with_a_spare_and_without_and_the_training_goes_on(cluster, train):
    make_whole(cluster, [0, 1, 2, 3])
    training = train("--steps", "5000")
    training.until(lambda: training.saved_step() >= 10)
    victim, saved = lose_a_node(cluster, training, [1, 2, 3])
    training.until_said("resuming at step")
    assert training.resumed_steps()[0] >= saved

    training.until(lambda: training.saved_step() > training.resumed_steps()[0])
    left = [number for number in (1, 2, 3) if number != victim]
    second, saved = lose_a_node(cluster, training, left)
    training.until_said("waiting since")
    assert "2 workers of 1 CPU each to start; 1 are there" in training.said() or "; 0 are there" in training.said()
    training.until(training.waiting)
    time.sleep(5)
    cluster.start(second)
    training.until(lambda: len(training.resumed_steps()) > 1)
    training.until_said(r"the workers are there, after \d+ s")
    training.until(lambda: not training.waiting())
    assert training.resumed_steps()[1] >= saved
    training.until(lambda: training.saved_step() > training.resumed_steps()[1])
    training.stop()


@pytest.mark.long
def test_a_start_without_room_waits_for_a_node_that_the_cluster_has_had(cluster, train):
    make_whole(cluster, [0, 1, 2])
    cluster.unplug(2)
    until_ray_sees(cluster, [0, 1])
    training = train("--steps", "20")
    training.until_said("waiting since .* for the cluster to have nodes for 2 workers of 1 CPU each, it has them for 1")
    cluster.start(2)
    assert training.ended().manifest.counts["steps"] == 20
    refused = train("--steps", "20", "--seed", "1", "--num-workers", "8")
    assert refused.process.wait(LONG_S) == 2
    assert re.search("never had room for more than [23]", refused.said())


@pytest.mark.long
def test_a_node_with_other_code_is_refused_by_name_before_the_first_step(cluster, train):
    make_whole(cluster, [0, 1])
    cluster.boot(2)
    cluster.join(2, {"PYTHONPATH": changed_copy(cluster, 2)})
    training = train("--steps", "20")
    assert training.process.wait(LONG_S) == 2, training.said()[-3000:]
    assert "error: node node2 runs other code than the command: zsbir/losses/quadruplet.py; install the same" in training.said()
    assert not training.saved_step()
    cluster.unplug(2)
    cluster.start(2)
    run = train("--steps", "20").ended()
    assert run.manifest.code["package_sha256"] == package_sha256()
