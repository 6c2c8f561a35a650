"""MLflow for real: what a run leaves there, and what happens when it is away."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from zsbir.base.artifact import Artifact
from zsbir.data.images import eval_image
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.edge.mlflow_pages import runs_page
from zsbir.model.encoder import Encoder

pytestmark = pytest.mark.slow

SECRET = "canary-7d1f"


def train_command(dataset: str, knowledge: str, root: Path, *more: str) -> list[str]:
    inputs = ["--dataset", dataset, "--knowledge", knowledge, "--root", str(root)]
    options = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--steps", "5"]
    every = ["--checkpoint-every-steps", "2", "--eval-every-steps", "3", "--log-every-steps", "1"]
    return [sys.executable, "-m", "zsbir.train", "toy", *inputs, *options, *every, *more]


def run_training(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run(
        command, env={**clean, "OMP_NUM_THREADS": "1", **environment}, text=True, capture_output=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def tracked(dataset: str, knowledge: str, module_path: Path) -> tuple[Path, Run]:
    """A training tracked in SQLite under its root, and its MLflow run after an evaluation."""
    done = run_training(
        train_command(dataset, knowledge, module_path), AWS_SECRET_ACCESS_KEY=SECRET, MLFLOW_TRACKING_PASSWORD=SECRET
    )
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.strip())
    report = run_training([sys.executable, "-m", "zsbir.evaluate", str(run), "--root", str(module_path)])
    assert report.returncode == 0, report.stderr
    return run, only_run(f"sqlite:///{module_path / 'mlflow.db'}", run.name)


def only_run(uri: str, key: str) -> Run:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("zsbir")
    found = client.search_runs([experiment.experiment_id], f"tags.`zsbir.run` = '{key}'")
    assert len(found) == 1
    return found[0]


def client_of(run: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{run.parent.parent / 'mlflow.db'}")


def test_parameters_metrics_and_lineage_are_there(tracked, dataset):
    path, run = tracked
    assert run.info.status == "FINISHED"
    assert run.data.params["margin_cross"] == "0.2"
    assert run.data.params["steps"] == "5"
    history = client_of(path).get_metric_history(run.info.run_id, "train/loss")
    assert sorted(metric.step for metric in history) == [1, 2, 3, 4, 5]
    assert {
        "train/loss_quadruplet",
        "train/loss_classification",
        "train/loss_preservation",
        "train/images_per_s",
    } <= run.data.metrics.keys()
    assert run.inputs.dataset_inputs[0].dataset.digest == Artifact(dataset).digest[:16]


def test_dev_and_unseen_results_and_pictures_are_there(tracked):
    path, run = tracked
    assert {"dev/map_all", "unseen/map_all", "unseen_frozen/map_all"} <= run.data.metrics.keys()
    assert run.data.metrics["unseen/map_all_low95"] < run.data.metrics["unseen/map_all"] < run.data.metrics["unseen/map_all_high95"]
    client = client_of(path)
    assert {"config.yaml", "curves.png", "history.parquet"} <= {file.path for file in client.list_artifacts(run.info.run_id)}
    report = {file.path for file in client.list_artifacts(run.info.run_id, "report")}
    assert {"report/grid.png", "report/precision_recall.png", "report/report.json"} <= report


def test_the_logged_model_turns_image_bytes_into_the_encoder_s_embeddings_without_pickle(tracked, dataset, monkeypatch):
    path, run = tracked
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(f"sqlite:///{path.parent.parent / 'mlflow.db'}")
    models = mlflow.search_logged_models([run.info.experiment_id], output_format="list")
    model = mlflow.pyfunc.load_model(next(m.model_uri for m in models if m.source_run_id == run.info.run_id))
    opened = Artifact(dataset, "dataset")
    images = Images(opened, load_samples(opened))
    data = [images.read(position) for position in range(5)]
    found = model.predict(pd.DataFrame({"image": data}))
    encoder = Encoder.load(path / "encoder.safetensors").eval()
    import torch

    with torch.inference_mode():
        expected = encoder(torch.from_numpy(np.stack([eval_image(item, encoder.image_px) for item in data])))[0].numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4
    folder = Path(mlflow.artifacts.download_artifacts(models[0].model_uri))
    assert not [file for file in folder.rglob("*") if file.suffix in {".pkl", ".pickle", ".pth", ".pt"}]


def test_no_secret_of_the_environment_is_written_anywhere(tracked):
    path, _ = tracked
    for file in path.parent.parent.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), f"a secret is in {file.name}"


@pytest.fixture
def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path, free_port: int) -> Iterator[list[str]]:
    """The command of an MLflow server; whatever was started of it is ended afterwards."""
    store = f"sqlite:///{tmp_path / 'server.db'}"
    folder = ["--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "served")]
    return [
        str(Path(sys.executable).parent / "mlflow"),
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(free_port),
        "--workers",
        "1",
        *folder,
    ]


def test_training_goes_on_while_mlflow_is_away_and_the_same_command_delivers_it_later(
    server, free_port, dataset, knowledge, tmp_path
):
    command, uri = train_command(dataset, knowledge, tmp_path / "root"), f"http://127.0.0.1:{free_port}"
    done = run_training(command, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    assert "the same command delivers it" in done.stderr
    run = Path(done.stdout.strip())
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            server,
            stdout=log,
            stderr=log,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )
    try:
        wait_until_up(free_port)
        again = run_training(command, MLFLOW_TRACKING_URI=uri)
        assert again.returncode == 0, again.stderr
        assert again.stdout == done.stdout
        arrived = only_run(uri, run.name)
        assert arrived.info.status == "FINISHED"
        digits = run.name.removeprefix("toy-")[:6]
        assert arrived.info.run_name == f"toy image_px=32 steps=5 classes_per_batch=4 per_class=2 eval_every_steps=3 ({digits})"
        assert f"in MLflow: {uri}/#/experiments/{arrived.info.experiment_id}/runs/{arrived.info.run_id}\n" in again.stderr
        assert f"all runs:  {runs_page(uri, arrived.info.experiment_id)}\n" in again.stderr
        assert arrived.data.metrics["train/loss"] > 0
        assert not (run / ".undelivered").exists()
    finally:
        os.killpg(process.pid, 9)


def test_killed_between_its_result_and_its_end_the_same_command_delivers_what_mlflow_lacks(dataset, knowledge, tmp_path):
    root = tmp_path / "root"
    command = train_command(dataset, knowledge, root)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    killed = subprocess.Popen(command, env={**environment, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    while not list(root.glob("runs/*/manifest.json")):
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    run = next(root.glob("runs/*/manifest.json")).parent
    left = only_run(f"sqlite:///{root / 'mlflow.db'}", run.name)
    assert left.info.status == "RUNNING"
    again = run_training(command)
    assert again.returncode == 0, again.stderr
    ended = only_run(f"sqlite:///{root / 'mlflow.db'}", run.name)
    assert ended.info.status == "FINISHED"
    assert ended.data.metrics["train/loss"] > 0
    files = {file.path for file in client_of(run).list_artifacts(ended.info.run_id)}
    assert {"config.yaml", "curves.png", "history.parquet"} <= files
    models = client_of(run).search_logged_models([ended.info.experiment_id])
    assert [model.source_run_id for model in models if str(model.status) == "READY"] == [ended.info.run_id]
    assert not (run / ".undelivered").exists()


def wait_until_up(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError
