"""Ray for real: a head of our own on this machine, jobs submitted to it, workers that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from servers.ray_head import train_workers

from zsbir.base.artifact import Artifact

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]
DEV_TOLERANCE = 0.02
"""How far the final dev mAP of 2 workers may be from that of 1: the same batches and the same loss, but other rounding,
which training amplifies. Stated in docs/method.md."""


def train_options(dataset: str, knowledge: str, root: Path, *more: str) -> list[str]:
    options = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--steps", "12", "--precision", "fp32"]
    every = ["--checkpoint-every-steps", "4", "--eval-every-steps", "6", "--log-every-steps", "1"]
    return [
        "-m",
        "zsbir.train",
        "toy",
        "--dataset",
        dataset,
        "--knowledge",
        knowledge,
        "--root",
        str(root),
        *options,
        *every,
        *more,
    ]


def submit(environment: dict[str, str], *arguments: str) -> str:
    """`ray job submit` of a Python command with this repository as working directory; its log."""
    command = [str(BIN / "ray"), "job", "submit", "--working-dir", ".", "--", "python", *arguments]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, text=True, capture_output=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dev_curve(run: Path) -> list[float]:
    rows = pq.read_table(Artifact(run, "run").file("history.parquet"), columns=["dev/map_all"]).to_pylist()
    return [row["dev/map_all"] for row in rows if row["dev/map_all"] is not None]


def test_a_submitted_job_trains_on_two_workers_as_one_process_does(head, dataset, knowledge, tmp_path):
    log = submit(head, *train_options(dataset, knowledge, tmp_path / "two", "--num-workers", "2"))
    runs = list((tmp_path / "two" / "runs").iterdir())
    assert len(runs) == 1
    assert str(runs[0]) in log
    alone = [sys.executable, *train_options(dataset, knowledge, tmp_path / "one", "--no-tracking")]
    out = subprocess.run(alone, env=head, text=True, capture_output=True, timeout=300, check=True).stdout.strip()
    assert Path(out).name == runs[0].name, "the number of workers is no part of what a run is"
    two, one = dev_curve(runs[0]), dev_curve(Path(out))
    assert len(two) == len(one) == 2
    assert two == pytest.approx(one, abs=DEV_TOLERANCE)
    assert (tmp_path / "two" / "mlflow.db").exists()


def test_a_killed_worker_is_replaced_and_training_goes_on_from_the_last_checkpoint(head, dataset, knowledge, tmp_path):
    options = train_options(dataset, knowledge, tmp_path, "--num-workers", "2", "--no-tracking", "--steps", "30")
    process = subprocess.Popen([sys.executable, *options], env=head, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("runs/*/checkpoints/step-000008/manifest.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim = train_workers(head)[0]
    victim.send_signal(signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("\n") == 1, "standard output is the URI alone, whatever Ray prints"
    run = Artifact(out.strip(), "run")
    assert run.manifest.counts["steps"] == 30
    assert "resuming at step" in err


@pytest.mark.parametrize(
    "every", [["--checkpoint-every-steps", "1", "--log-every-steps", "100"], ["--checkpoint-every-steps", "100"]]
)
def test_a_training_that_diverges_on_one_worker_or_on_all_is_not_tried_again(head, dataset, knowledge, tmp_path, every):
    """Only the first worker sees weights that are not finite, when it saves them; all of them see a loss that is not."""
    options = train_options(dataset, knowledge, tmp_path, "--num-workers", "2", "--no-tracking", "--lr", "2e37", *every)
    done = subprocess.run([sys.executable, *options], env=head, text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith("error: training has diverged: ")
    assert "lower the learning rates" in line
    assert done.stderr.count("asked to stop") == done.stderr.count("resuming") == 0
    (run,) = tmp_path.glob("runs/*")
    assert {path.name for path in run.iterdir()} <= {".lock", "checkpoints"}, "no mark is left that would stop the next attempt"


def test_the_teacher_says_the_same_on_two_ray_workers_as_in_one_process(head, dataset, weights, tmp_path):
    options = [
        "-m",
        "zsbir.teacher",
        dataset,
        "--backbone",
        "resnet18",
        "--weights",
        weights,
        "--image-px",
        "32",
        "--precision",
        "fp32",
    ]
    tables = []
    for name, workers in (("ray", "2"), ("alone", "0")):
        command = [sys.executable, *options, "--root", str(tmp_path / name), "--num-workers", workers]
        out = subprocess.run(command, env=head, text=True, capture_output=True, timeout=200, check=True).stdout.strip()
        tables.append(pq.read_table(Artifact(out, "knowledge").file("knowledge.parquet")))
    assert tables[0].equals(tables[1])


def test_more_workers_than_the_cluster_ever_had_are_refused(head, dataset, knowledge, tmp_path):
    command = [sys.executable, *train_options(dataset, knowledge, tmp_path, "--num-workers", "4", "--no-tracking")]
    done = subprocess.run(command, env=head, text=True, capture_output=True, timeout=240, check=False)
    assert done.returncode == 2
    assert "4 workers of 1 CPU each are needed, and the Ray cluster has never had room for more than 2" in done.stderr
