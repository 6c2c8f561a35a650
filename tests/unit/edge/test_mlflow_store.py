"""MLflow's store: whatever is at its address, nothing raises that should not; and its files are found where a root is now."""

from __future__ import annotations

import errno
import shutil
import socket
import threading
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.tracking import MlflowClient
from servers.processes import free_ports

from zsbir.base.errors import DiskFull, RunError, Unreachable
from zsbir.base.layout import mlflow_artifacts, mlflow_database
from zsbir.edge import mlflow_store
from zsbir.edge.mlflow_store import answering, bounded, experiment_id, is_there, open_client, tracking_uri
from zsbir.edge.moved_root import has_moved, relocate
from zsbir.edge.parents import Parent
from zsbir.edge.registered_models import names
from zsbir.edge.registry import registered
from zsbir.edge.releases import Releases
from zsbir.edge.tracking import RETRY_S, Tracker, log_report, prepare_store

SECRET = "s3cretpw"

BROKEN = [
    f"postgresql://ann:{SECRET}@127.0.0.1:9/db",
    f"http://ann:{SECRET}@127.0.0.1:9",
    f"mysql://ann:{SECRET}@127.0.0.1:9/db",
    f"foo://ann:{SECRET}@bar",
    "file:///tmp/no-such-mlruns",
    "no/such/mlruns",
    "http://",
    "http://[::1",
    "sqlite:////proc/nowhere/mlflow.db",
    "postgresql://",
    "::::",
]


@pytest.mark.parametrize("uri", BROKEN)
def test_a_training_goes_on_whatever_is_wrong_with_the_store(uri, capfd, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    prepare_store(uri, "zsbir")
    tracker = Tracker(uri, "zsbir", "run", name="toy", params={"a": 1}, datasets={})
    tracker.log(1, {"dev/map_all": 0.5})
    tracker.artifacts({"cli.py": Path(__file__)})
    tracker.finish()
    assert not tracker.delivered
    log_report(uri, "zsbir", "run", name="toy", metrics={"a": 1.0}, files={}, step=1)
    parent = Parent(uri, "zsbir", "sweep", name="sweep toy", params={})
    parent.close_children({})
    assert parent.run_id == ""
    out, err = capfd.readouterr()
    assert "warning: MLflow at" in err
    assert "Traceback" not in err
    assert SECRET not in out + err


@pytest.mark.parametrize("uri", BROKEN)
def test_a_promotion_and_a_clean_up_are_refused_in_one_line_with_the_way_out(uri, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    calls = [lambda: registered(uri)]
    if is_there(uri):
        calls += [lambda: Releases(str(tmp_path), "zsbir", "zsbir-toy").all(), lambda: names(str(tmp_path))]
    else:  # a store that is a file, and there is no file: there are no models
        assert Releases(str(tmp_path), "zsbir", "zsbir-toy").all() == names(str(tmp_path)) == []
    for call in calls:
        with pytest.raises(RunError) as refused:
            call()
        assert "\n" not in str(refused.value)
        assert SECRET not in str(refused.value)
        assert "orrect MLFLOW_TRACKING_URI" in str(refused.value)
    assert SECRET not in "".join(capfd.readouterr())


def test_a_call_that_never_returns_is_left_behind_and_the_next_one_fails_at_once():
    back, calls = threading.Event(), []

    def hang():
        calls.append("hang")
        back.wait(30)

    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        bounded("http://hangs", hang, 0.05)
    with pytest.raises(TimeoutError, match="has not returned yet"):
        bounded("http://hangs", lambda: calls.append("never"))
    bounded("http://other", lambda: calls.append("another store"))
    back.set()
    mlflow_store._stuck["http://hangs"].join(10)
    bounded("http://hangs", lambda: calls.append("again"))
    assert calls == ["hang", "another store", "again"]


def test_after_a_server_that_hangs_there_is_a_pause_ten_times_as_long(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        tracker = Tracker(f"http://127.0.0.1:{mute.getsockname()[1]}", "zsbir", "run", name="toy", params={}, datasets={})
        took = time.monotonic() - began
    tracker.log(1, {"dev/map_all": 0.5})
    assert tracker._next_try - began > RETRY_S + 10 * min(took, 1)
    assert not tracker.delivered


def test_errors_of_our_own_pass_the_guard():
    with pytest.raises(RunError, match=r"^as it is$"), answering("http://host"):
        raise RunError("as it is")


def said_by(uri, error):
    """The class that the guard raises in the place of an error."""
    with pytest.raises(RunError) as told, answering(uri):
        raise error
    return type(told.value)


def test_a_server_that_is_away_is_told_from_one_that_refuses_and_from_a_file_that_is_no_database(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (port,) = free_ports(1)
    away = f"http://127.0.0.1:{port}"
    with pytest.raises(Unreachable, match=r"does not answer"), answering(away):
        open_client(away).get_experiment_by_name("zsbir")
    assert said_by(away, TimeoutError("no answer within 60 s")) is Unreachable
    assert said_by(away, MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST)) is RunError
    assert said_by("sqlite:///x.db", OSError(errno.ENOSPC, "No space left on device")) is DiskFull
    odd = tmp_path / "mlflow.db"
    odd.write_bytes(b"no database at all, but long enough to be read as one" * 100)
    with pytest.raises(RunError) as told, answering(f"sqlite:///{odd}"):
        open_client(f"sqlite:///{odd}").get_experiment_by_name("zsbir")
    assert type(told.value) is RunError


@pytest.mark.parametrize("name", ["q?x=1 h#y", "p%41 \u00e9\u732b"])
def test_a_root_of_any_name_has_its_database_and_its_files_in_it(name, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / name
    tracker = Tracker(tracking_uri(str(root)), "zsbir", "run", name="toy", params={"a": 1}, datasets={})
    tracker.artifacts({"notes.py": Path(__file__)})
    tracker.finish()
    assert tracker.delivered
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {"mlflow.db", "mlflow-artifacts"} <= {path.name for path in root.iterdir()}
    assert list(root.glob("mlflow-artifacts/*/artifacts/notes.py"))
    assert is_there(tracking_uri(str(root)))
    assert not is_there(tracking_uri(str(tmp_path / "other")))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A root with an experiment, a run with a file, a logged model and a registered version, as one command leaves them."""
    root = tmp_path_factory.mktemp("kept") / "root"
    uri = f"sqlite:///{mlflow_database(str(root))}"
    root.mkdir()
    client = open_client(uri)
    within = experiment_id(client, uri, "zsbir")
    run = client.create_run(within)
    client.log_text(run.info.run_id, "hello", "notes.txt")
    model = client.create_logged_model(within, name="encoder", source_run_id=run.info.run_id)
    client.create_registered_model("zsbir-toy")
    client.create_model_version("zsbir-toy", f"{model.artifact_location}", run.info.run_id)
    elsewhere = client.create_experiment("another", artifact_location="s3://bucket/mlflow-artifacts")
    client.create_run(elsewhere)
    return root, run.info.run_id, model.model_id


def addresses(root: Path, run_id: str, model_id: str) -> list[str]:
    uri = f"sqlite:///{root}/mlflow.db"
    client = MlflowClient(uri, uri)
    (version,) = client.search_model_versions("name = 'zsbir-toy'")
    return [
        client.get_experiment_by_name("zsbir").artifact_location,
        client.get_run(run_id).info.artifact_uri,
        client.get_logged_model(model_id).artifact_location,
        version.source,
    ]


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_on_a_root_that_moved_or_was_copied_files_are_read_and_written_there(how, kept, tmp_path):
    _, run_id, model_id = kept
    old, new = tmp_path / "A", tmp_path / "B"
    shutil.copytree(kept[0], old)
    open_client(f"sqlite:///{old}/mlflow.db")  # A itself was a copy
    before = sorted(path for path in old.rglob("*"))
    how(str(old), str(new))
    client = open_client(f"sqlite:///{new}/mlflow.db")
    assert all(address.startswith((new / "mlflow-artifacts").as_uri()) for address in addresses(new, run_id, model_id))
    assert client.get_experiment_by_name("another").artifact_location == "s3://bucket/mlflow-artifacts"
    added = client.create_run(client.get_experiment_by_name("zsbir").experiment_id).info.run_id
    client.log_text(added, "more", "more.txt")
    assert (new / "mlflow-artifacts" / added / "artifacts" / "more.txt").read_text() == "more"
    assert sorted(path for path in old.rglob("*")) == (before if how is shutil.copytree else [])
    file = mlflow.artifacts.download_artifacts(
        f"{addresses(new, run_id, model_id)[1]}/notes.txt", tracking_uri=f"sqlite:///{new}/mlflow.db"
    )
    assert Path(file).read_text() == "hello"


def test_a_database_that_was_copied_without_its_files_goes_on_pointing_to_them(kept, tmp_path):
    root, run_id, model_id = kept
    shutil.copy(root / "mlflow.db", tmp_path / "mlflow.db")
    relocate(tmp_path / "mlflow.db")
    assert addresses(tmp_path, run_id, model_id)[0] == mlflow_artifacts(root / "mlflow.db").as_uri()


def test_a_folder_for_each_experiment_as_a_server_makes_them_moves_too(kept, tmp_path):
    shutil.copytree(kept[0], tmp_path / "A")
    uri = f"sqlite:///{tmp_path}/A/mlflow.db"
    MlflowClient(uri).create_experiment("of a server", artifact_location=(tmp_path / "A" / "mlflow-artifacts" / "7").as_uri())
    (tmp_path / "A").rename(tmp_path / "B")
    client = open_client(f"sqlite:///{tmp_path}/B/mlflow.db")
    assert client.get_experiment_by_name("of a server").artifact_location == (tmp_path / "B" / "mlflow-artifacts" / "7").as_uri()


def test_a_file_that_is_no_database_of_mlflow_stays_as_it_is(tmp_path):
    for name, content in {"empty.db": b"", "none.db": None}.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        relocate(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.db"]


def test_a_root_that_is_where_it_was_is_only_read(kept, tmp_path):
    """A colleague may be allowed to read a root and not to write it: looking into it makes no lock file."""
    root = tmp_path / "root"
    shutil.copytree(kept[0], root)
    relocate(root / "mlflow.db")
    (root / "mlflow.lock").unlink(missing_ok=True)
    open_client(f"sqlite:///{root}/mlflow.db").search_registered_models()
    assert not (root / "mlflow.lock").exists()


def test_a_root_that_is_seen_at_two_places_is_left_as_it_is(kept, tmp_path):
    """As where it is mounted twice: a run that writes at the one place must not be sent to the other."""
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(kept[0], first)
    relocate(first / "mlflow.db")
    second.mkdir()
    (second / "mlflow-artifacts").symlink_to(first / "mlflow-artifacts")
    shutil.copy(first / "mlflow.db", second / "mlflow.db")
    assert not has_moved(second / "mlflow.db")
    (second / "mlflow-artifacts").unlink()
    shutil.copytree(first / "mlflow-artifacts", second / "mlflow-artifacts")
    assert has_moved(second / "mlflow.db")
