"""Which version an address of a registered model means, in a real registry; and the names of the models that are this project's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from zsbir.base.artifact import Artifact
from zsbir.base.draft import draft
from zsbir.base.errors import InputError, RunError
from zsbir.edge.model_address import artifact_address, resolve
from zsbir.edge.registered_models import names, older_champions


@pytest.fixture
def root(mlflow_database_file: Path, tmp_path: Path) -> Path:
    """A root with an empty registry."""
    (tmp_path / "root").mkdir()
    shutil.copy(mlflow_database_file, tmp_path / "root/mlflow.db")
    return tmp_path / "root"


def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}", f"sqlite:///{root / 'mlflow.db'}")


def register(root: Path, model: str, name: str, **tags: str) -> Artifact:
    """Make a run, and register it as the next version of a model."""
    with draft(root / "runs" / name, "run", "toy") as work:
        work.file("encoder.safetensors").write_bytes(name.encode())
        run = work.commit(digest=(name * 8)[:64])
    store = client(root)
    if model not in [found.name for found in store.search_registered_models()]:
        store.create_registered_model(model)
    of_run = {
        "run_uri": run.uri,
        "run_digest": run.digest,
        "encoder_sha256": run.manifest.files["encoder.safetensors"].sha256,
    }
    store.create_model_version(model, "file:///nowhere", tags={f"zsbir.{key}": value for key, value in {**of_run, **tags}.items()})
    return run


def test_an_alias_means_the_version_that_has_it_and_a_number_stays(root, capsys):
    first, second = register(root, "zsbir", "a"), register(root, "zsbir", "b")
    client(root).set_registered_model_alias("zsbir", "champion", "1")
    assert artifact_address("models:/zsbir@champion", "run", str(root)) == first.uri
    assert f"models:/zsbir@champion is models:/zsbir/1: run {first.uri} (digest aaaaaaaa)" in capsys.readouterr().err
    client(root).set_registered_model_alias("zsbir", "champion", "2")
    found = resolve("models:/zsbir@champion", "run", str(root))
    assert (found.version, found.uri, found.digest) == ("models:/zsbir/2", second.uri, second.digest)
    assert resolve("models:/zsbir/1", "run", str(root)).uri == first.uri
    assert artifact_address("/some/runs/c", "run", str(root)) == "/some/runs/c"


def test_what_is_not_there_is_answered_with_what_is(root):
    with pytest.raises(InputError, match=r"no model is registered as 'zsbir'; there is none yet: python -m zsbir.promote makes"):
        resolve("models:/zsbir@champion", "run", str(root))
    register(root, "zsbir", "a")
    register(root, "zsbir-demo", "b")
    client(root).set_registered_model_alias("zsbir", "challenger", "1")
    with pytest.raises(
        InputError, match=r"'zsbir' has no alias 'champion': it has @challenger, /1; .*promote list zsbir shows why"
    ):
        resolve("models:/zsbir@champion", "run", str(root))
    with pytest.raises(InputError, match="'zsbir' has no version 2: it has @challenger, /1"):
        resolve("models:/zsbir/2", "run", str(root))
    with pytest.raises(InputError, match="no model is registered as 'zsbri'; there are zsbir, zsbir-demo"):
        resolve("models:/zsbri@champion", "run", str(root))


def test_asking_makes_no_registry(tmp_path):
    with pytest.raises(InputError, match="there is none yet"):
        resolve("models:/zsbir@champion", "run", str(tmp_path / "empty"))
    assert not (tmp_path / "empty").exists()


def test_a_registry_that_does_not_answer_is_no_missing_model(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:s3cretpw@127.0.0.1:9")
    with pytest.raises(RunError, match=r"the model registry of MLflow at http://.*127\.0\.0\.1:9 does not answer") as told:
        resolve("models:/zsbir@champion", "run", str(tmp_path))
    assert "s3cretpw" not in str(told.value)


def test_the_models_of_this_project_are_known_by_their_tags(root):
    for model in ("zsbir", "bicycles", "zsbir-resnet18-128"):
        register(root, model, model)
    store = client(root)
    for model in ("zsbir-of-others", "Somebody's"):
        store.create_registered_model(model)
        store.create_model_version(model, "file:///nowhere")
    register(root, "Not a name", "d")
    assert names(str(root)) == ["bicycles", "zsbir", "zsbir-resnet18-128"]


def test_the_champions_under_older_names_are_those_with_the_alias(root):
    for model in ("zsbir", "zsbir-demo", "zsbir-resnet18-128", "zsbir-resnet50-512"):
        register(root, model, model)
    for model in ("zsbir", "zsbir-demo", "zsbir-resnet50-512"):
        client(root).set_registered_model_alias(model, "champion", "1")
    assert [release.uri for release in older_champions(str(root))] == ["models:/zsbir-resnet50-512/1"]
