"""Trainings of several seeds side by side on a real Ray: the same runs as one after another, stopped, and gone on with."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from zsbir import train
from zsbir.base.artifact import Artifact, exists

pytestmark = pytest.mark.slow

SMALL = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--no-tracking", "--precision", "fp32"]
EVERY = ["--eval-every-steps", "3", "--checkpoint-every-steps", "1000", "--log-every-steps", "3"]


def words(dataset: str, knowledge: str, root: Path, steps: int, *more: str) -> list[str]:
    inputs = ["--dataset", dataset, "--knowledge", knowledge, "--root", str(root)]
    return ["toy", *inputs, *SMALL, *EVERY, "--steps", str(steps), *more]


def start(environment: dict[str, str], *arguments: str, stderr: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "zsbir.train", *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=stderr)


def test_they_are_the_runs_that_each_seed_makes_alone(head, dataset, knowledge, tmp_path):
    options = ["--seeds", "2,0,1", "--side-by-side", "2"]
    process = start(head, *words(dataset, knowledge, tmp_path, 6, *options))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-4000:]
    runs = [Artifact(uri, "run") for uri in out.split()]
    assert [run.manifest.config["seed"] for run in runs] == [2, 0, 1]
    for seed in (0, 1, 2):
        steps = re.findall(rf"^seed {seed}: step (\d): dev/map_all 0\.\d{{3}}$", err, re.MULTILINE)
        assert steps == ["3", "6"], err
    alone = Artifact(train._parse(words(dataset, knowledge, tmp_path / "alone", 6, "--seed", "1")), "run")
    assert alone.folder_name == runs[2].folder_name
    assert alone.manifest.facts["best_dev_map_all"] == pytest.approx(runs[2].manifest.facts["best_dev_map_all"], abs=1e-3)


def test_an_interruption_saves_a_checkpoint_of_each_and_the_same_command_goes_on(head, dataset, knowledge, tmp_path):
    command = words(dataset, knowledge, tmp_path, 60, "--seeds", "0,1", "--side-by-side", "2")
    file = tmp_path / "told.txt"
    with file.open("w") as stderr:
        process = start(head, *command, stderr=stderr)
    deadline = time.monotonic() + 120
    while not all(f"seed {seed}: step" in file.read_text() for seed in (0, 1)):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(file.read_text()[-4000:])
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    err = file.read_text()
    assert process.returncode == 130, err[-4000:]
    assert re.search(r"interrupted: seed 0: checkpoint of step \d+ saved in .*; the same command goes on from there", err)
    assert re.search(r"warning: seed 1: checkpoint of step \d+ saved in", err)
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert len(list((folder / "checkpoints").glob("step-*/manifest.json"))) == 1
        assert not exists(str(folder))
        assert not list(folder.glob(".stop")), "the mark that asked for it is gone"
    again = start(head, *command)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err[-4000:]
    assert {Path(uri).name for uri in out.split()} == {folder.name for folder in folders}
    for uri in out.split():
        Artifact(uri, "run").verify()
    for seed in (0, 1):
        (step,) = re.findall(rf"^seed {seed}: resuming at step (\d+)$", err, re.MULTILINE)
        scored = re.findall(rf"^seed {seed}: step (\d+):", err, re.MULTILINE)
        assert all(int(each) > int(step) for each in scored), "nothing is trained, or told, again"


def test_an_error_of_one_seed_does_not_end_the_others(head, dataset, knowledge, tmp_path):
    options = ["--seeds", "0,1", "--side-by-side", "2", "--lr", "1e30"]
    process = start(head, *words(dataset, knowledge, tmp_path, 6, *options))
    out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (1, ""), err[-4000:]
    assert re.search(r"^error: seed 0: training has diverged: .*; all 2 seeds failed$", err, re.MULTILINE)
    assert re.search(r"^warning: seed 1: training has diverged", err, re.MULTILINE)
