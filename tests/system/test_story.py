"""The whole story once, as a team would run it: images to champion through `ray job submit`, with everything in a real S3 store.

The other tests of these folders ask what happens when something goes wrong; this one shows that the parts work together.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from servers.ray_head import ray_head

from zsbir.base.artifact import Artifact

REPOSITORY = Path(__file__).resolve().parents[2]
SKETCH = REPOSITORY / "docs" / "pictures" / "sketch.png"
SMALL = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--steps", "4", "--eval-every-steps", "2"]


@pytest.mark.everyday
def test_images_become_a_champion_that_answers_a_sketch(rgw, weights, tmp_path, monkeypatch):
    root = f"s3://{rgw.new_bucket()}/zsbir"
    settings = {
        "ZSBIR_ROOT": root,
        "ZSBIR_CACHE": str(tmp_path / "cache"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }
    with ray_head(2, rgw.env | settings) as env:

        def verb(*words: str) -> str:
            done = subprocess.run([sys.executable, "-m", *words], env=env, text=True, capture_output=True, timeout=300, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            return done.stdout.strip()

        sizes = ["--toy-photos-per-class", "6", "--toy-sketches-per-class", "6", "--toy-px", "48"]
        dataset = verb("zsbir.ingest", "toy", *sizes)
        knowledge = verb("zsbir.teacher", dataset, "--backbone", "resnet18", "--weights", weights, "--image-px", "32")
        training = ["zsbir.train", "toy", "--dataset", dataset, "--knowledge", knowledge, *SMALL, "--num-workers", "2"]
        submit = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--working-dir", ".", "--", "python", "-m", *training]
        log = subprocess.run(submit, env=env, cwd=REPOSITORY, text=True, capture_output=True, timeout=400, check=False)
        assert log.returncode == 0, log.stdout + log.stderr
        run = next(line for line in log.stdout.splitlines() if line.startswith(f"{root}/runs/"))
        report = verb("zsbir.evaluate", run)
        index = verb("zsbir.index", run)
        model = verb("zsbir.promote", report, "--index", index, "--force", "--reason", "the story needs a champion")
        table = verb("zsbir.search", index, str(SKETCH), "-k", "3")
        verb("zsbir.artifacts", "verify", "--all")
    for name, value in (rgw.env | settings).items():
        monkeypatch.setenv(name, value)
    assert Artifact(run, "run").manifest.counts["steps"] == 4
    assert Artifact(report, "report").manifest.inputs["run"]["uri"] == run
    assert np.load(Artifact(index, "index").file("vectors.npy")).shape[0] == 7 * 6
    assert len(table.splitlines()) == 4
    champion = MlflowClient(settings["MLFLOW_TRACKING_URI"]).get_model_version_by_alias("zsbir-resnet18-128", "champion")
    assert model == f"models:/zsbir-resnet18-128/{champion.version}"
