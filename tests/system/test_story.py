"""The whole story once, as a team would run it: images to champion, trained through `ray job submit`, all of it in a real S3 store.

The other tests of this folder ask what happens when something goes wrong; this one shows that the parts work together.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from servers.ray_head import ray_head

from zsbir import artifacts, evaluate, index, ingest, promote, search, teacher
from zsbir.base.artifact import Artifact

REPOSITORY = Path(__file__).resolve().parents[2]
SKETCH = REPOSITORY / "docs" / "pictures" / "sketch.png"
SIZES = ["--toy-photos-per-class", "6", "--toy-sketches-per-class", "6", "--toy-px", "48"]
SMALL = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--steps", "4", "--eval-every-steps", "2"]


@pytest.fixture
def root(rgw, tmp_path, monkeypatch) -> str:
    """An empty root in Ceph RGW, which every command finds through its environment."""
    root = f"s3://{rgw.new_bucket()}/zsbir"
    own = {"ZSBIR_ROOT": root, "ZSBIR_CACHE": str(tmp_path / "cache"), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    for name, value in (rgw.env | own).items():
        monkeypatch.setenv(name, value)
    return root


def submitted(training: list[str], environment: dict[str, str]) -> str:
    """Train through `ray job submit`; everything that was printed."""
    submit = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--working-dir", ".", "--", "python", "-m", *training]
    done = subprocess.run(submit, env=environment, cwd=REPOSITORY, text=True, capture_output=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.everyday
def test_images_become_a_champion_that_answers_a_sketch(root, weights, tmp_path):
    dataset = ingest._parse(["toy", *SIZES])
    knowledge = teacher._parse([dataset, "--backbone", "resnet18", "--weights", weights, "--image-px", "32"])
    training = ["zsbir.train", "toy", "--dataset", dataset, "--knowledge", knowledge, *SMALL, "--num-workers", "2"]
    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    with ray_head(2, {"MLFLOW_TRACKING_URI": tracking}) as environment:
        told = submitted(training, environment)
    run = next(line for line in told.splitlines() if line.startswith(f"{root}/runs/"))
    assert Artifact(run, "run").manifest.counts["steps"] == 4

    report = evaluate._parse([run])
    assert Artifact(report, "report").manifest.inputs["run"]["uri"] == run
    found = index._parse([run])
    assert np.load(Artifact(found, "index").file("vectors.npy")).shape == (7 * 6, 128)
    model = promote._parse([report, "--index", found, "--force", "--reason", "the story needs a champion"])
    champion = MlflowClient(tracking).get_model_version_by_alias("zsbir", "champion")
    assert model == f"models:/zsbir/{champion.version}"
    assert len(search._parse(["models:/zsbir@champion", str(SKETCH), "-k", "3"]).splitlines()) == 4
    artifacts._parse(["verify", "--all"])
