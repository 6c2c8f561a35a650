"""The pipeline with everything in object storage: the same bits as on disk, whatever is killed meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zsbir import evaluate, index, ingest, search, teacher, train
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import InputError
from zsbir.base.storage import join, open_folder

pytestmark = pytest.mark.slow

SMALL = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--no-tracking", "--eval-every-steps", "5"]
EVERY = ["--checkpoint-every-steps", "4", "--log-every-steps", "1"]
STEPS = 16
SKETCH = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "sketch.png"


def options(dataset: str, knowledge: str, root: str | Path) -> list[str]:
    inputs = ["--dataset", dataset, "--knowledge", knowledge, "--root", str(root)]
    return ["toy", *inputs, *SMALL, *EVERY, "--steps", str(STEPS)]


@pytest.fixture(scope="module", autouse=True)
def same_threads() -> Iterator[None]:
    """Every training of this file has one thread, whatever else the machine does: the bits depend on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def on_disk(dataset: str, knowledge: str, module_path: Path) -> Artifact:
    return Artifact(train._parse(options(dataset, knowledge, module_path)), "run")


@pytest.fixture
def remote(s3_root: str, weights: str) -> tuple[str, str]:
    """Data set and knowledge of the pipeline, made in object storage by the same commands."""
    sizes = ["--toy-photos-per-class", "6", "--toy-sketches-per-class", "6", "--toy-px", "48"]
    dataset = ingest._parse(["toy", *sizes, "--root", s3_root])
    return dataset, teacher._parse([dataset, "--backbone", "resnet18", "--weights", weights, "--image-px", "32", "--root", s3_root])


def assert_same(ours: Artifact, theirs: Artifact) -> None:
    assert ours.folder_name == theirs.folder_name
    checkpoints = [Artifact(join(run.uri, "checkpoints", f"step-{STEPS:06d}"), "checkpoint") for run in (ours, theirs)]
    files = [(ours.file("encoder.safetensors"), theirs.file("encoder.safetensors"))]
    files.append((checkpoints[0].file("state.safetensors"), checkpoints[1].file("state.safetensors")))
    for our_file, their_file in files:
        our_tensors, their_tensors = load_file(our_file), load_file(their_file)
        assert our_tensors.keys() == their_tensors.keys()
        assert all(value.equal(their_tensors[name]) for name, value in our_tensors.items())


def test_the_whole_pipeline_gives_the_same_bits_as_on_disk(remote: tuple[str, str], dataset, knowledge, on_disk, s3_root, capsys):
    made = [Artifact(uri) for uri in remote]
    for ours, theirs in zip(made, (Artifact(dataset), Artifact(knowledge)), strict=True):
        assert ours.digest == theirs.digest
        assert {name: entry.sha256 for name, entry in ours.manifest.files.items()} == {
            name: entry.sha256 for name, entry in theirs.manifest.files.items()
        }
    run = Artifact(train._parse(options(*remote, s3_root)), "run")
    assert_same(run, on_disk)
    report = Artifact(evaluate._parse([run.uri, "--root", s3_root, "--no-tracking"]), "report")
    found = Artifact(index._parse([run.uri, "--root", s3_root]), "index")
    for artifact in (run, report, found):
        artifact.verify()
        assert artifact.uri.startswith("s3://")
    capsys.readouterr()
    table = search._parse([found.uri, str(SKETCH), "-k", "3"])
    assert len(table.splitlines()) == 4
    hidden = {entry.key for entry in open_folder(s3_root).walk() if "/." in entry.key}
    assert hidden == set(), "no mark, lease or record is left"


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "zsbir.train", *words]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_killed_mid_epoch_and_started_again_it_ends_with_the_same_bits(remote: tuple[str, str], on_disk, s3_root):
    words = options(*remote, s3_root)
    process = start(*words)
    runs = open_folder(join(s3_root, "runs", on_disk.folder_name, "checkpoints"))
    deadline = time.monotonic() + 120
    while not any(name.startswith("step-") and exists(join(runs.uri, name)) for name in runs.names()):
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not exists(join(s3_root, "runs", on_disk.folder_name))
    again = start(*words)
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    assert "resuming at step" in err
    assert_same(Artifact(out.strip(), "run"), on_disk)


def test_a_second_trainer_of_a_run_in_object_storage_is_told(remote: tuple[str, str], s3_root):
    words = [*options(*remote, s3_root), "--steps", "100000"]
    first = start(*words)
    deadline = time.monotonic() + 120
    while not any("/.lease-" in entry.key for entry in open_folder(join(s3_root, "runs")).walk()):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = start(*words)
    out, err = second.communicate(timeout=120)
    first.kill()
    first.communicate()
    assert (second.returncode, out) == (1, "")
    assert "another process is working on s3://" in err


def test_a_ray_job_with_object_storage_must_name_its_tracking_server(remote: tuple[str, str], s3_root, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    words = [word for word in options(*remote, s3_root) if word != "--no-tracking"]
    with pytest.raises(InputError, match=r"no MLFLOW_TRACKING_URI: .*name a server, or pass --no-tracking"):
        train._parse(words)
