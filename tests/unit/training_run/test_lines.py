"""What a training prints while it runs: how long it will take, each dev score, and what it keeps."""

from __future__ import annotations

import re

import pytest

from zsbir import train
from zsbir.base.artifact import Artifact

SMALL = [
    "--image-px",
    "32",
    "--classes-per-batch",
    "2",
    "--per-class",
    "1",
    "--steps",
    "4",
    "--eval-every-steps",
    "2",
    "--no-tracking",
]


@pytest.fixture
def words(dataset, knowledge, tmp_path):
    return ["toy", "--dataset", dataset, "--knowledge", knowledge, "--root", str(tmp_path), *SMALL]


@pytest.mark.slow
def test_it_says_how_long_it_takes_then_each_dev_score_then_the_kept_one(words, capsys):
    run = Artifact(train._parse(words), "run")
    told = capsys.readouterr().err
    began, *rest = told.splitlines()
    assert re.fullmatch(
        r"4 steps of 4 images, 2 classes in each, resnet18 at 32 px on the CPU with \d+ threads?: less than a minute", began
    )
    scores = [line for line in rest if line.startswith("dev/map_all ")]
    assert re.fullmatch(r"dev/map_all 0\.\d{3} at step 2 \(the best so far\)", scores[0])
    assert re.fullmatch(r"dev/map_all 0\.\d{3} at step 4 \((the best so far|best 0\.\d{3} at step 2)\)", scores[1])
    step, score = run.manifest.counts["best_step"], run.manifest.facts["best_dev_map_all"]
    assert rest[-1] == f"kept: step {step}, dev/map_all {score:.3f}"
    train._parse(words)
    assert capsys.readouterr().err.splitlines() == [f"already trained: {run.uri}", rest[-1]]


@pytest.mark.slow
def test_a_final_training_has_no_dev_score_and_keeps_its_last_step(words, capsys):
    train._parse([*words, "--train-on-dev"])
    told = capsys.readouterr().err
    assert "dev/map_all" not in told
    assert told.splitlines()[-1] == "kept: step 4, the last one, since no dev classes were held out to score the steps"
