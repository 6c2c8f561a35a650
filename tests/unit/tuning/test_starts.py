"""A training or a sweep that starts its classifier from mean features is refused in one line where the knowledge has none."""

from __future__ import annotations

import pytest

import tuning.__main__ as tuning
from services.jobs.runs.validation import check_config
from zsbir import train
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.errors import InputError

LINE = (
    "holds no mean features, from which classifier_start prototypes begins: make it again with python -m zsbir.teacher .*"
    " --mean-features"
)
WITHOUT = "no knowledge given, and classifier_start prototypes begins with what a teacher saw: pass --knowledge"


@pytest.fixture
def given(dataset, knowledge, tmp_path) -> list[str]:
    sizes = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--steps", "2"]
    return ["toy", "--dataset", dataset, "--knowledge", knowledge, *sizes, "--root", str(tmp_path), "--no-tracking"]


def refused(run, words: list[str], line: str = LINE) -> None:
    with pytest.raises(InputError, match=line) as told:
        run(words)
    assert "\n" not in str(told.value)


def test_a_training_says_so(given):
    refused(train._parse, [*given, "--classifier-start", "prototypes"])


def test_a_sweep_says_so_for_its_recipe_and_for_every_start_that_it_tries(given, tmp_path):
    refused(tuning._parse, [*given, "--classifier-start", "prototypes"])
    space = tmp_path / "space.yaml"
    space.write_text("classifier_start: [random, prototypes]\n")
    refused(tuning._parse, [*given, "--space", str(space)])


def test_a_sweep_without_knowledge_says_so(given, weights, tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("classifier_start: [random, prototypes]\n")
    at = given.index("--knowledge")
    words = [*given[:at], *given[at + 2 :], "--weight-preservation", "0", "--weights", weights]
    refused(tuning._parse, [*words, "--space", str(space)], WITHOUT)


def test_the_queue_says_so_when_a_job_is_submitted(dataset, knowledge, pipeline_root):
    config = {"dataset": dataset, "knowledge": knowledge, "recipe": "toy", "classifier_start": "prototypes", "classes_per_batch": 4}
    allowed = AllowedPaths([str(pipeline_root)])
    for kind in ("train", "sweep"):
        with pytest.raises(InputError, match=f"{kind}: field 'knowledge': .*{LINE}"):
            check_config(kind, config, allowed)
