"""A head and three nodes that share nothing but object storage, each broken in turn. With -s, every test prints times and losses.

A shorter form of what the queue promises is in tests/services/jobs/system, of trainings in test_nodes.py and test_ray.py.
"""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from servers.cluster import Command, Training, changed_copy, lose_a_node, make_whole, workers

from zsbir.base.artifact import Artifact

pytestmark = [pytest.mark.slow, pytest.mark.long]

TOLERANCE = 0.02
"""How far dev scores of two workers may be from those of one: docs/method.md states it."""
SAME_LOSS, ALIKE_LOSS = 1e-5, 1e-3
"""How far losses may be apart, relative: of the first two steps, which only rounding changes, and of the two after them."""
ALL = [0, 1, 2, 3]
OFTEN = ["--steps", "4000", "--checkpoint-every-steps", "20"]


@pytest.fixture
def whole(cluster):
    """All four machines, running."""
    make_whole(cluster, ALL)
    return cluster


def verb(cluster, folder, *words: str) -> str:
    """Run a command on the head; return the last line that it prints."""
    log = folder / "verb.log"
    log.unlink(missing_ok=True)
    command = Command(cluster, 0, ["sh", "-c", '"$@" 2>/dev/null', "sh", "python", "-m", *words], log)
    assert command.process.wait(900) == 0, command.said()[-3000:]
    return command.said().strip().splitlines()[-1]


def checksums(artifact: Artifact) -> dict[str, str]:
    return {name: entry.sha256 for name, entry in artifact.manifest.files.items()}


def going_on(training: Training, what: str, resumptions: int, at: int, began: float) -> None:
    """Wait until a training has resumed and saved again; print how long that took and what it cost."""
    training.until_said("resuming at step", resumptions)
    step, took_s = training.resumed_steps()[resumptions - 1], time.monotonic() - began
    training.until(lambda: training.saved_step() > step)
    print(f"\nMEASURED {what}: going on after {took_s:.0f} s, from step {step}, {max(0, at - step)} of the reported steps lost")


def test_two_nodes_make_the_data_set_and_the_knowledge_of_one_process_to_the_bit(whole, tmp_path, weights):
    bucket = f"s3://{whole.facts.store['bucket']}"
    disk = whole.disk(0) / "tmp" / "weights.safetensors"
    disk.write_bytes(Path(weights).read_bytes())
    sizes = ["--toy-photos-per-class", "6", "--toy-sketches-per-class", "6", "--toy-px", "48"]
    teach = ["--backbone", "resnet18", "--weights", "/tmp/weights.safetensors", "--image-px", "32"]
    made = {}
    for workers_ in ("2", "0"):
        root = ["--num-workers", workers_, "--root", f"{bucket}/same-{workers_}"]
        dataset = verb(whole, tmp_path, "zsbir.ingest", "toy", *sizes, *root)
        knowledge = verb(whole, tmp_path, "zsbir.teacher", dataset, *teach, *root)
        made[workers_] = [Artifact(dataset, "dataset"), Artifact(knowledge, "knowledge")]
    for two, one in zip(*made.values(), strict=True):
        assert two.digest == one.digest
        assert checksums(two) == checksums(one)


def test_a_training_over_two_nodes_is_that_of_one_process(whole, inputs, tmp_path):
    twice = []
    for workers_ in ("2", "0"):
        more = ["--steps", "24", "--eval-every-steps", "6", "--num-workers", workers_]
        training = Training(whole, inputs, f"equal-{workers_}", tmp_path, *more)
        if workers_ == "2":
            training.until(lambda: sum(bool(workers(whole, number)) for number in (1, 2, 3)) == 2)
        run = training.ended()
        rows = pq.read_table(run.file("history.parquet")).to_pylist()
        scores = [row["dev/map_all"] for row in rows if row["dev/map_all"] is not None]
        twice.append((run.folder_name, scores, [row["loss"] for row in rows if row["loss"] is not None]))
    (two_name, two, two_losses), (one_name, one, one_losses) = twice
    apart = max(abs(a - b) for a, b in zip(two, one, strict=True))
    losses = [abs(a - b) / b for a, b in zip(two_losses, one_losses, strict=True)]
    shown = ", ".join(f"{losses[step - 1]:.1e}" for step in (1, 2, 4, 8, 24))
    print(f"\nMEASURED training over two nodes and in one process: dev scores at most {apart:.6f} apart, of {len(two)}")
    print(f"MEASURED losses of steps 1, 2, 4, 8, 24 apart by {shown} of themselves")
    assert two_name == one_name
    assert two == pytest.approx(one, abs=TOLERANCE)
    assert max(losses[:2]) < SAME_LOSS  # the loss of the same weights and images, and that of one step by its gradient
    assert max(losses[:4]) < ALIKE_LOSS


def test_nodes_are_killed_with_a_spare_and_missing_for_minutes(whole, train):
    training = train(*OFTEN)
    training.until(lambda: training.saved_step() >= 20)
    at, began = training.last_step(), time.monotonic()
    victim, _ = lose_a_node(whole, training, [1, 2, 3])
    going_on(training, "a node killed with a spare", 1, at, began)

    left = [number for number in (1, 2, 3) if number != victim]
    at, began = training.last_step(), time.monotonic()
    second, _ = lose_a_node(whole, training, left)
    training.until_said("waiting since")
    time.sleep(300)
    assert training.process.poll() is None, training.said()[-3000:]
    assert training.waiting()
    whole.start(second)
    going_on(training, "a node killed without a spare, missing for 300 s", 2, at, began)
    training.stop()


@pytest.mark.parametrize("seconds", [20, 60])
def test_a_node_without_network_costs_no_training(cluster, train, seconds):
    make_whole(cluster, [0, 1, 2])
    training = train(*OFTEN)
    training.until(lambda: training.saved_step() >= 20)
    cut = next(number for number in (1, 2) if workers(cluster, number))
    at, began = training.last_step(), time.monotonic()
    cluster.cut(cut)
    time.sleep(seconds)
    cluster.mend(cut)
    training.until(lambda: training.resumed_steps() or training.last_step() > at + 10)
    if training.resumed_steps():
        going_on(training, f"no network for {seconds} s", 1, at, began)
    else:
        took_s = time.monotonic() - began
        print(f"\nMEASURED no network for {seconds} s: the workers waited, going on after {took_s:.0f} s, no step lost")
        training.until(lambda: training.saved_step() > at)
    training.stop()


def test_a_training_goes_on_while_the_store_is_away_for_half_a_minute(whole, train):
    training = train(*OFTEN)
    training.until(lambda: training.saved_step() >= 20)
    at, saved, began = training.last_step(), training.saved_step(), time.monotonic()
    whole.s3_down()
    time.sleep(30)
    meanwhile = training.last_step()
    whole.s3_up()
    training.until(lambda: training.saved_step() > max(saved, at))
    took_s = time.monotonic() - began - 30
    assert not training.resumed_steps()
    print(
        f"\nMEASURED the store away for 30 s: {meanwhile - at} steps meanwhile, the next checkpoint {took_s:.0f} s after that,",
        "no step lost",
    )
    training.stop()


def test_the_machine_with_other_code_is_named(cluster, train):
    make_whole(cluster, [0, 1])
    cluster.boot(2)
    cluster.join(2, {"PYTHONPATH": changed_copy(cluster, 2)})
    training = train("--steps", "20")
    assert training.process.wait(900) == 2, training.said()[-3000:]
    assert "error: node node2 runs other code than the command: zsbir/losses/quadruplet.py" in training.said()
    cluster.unplug(2)
