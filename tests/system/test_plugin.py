"""Losses and a backbone of another package (`tests/plugin`) through everything that this project does with its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from plugged import install, remove
from safetensors.torch import load_file, save_file
from servers.ray_head import ray_head

from tuning.table import read_trials
from zsbir import evaluate, export, index, promote, search, train
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.model.backbones import network_of
from zsbir.model.encoder import Encoder

pytestmark = pytest.mark.slow

SKETCH = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "sketch.png"
STEPS = 12
SIZES = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--steps", str(STEPS)]
EVERY = ["--checkpoint-every-steps", "4", "--eval-every-steps", "4", "--log-every-steps", "4"]
OTHERS = ["--backbone", "tiny", "--losses", "centre,recent", "--weight-centre", "0.5", "--centre-power", "1.5"]
STATEFUL = ["--drop-path", "0.4", "--average-decay", "0.9", "--quadruplet-memory", "2", "--weight-preservation", "0"]
LONG = 240


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which the package is installed, for this process and for those that it starts."""
    folder = tmp_path / "packages"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    install(folder)
    yield folder
    remove(folder)


@pytest.fixture
def inputs(packages: Path, dataset: str, tmp_path: Path) -> list[str]:
    """Flags that name the data set and the weights to start from."""
    torch.manual_seed(0)
    save_file(network_of("tiny").build(5).state_dict(), tmp_path / "tiny.safetensors")
    return ["--dataset", dataset, "--weights", str(tmp_path / "tiny.safetensors")]


def killed_halfway(words: list[str], root: Path) -> None:
    """Train in a process that is killed once its first checkpoint is there."""
    command = [sys.executable, "-m", "zsbir.train", *words, "--root", str(root)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + LONG
    while not list(root.glob("runs/*/checkpoints/step-000004/manifest.json")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(root.glob("runs/*/manifest.json"))


def assert_same(run: Path, other: Path) -> None:
    assert run.name == other.name
    for name in ("encoder.safetensors", f"checkpoints/step-{STEPS:06d}/state.safetensors"):
        ours, theirs = load_file(run / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        differing = [key for key, value in ours.items() if not value.equal(theirs[key])]
        assert not differing, f"{differing} differ in {name}"


def test_a_loss_and_a_backbone_of_a_package_are_trained_resumed_and_served_like_our_own(packages, inputs, tmp_path, capsys):
    words = ["toy", *inputs, *SIZES, *EVERY, *OTHERS, *STATEFUL, "--no-tracking"]
    run = train._parse([*words, "--root", str(tmp_path / "whole")])
    state = load_file(Path(run) / f"checkpoints/step-{STEPS:06d}/state.safetensors")
    assert {
        "further/loss_centre.centres",
        "further/loss_recent.mean",
        "memory/embeddings",
        "average/encoder.trunk.stem.weight",
    } <= set(state)
    assert Artifact(run).manifest.config["centre_power"] == 1.5

    killed_halfway(words, tmp_path / "killed")
    resumed = train._parse([*words, "--root", str(tmp_path / "killed")])
    assert "resuming at step" in capsys.readouterr().err
    assert_same(Path(resumed), Path(run))

    root = ["--root", str(tmp_path / "whole")]
    exported = Artifact(export._parse([run, *root]), "export")
    assert set(exported.manifest.facts["largest_difference"]) == {"pt2", "onnx"}
    report = evaluate._parse([run, "--no-tracking", "--grid-rows", "1", *root])
    found = index._parse([run, *root])
    model = promote._parse([report, "--index", found, "--force", "--reason", "the package is shown", *root])
    assert model == "models:/zsbir/1"
    assert len(search._parse(["models:/zsbir@champion", str(SKETCH), "-k", "3", *root]).splitlines()) == 4

    install(packages, version="1.1")
    other = train._parse([*words, "--root", str(tmp_path / "whole"), "--steps", "1"])
    install(packages)
    assert Path(other).name != Path(train._parse([*words, "--root", str(tmp_path / "whole"), "--steps", "1"])).name

    remove(packages)
    with pytest.raises(InputError, match="unknown backbone 'tiny'"):
        Encoder.load(Artifact(run).file("encoder.safetensors"))
    with pytest.raises(InputError, match=r"unknown loss 'centre'; .*a package offers one as an entry point of 'zsbir.losses'"):
        train._parse([*words, "--root", str(tmp_path / "whole")])


def test_a_field_of_a_packages_loss_is_swept(packages, inputs, tmp_path, capsys):
    """On a Ray of its own: the one that the tests share has no such package in its workers' environment."""
    space = tmp_path / "space.yaml"
    space.write_text("centre_power: [1.0, 2.0]\n")
    root = ["--root", str(tmp_path / "root"), "--no-tracking"]
    words = ["toy", *inputs, *SIZES, *EVERY, *OTHERS, "--weight-preservation", "0", "--steps", "4", *root]
    command = [sys.executable, "-m", "tuning", *words, "--space", str(space), "--search", "grid", "--trials", "2"]
    with ray_head(2) as environment:
        done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=LONG, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    sweep = Artifact(done.stdout.strip(), "sweep")
    trials = read_trials(sweep.file("trials.parquet").read_bytes())
    assert [trial.point["centre_power"] for trial in trials] == [1.5, 1.0]
    assert {trial.state for trial in trials} <= {"finished", "stopped"}
    best = train._parse(["--config", str(sweep.file("best.yaml")), *inputs, *root])
    assert best == sweep.manifest.facts["best_run"]
    assert "already trained" in capsys.readouterr().err
