"""The verb on the tiny pipeline, what it made used as a stranger would, and both on real images where they are there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from recorded import assert_as_recorded

from zsbir import export
from zsbir.artifacts import _parse as artifacts
from zsbir.base.artifact import Artifact
from zsbir.base.config import digest_of
from zsbir.base.draft import draft
from zsbir.base.errors import InputError, RunError
from zsbir.data.images import eval_image
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.model import export as model_export
from zsbir.model.encoder import Encoder
from zsbir.model.export import runner
from zsbir.model.weights import load_weights

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def exported(run: str, pipeline_root: Path) -> Artifact:
    return Artifact(export._parse([run, "--root", str(pipeline_root)]), "export")


@pytest.fixture(scope="module")
def encoder(run: str) -> Encoder:
    return Encoder.load(Artifact(run).file("encoder.safetensors")).eval()


@pytest.fixture(scope="module")
def encoded(dataset: str) -> list[bytes]:
    """Sixteen images of the data set, as they are stored."""
    opened = Artifact(dataset, "dataset")
    samples = load_samples(opened)
    images = Images(opened, samples)
    return [images.read(folder) for folder in np.linspace(0, len(samples) - 1, 16).astype(int).tolist()]


@torch.inference_mode()
def trained(encoder: Encoder, encoded: list[bytes]) -> np.ndarray:
    """What the trainer's encoder says under the evaluation transform."""
    return encoder(torch.from_numpy(prepared(encoder, encoded)))[0].numpy()


def prepared(encoder: Encoder, encoded: list[bytes]) -> np.ndarray:
    return np.stack([eval_image(data, encoder.image_px) for data in encoded])


def test_an_export_is_an_artifact_that_says_how_well_it_was_checked(exported: Artifact, run: str, encoder: Encoder) -> None:
    exported.verify()
    assert_as_recorded(exported)
    assert set(exported.manifest.files) == {"encoder.pt2", "encoder.onnx", "preprocessing.json", "README.md"}
    assert exported.manifest.inputs["run"]["digest"] == Artifact(run).digest
    assert exported.manifest.counts == {"dimensions": encoder.embedding_dim, "image_px": encoder.image_px}
    assert exported.manifest.facts["checked_on"] == "data set"
    assert all(0 <= value < TOLERANCE for value in exported.manifest.facts["largest_difference"].values())
    assert exported.uri.endswith(f"/exports/{exported.digest[:16]}")


def test_the_same_export_is_found_again_whatever_the_order_of_formats(exported: Artifact, run: str, pipeline_root: Path) -> None:
    manifest = exported.path / "manifest.json"
    before = manifest.stat().st_mtime_ns
    assert export._parse([run, "--formats", "onnx,pt2,onnx", "--root", str(pipeline_root)]) == exported.uri
    assert manifest.stat().st_mtime_ns == before


@pytest.mark.parametrize("form", ["pt2", "onnx"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_embeddings_are_the_trainer_s(form: str, count: int, exported: Artifact, encoder: Encoder, encoded: list[bytes]) -> None:
    run = runner(form, exported.file(f"encoder.{form}"))
    found = run(prepared(encoder, encoded[:count]))
    assert np.abs(found - trained(encoder, encoded[:count])).max() <= TOLERANCE


@pytest.mark.parametrize(("title", "absent"), [("ONNX Runtime", ["zsbir", "torch"]), ("PyTorch", ["zsbir", "onnxruntime"])])
def test_the_readme_s_code_gives_the_trainer_s_embeddings_without_this_project(
    title: str, absent: list[str], exported: Artifact, encoder: Encoder, encoded: list[bytes], tmp_path: Path
) -> None:
    for name in exported.manifest.files:
        (tmp_path / name).symlink_to(exported.file(name))
    (tmp_path / "photo.jpg").write_bytes(encoded[0])
    (tmp_path / "sketch.png").write_bytes(encoded[-1])
    readme = exported.file("README.md").read_text("utf-8")
    code = re.search(rf"## With {title}\n.*?```python\n(.*?)```", readme, re.DOTALL).group(1)
    before = f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n"  # to import one of them is now an error
    after = "\nnp.save('embeddings.npy', embeddings)\n"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", before + code + after], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"(2, {encoder.embedding_dim}) similarity")
    found = np.load(tmp_path / "embeddings.npy")
    assert np.abs(found - trained(encoder, [encoded[0], encoded[-1]])).max() <= TOLERANCE


def test_one_format_alone_makes_another_export_whose_readme_shows_only_that(run: str, tmp_path: Path) -> None:
    only = Artifact(export._parse([run, "--formats", "onnx", "--opset", "18", "--root", str(tmp_path)]), "export")
    assert set(only.manifest.files) == {"encoder.onnx", "preprocessing.json", "README.md"}
    assert "torch" not in only.file("README.md").read_text("utf-8")


def test_zsbir_artifacts_lists_an_export_and_shows_its_run(exported: Artifact, run: str, pipeline_root: Path, capsys) -> None:
    assert exported.uri in str(artifacts(["list", "--root", str(pipeline_root)])) + capsys.readouterr().err
    shown = str(artifacts(["show", exported.uri])) + capsys.readouterr().err
    assert Artifact(run).folder_name in shown


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--formats", "coreml"], "'pt2' or 'onnx', got 'coreml'"),
        (["--formats", ""], "formats"),
        (["--opset", "7"], "greater than or equal to 18, got '7'"),
        (["--format", "onnx"], "did you mean '--formats'"),
    ],
)
def test_bad_options_are_named(options: list[str], says: str, run: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        export._parse([run, *options, "--root", str(tmp_path)])


def test_a_data_set_is_no_run(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a dataset, not a run"):
        export._parse([dataset, "--root", str(tmp_path)])


def copy_of_run(run: str, root: Path) -> Artifact:
    """A run in another root, its data set left behind where nobody finds it."""
    base = Artifact(run, "run")
    gone = {"dataset": {"uri": str(root / "datasets" / "toy" / "0"), "digest": base.manifest.inputs["dataset"]["digest"]}}
    with draft(root / "runs" / "toy-copy", "run", "toy") as work:
        work.file("encoder.safetensors").write_bytes(base.file("encoder.safetensors").read_bytes())
        return work.commit(digest=digest_of("copy"), inputs=gone)


def test_a_damaged_run_is_refused_and_leaves_nothing(run: str, tmp_path: Path) -> None:
    copy = copy_of_run(run, tmp_path)
    file = copy.file("encoder.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match="differs from its manifest"):
        export._parse([copy.uri, "--root", str(tmp_path)])
    assert not (tmp_path / "exports").exists()


def test_where_the_data_set_is_gone_it_is_checked_on_noise_and_without_onnxruntime_onnx_is_not(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    copy = copy_of_run(run, tmp_path)
    made = Artifact(export._parse([copy.uri, "--formats", "onnx", "--root", str(tmp_path)]))
    assert made.manifest.facts["checked_on"] == "noise"
    assert made.manifest.facts["largest_difference"] == {"onnx": None}
    said = capsys.readouterr().err
    assert "is gone" in said
    assert "encoder.onnx was not checked" in said


def test_a_file_that_says_something_else_is_not_exported(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = model_export.write_pt2

    def write_another(encoder: Encoder, path: Path) -> None:
        with torch.no_grad():
            encoder.embedding.weight[0] += 0.01
        write(encoder, path)
        with torch.no_grad():
            encoder.embedding.weight[0] -= 0.01

    monkeypatch.setattr(model_export, "write_pt2", write_another)
    with pytest.raises(RunError, match=r"encoder\.pt2 differs from the encoder by"):
        export._parse([run, "--formats", "pt2", "--root", str(tmp_path)])
    assert not list((tmp_path / "exports").glob("*/manifest.json"))


def test_it_works_from_object_storage_to_object_storage(run: str, s3_root: str) -> None:
    copied = str(artifacts(["copy", run, s3_root])).strip().splitlines()[-1]
    assert copied.startswith("s3://")
    made = Artifact(export._parse([copied, "--formats", "pt2", "--root", s3_root]), "export")
    assert made.uri.startswith(f"{s3_root}/exports/")
    assert made.manifest.facts["checked_on"] == "data set"
    made.verify()


@pytest.mark.realdata
def test_on_real_photos_and_sketches_pt2_onnx_and_mlflow_s_model_give_the_trainer_s_embeddings(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ResNet18 with its ImageNet weights at 224 px, 36 photos and sketches of caltech_qd60."""
    from zsbir.edge.pyfunc import log_model

    made = Encoder("resnet18", 128, 224)
    weights = str(shared / "weights" / "resnet18_pqf_fp16.pth")
    made.load_trunk(load_weights(weights, backbone="resnet18", root=tmp_path))
    with draft(tmp_path / "runs" / "real", "run", "real") as work:
        made.save(work.file("encoder.safetensors"))
        run = work.commit(digest=digest_of("real"))
    encoder = Encoder.load(run.file("encoder.safetensors")).eval()
    encoded = [file.read_bytes() for file in _some(shared, "photo", 20) + _some(shared, "sketch", 16)]
    expected = trained(encoder, encoded)
    pixels = prepared(encoder, encoded)

    exported = Artifact(export._parse([run.uri, "--root", str(tmp_path)]))
    found = {form: runner(form, exported.file(f"encoder.{form}"))(pixels) for form in ("pt2", "onnx")}
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("real", artifact_location=(tmp_path / "mlflow").as_uri())
    logged = log_model(uri, client.create_run(experiment).info.run_id, run.file("encoder.safetensors"), encoded[0])
    found["pyfunc"] = mlflow.pyfunc.load_model(logged).predict(pd.DataFrame({"image": encoded}))

    differences = {name: float(np.abs(values - expected).max()) for name, values in found.items()}
    print(json.dumps(differences))
    assert max(differences.values()) <= TOLERANCE, differences
    similar = expected @ expected.T
    assert similar[~np.eye(len(similar), dtype=bool)].max() < 1 - 1e-3, "images that look all alike to it would prove nothing"


def _some(shared: Path, domain: str, count: int) -> list[Path]:
    """Images of a domain, of as many classes, chosen by the checksum of their path."""
    folder = shared / "data" / "caltech_qd60" / domain
    return [min(entry.iterdir(), key=_chance) for entry in sorted(folder.iterdir())[:count]]


def _chance(file: Path) -> str:
    return hashlib.sha256("/".join(file.parts[-3:]).encode()).hexdigest()
