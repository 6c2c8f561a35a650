"""A weight file of a network of timm, its matrices in float16 and its vectors in float32: teacher and training start from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from zsbir import teacher, train
from zsbir.base.artifact import Artifact
from zsbir.model.encoder import Encoder

MODEL = "test_efficientnet.r160_in1k"
"""As small as timm has them, of the family of EfficientNet-Lite2."""

NETWORK = ["--backbone", f"timm:{MODEL}", "--image-px", "32"]


@pytest.fixture(scope="module")
def half(module_path: Path) -> Path:
    torch.manual_seed(0)
    state = timm.create_model(MODEL, num_classes=10).state_dict()
    half = {name: value.half() if value.ndim > 1 else value for name, value in state.items()}
    assert {value.dtype for value in half.values()} == {torch.float16, torch.float32, torch.int64}
    save_file(half, module_path / "half.safetensors")
    return module_path / "half.safetensors"


@pytest.mark.parametrize("weight_preservation", ["0", "0.3"])
def test_teacher_and_training_start_from_a_float16_file_of_a_network_of_timm(dataset, half, tmp_path, weight_preservation):
    root = ["--root", str(tmp_path)]
    words = ["toy", "--dataset", dataset, *NETWORK, "--embedding-dim", "8", "--steps", "1", "--lr-backbone", "0", "--no-tracking"]
    words += ["--classes-per-batch", "2", "--per-class", "1", "--weight-preservation", weight_preservation]
    if weight_preservation != "0":
        knowledge = Artifact(teacher._parse([dataset, *NETWORK, "--weights", str(half), *root]), "knowledge")
        assert knowledge.manifest.counts["labels"] == 10
        words += ["--knowledge", knowledge.uri]
    run = Artifact(train._parse([*words, "--weights", str(half), *root]), "run")
    trained = Encoder.load(run.verified("encoder.safetensors")).trunk.state_dict()
    given = load_file(half)
    for name, value in trained.items():
        assert torch.equal(value, given[name].to(value.dtype)), name
