"""What a model registry names stays; where it cannot be asked, nothing is removed."""

import shutil

import pytest
from building import make_old, put_line
from mlflow.tracking import MlflowClient

from zsbir import artifacts
from zsbir.base.artifact import exists
from zsbir.base.errors import RunError
from zsbir.base.layout import below_root
from zsbir.edge import registry
from zsbir.edge.registry import registered, registries
from zsbir.edge.tracking import RUN_TAG

KINDS = "dataset,knowledge,weights,checkpoint,report,index,run"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A database with registered models: of the runs a and b, of no run of ours, and with tags of its own."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client = MlflowClient(f"sqlite:///{file}", f"sqlite:///{file}")
    experiment = client.create_experiment("zsbir", artifact_location=(file.parent / "files").as_uri())
    client.create_registered_model("search")
    client.create_registered_model("other")
    for name, model, tags in (
        ("a", "search", {}),
        ("b", "search", {}),
        ("b", "other", {}),
        ("", "other", {}),
        ("", "other", {"zsbir.run": "c", "team": "d"}),
    ):
        run = client.create_run(experiment, tags={RUN_TAG: name} if name else {})
        client.create_model_version(model, f"{file.parent.as_uri()}/files", run.info.run_id, tags=tags)
    client.create_run(experiment, tags={RUN_TAG: "not-registered"})
    return file


@pytest.fixture
def store(filled, tmp_path):
    """A copy of it beside a root."""
    shutil.copy(filled, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def register(store, name):
    client = MlflowClient(store, store)
    run = client.create_run("1", tags={RUN_TAG: name})
    client.create_model_version("search", "file:///nowhere", run.info.run_id)
    return run.info.run_id


def test_every_version_of_every_model_names_its_run(store):
    assert registered(store) == {"a", "b", "c"}


def test_long_registries_are_read_to_the_end(store, monkeypatch):
    monkeypatch.setattr(registry, "_PAGE", 2)
    assert registered(store) == {"a", "b", "c"}


def test_a_version_whose_run_is_gone_is_told_with_the_way_out(store):
    client = MlflowClient(store, store)
    client.create_model_version("other", "file:///nowhere", "f" * 32)
    with pytest.raises(RunError, match=r"version 4 of the registered model 'other'.*set its tag zsbir.run"):
        registered(store)
    client.set_model_version_tag("other", "4", RUN_TAG, "d")
    assert registered(store) == {"a", "b", "c", "d"}


def test_a_registry_that_does_not_answer_is_an_error(tmp_path):
    with pytest.raises(RunError, match="there is no MLflow store"):
        registered(f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists(), "asking must not make an empty one"
    (tmp_path / "bad.db").write_bytes(b"no database")
    with pytest.raises(RunError, match="does not answer"):
        registered(f"sqlite:///{tmp_path}/bad.db")
    with pytest.raises(RunError, match="does not answer"):
        registered("http://127.0.0.1:9")


def test_registries_are_the_configured_one_and_the_one_beside_the_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert registries(str(tmp_path)) == []
    assert registries("s3://bucket/zsbir") == []
    (tmp_path / "mlflow.db").touch()
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "mlflow.db").touch()
    beside = f"sqlite:///{tmp_path}/mlflow.db"
    assert registries(str(tmp_path)) == [beside]
    assert registries("s3://bucket/zsbir") == [f"sqlite:///{tmp_path}/artifacts/mlflow.db"], "where training there puts it"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    assert registries(str(tmp_path)) == ["http://mlflow", beside]
    assert registries("s3://bucket/zsbir") == ["http://mlflow"]


def test_gc_keeps_a_registered_run_and_all_it_was_made_from(store, tmp_path):
    line, other = put_line(tmp_path), put_line(tmp_path, "other")
    register(store, line.run.folder_name)
    make_old(tmp_path)
    artifacts._parse(["gc", "--root", str(tmp_path), "--unnamed", KINDS, "--delete"])
    assert all(exists(kept.uri) for kept in (line.run, line.knowledge, line.dataset))
    assert not any(exists(gone.uri) for gone in (line.index, line.report, other.run, other.dataset))
    artifacts._parse(["gc", "--root", str(tmp_path), "--unnamed", KINDS, "--delete", "--no-registry"])
    assert not exists(line.run.uri)


def test_gc_keeps_the_report_and_the_index_that_a_version_names_from_whatever_root(store, tmp_path):
    """The tags hold the addresses that the artifacts had in the root where they were promoted."""
    line, other = put_line(tmp_path), put_line(tmp_path, "other")
    client = MlflowClient(store, store)
    there = {
        "zsbir.report": f"s3://team/zsbir/{below_root(line.report.uri)}",
        "zsbir.index": f"/else/{below_root(line.index.uri)}/",
    }
    client.create_model_version("other", "file:///nowhere", tags={"zsbir.run": line.run.folder_name, **there})
    assert {below_root(line.report.uri), below_root(line.index.uri)} < registered(store)
    make_old(tmp_path)
    artifacts._parse(["gc", "--root", str(tmp_path), "--unnamed", KINDS, "--delete"])
    assert all(exists(kept.uri) for kept in (line.run, line.report, line.index))
    assert not any(exists(gone.uri) for gone in (other.run, other.report, other.index))


def test_gc_refuses_while_the_registry_does_not_answer(store, tmp_path, monkeypatch, capsys):
    line = put_line(tmp_path)
    make_old(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    asked = ["gc", "--root", str(tmp_path), "--unnamed", KINDS]
    assert artifacts._parse([*asked, "--json"]) == ""
    assert "--delete would refuse: the model registry of MLflow at http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    with pytest.raises(RunError, match="nothing was removed: the model registry"):
        artifacts._parse([*asked, "--delete"])
    assert exists(line.index.uri)
