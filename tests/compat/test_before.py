"""What version 0.1.0 left behind still works: its storage root, its jobs database, the requests of its client.

`make_before.py` made `before.tar.xz` and `more.tar.xz` with that version's code. Names of files, tables, fields and flags are
promises to people who have such a root; a test that fails here asks for a migration, not for a new fixture.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from servers.job_queue import job_queue
from servers.postgres import new_database
from servers.ray_head import ray_head
from sqlalchemy import JSON, Boolean, MetaData, text
from starlette.testclient import TestClient

from services.jobs.http.api import create_app
from services.jobs.http.state import ApiSettings
from services.jobs.queue.schema import upgrade
from services.jobs.queue.store import Store, open_store
from tuning import __main__ as tuning
from tuning.table import read_trials
from zsbir import artifacts, evaluate, export, index, promote, search, train
from zsbir.base.artifact import Artifact
from zsbir.base.errors import RunError

pytestmark = pytest.mark.slow

PACKED = [Path(__file__).with_name(name) for name in ("before.tar.xz", "more.tar.xz")]
PLACE = Path("/tmp/zsbir-before-fa614a3")
"""Manifests and MLflow's tables hold absolute addresses, so the root must lie where it was made."""

ROOT = str(PLACE / "root")
SAID_OTHERWISE = {("/api/jobs/4.steps[0].state", "failed"): "cancelled"}
"""What this version says otherwise on purpose: a step of a cancelled job has not failed."""

SKETCH = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "sketch.png"


@pytest.fixture(scope="module", autouse=True)
def before():
    """The root as that version left it, unpacked at its place."""
    try:
        PLACE.mkdir(mode=0o700)
    except FileExistsError:
        if PLACE.owner() != Path.home().owner() or PLACE.is_symlink():
            pytest.skip(f"{PLACE} belongs to somebody else")
        shutil.rmtree(PLACE)
        PLACE.mkdir(mode=0o700)
    for packed in PACKED:
        with tarfile.open(packed) as tar:
            tar.extractall(PLACE, filter="data")
    yield
    shutil.rmtree(PLACE)


@pytest.fixture(scope="module")
def facts() -> dict[str, str]:
    return {**json.loads((PLACE / "facts.json").read_text()), **json.loads((PLACE / "more.json").read_text())["facts"]}


@pytest.fixture(scope="module")
def calls() -> dict[str, list[dict]]:
    return json.loads((PLACE / "calls.json").read_text())


def api(database: Path | str, mlflow_url: str = "", auth: str = "off") -> TestClient:
    """A service of today over a SQLite file, or the address of another store."""
    store = database if isinstance(database, str) else f"sqlite:///{database}"
    settings = ApiSettings(store=store, root=ROOT, places=(str(PLACE),), auth=auth, mlflow_url=mlflow_url)
    return TestClient(create_app(settings), base_url="http://127.0.0.1:8270", raise_server_exceptions=False)


def as_owner(client: TestClient) -> TestClient:
    """The client with the token of the user who started the service, as `up` makes it."""
    token = client.app.state.jobs.tokens.make("local", "operator", "up")
    client.headers["Authorization"] = f"Bearer {token}"
    return client


def ask(client: TestClient, call: dict):
    return client.request(call["method"], call["path"], headers=call["headers"], content=call["body"])


def test_every_artifact_is_whole(facts):
    artifacts._parse(["verify", "--all", "--root", ROOT])  # an error where one byte differs
    for kind in ("dataset", "knowledge", "run", "report", "index", "sweep", "export"):
        Artifact(facts[kind], kind).verify()


def test_the_same_commands_find_what_they_made(facts, capsys):
    words = json.loads((PLACE / "interrupted.json").read_text())[1:]
    finished = words[: words.index("--seed")]
    assert train._parse([*finished, "--root", ROOT, "--no-tracking"]) == facts["run"]
    assert "already trained" in capsys.readouterr().err
    assert evaluate._parse([facts["run"], "--root", ROOT]) == facts["report"]
    assert index._parse([facts["run"], "--root", ROOT]) == facts["index"]
    assert len(search._parse([facts["index"], str(SKETCH), "-k", "3"]).splitlines()) == 4


def test_the_same_sweep_and_export_are_found_and_a_sweeps_best_run_is_scored(facts, capsys):
    words = json.loads((PLACE / "more.json").read_text())["sweep"][1:]
    assert tuning._parse([*words, "--root", ROOT]) == facts["sweep"]
    assert "already swept" in capsys.readouterr().err
    assert export._parse([facts["run"], "--root", ROOT]) == facts["export"]
    trials = read_trials(Artifact(facts["sweep"], "sweep").file("trials.parquet").read_bytes())
    assert [trial.state for trial in trials] == ["finished", "finished"]
    best = Artifact(facts["sweep"]).manifest.facts["best_run"]
    assert best == max(trials, key=lambda trial: trial.score).run
    assert Artifact(evaluate._parse([best, "--root", ROOT, "--no-tracking"]), "report").manifest.inputs["run"]["uri"] == best


@pytest.mark.parametrize("auth", ["off", "tokens"])
def test_an_old_client_sees_what_it_saw(calls, tmp_path, auth):
    """With the owner's token, too, except that the service now asks for tokens."""
    database = Path(shutil.copy(PLACE / "root/service/jobs.db", tmp_path))
    links = [json.loads(call["answer"])["links"]["mlflow_run"] for call in calls["looks"] if "attempts_made" in call["answer"]]
    client = api(database, next(link.partition("/#")[0] for link in links if link), auth)
    look_again(as_owner(client) if auth == "tokens" else client, calls, auth)


def test_the_same_store_in_postgresql_is_migrated_with_its_rows(calls, postgres):
    """Its tables are those that this version's first migration makes: the one that version had."""
    links = [json.loads(call["answer"])["links"]["mlflow_run"] for call in calls["looks"] if "attempts_made" in call["answer"]]
    url = in_postgresql(PLACE / "root/service/jobs.db", new_database(postgres))
    client = api(url, next(link.partition("/#")[0] for link in links if link))
    look_again(client, calls, "off")
    new = client.post("/api/jobs", json={"kind": "ingest", "config": {"layout": "toy"}})
    assert new.json()["id"] == 7, "numbers go on"


def in_postgresql(file: Path, url: str) -> str:
    """Copy the rows of a SQLite store of that version into PostgreSQL's tables of the same revision; return the address."""
    store, tables = Store(url), MetaData()
    with closing(sqlite3.connect(file)) as old, store.engine.connect() as new:
        (revision,) = old.execute("select version_num from alembic_version").fetchone()
        upgrade(store.engine, revision)
        tables.reflect(new)
    with closing(sqlite3.connect(file)) as old, store.engine.begin() as new:
        old.row_factory = sqlite3.Row
        for table in reversed(tables.sorted_tables):
            if table.name != "alembic_version":
                new.execute(table.delete())
        for table in tables.sorted_tables:
            if table.name == "alembic_version":
                continue
            rows = [dict(row) for row in old.execute(f"select * from {table.name} order by 1")]
            if rows:
                new.execute(table.insert(), [{name: value_of(table.c[name], value) for name, value in row.items()} for row in rows])
            if "id" in table.c:
                new.execute(
                    text(f"select setval(pg_get_serial_sequence('{table.name}', 'id'), coalesce(max(id), 1)) from {table.name}")
                )
    store.engine.dispose()
    return url


def value_of(column, value):
    """A value of SQLite as PostgreSQL's column takes it."""
    if value is None:
        return None
    if isinstance(column.type, Boolean):
        return bool(value)
    return json.loads(value) if isinstance(column.type, JSON) else value


def look_again(client: TestClient, calls, auth: str) -> None:
    """Ask for everything that the old client asked for, and compare."""
    for call in calls["looks"]:
        if call["path"] == "/api/me":
            assert ask(client, call).json() == {**json.loads(call["answer"]), "auth": auth, "session": False, "search_url": ""}
            continue
        if call["path"].startswith("/api/audit") and auth == "tokens":
            made, *before = ask(client, call).json()["events"]
            assert made["what"] == "token made"
            assert_holds(before, json.loads(call["answer"])["events"], call["path"])
            continue
        answer = ask(client, call)
        assert answer.status_code == call["status"], call["path"]
        if call["status"] >= 400:
            assert set(answer.json()) == {"error"}
        elif call["path"] == "/api/kinds":
            was, now = json.loads(call["answer"])["kinds"], answer.json()["kinds"]
            for kind, schema in was.items():
                assert was[kind].keys() <= now[kind].keys()
                assert schema.get("properties", {}).keys() <= now[kind].get("properties", {}).keys()
        elif call["path"] == "/api/queue":
            assert json.loads(call["answer"]).keys() <= answer.json().keys()
            assert json.loads(call["answer"])["limits"] == answer.json()["limits"]
        elif call["path"].startswith("/api/jobs/5"):  # it was running then, and its attempt wrote on until the service went down
            assert "X-Attempt" in answer.headers or json.loads(call["answer"]).keys() <= answer.json().keys()
        elif "json" in call["type"]:
            assert_holds(answer.json(), json.loads(call["answer"]), call["path"])
        elif call["answer"]:
            assert answer.text == call["answer"], call["path"]
        else:
            assert answer.content.startswith(b"\x89PNG")


def assert_holds(now, was, where: str) -> None:
    """Whatever was there is there, with its value; new fields may have come."""
    if isinstance(was, dict):
        if was.get("id") == 5:
            return
        for name, value in was.items():
            assert_holds(now[name], value, f"{where}.{name}")
    elif isinstance(was, list):
        assert len(now) >= len(was), where
        for number, value in enumerate(was):
            assert_holds(now[number], value, f"{where}[{number}]")
    else:
        assert now == SAID_OTHERWISE.get((where, was), was), where


def test_an_old_client_without_a_token_is_told_that_it_needs_one(calls, tmp_path):
    client = api(Path(shutil.copy(PLACE / "root/service/jobs.db", tmp_path)), auth="tokens")
    for call in [*calls["looks"], *calls["changes"]]:
        answer = ask(client, call)
        assert answer.status_code == (200 if call["path"] == "/healthz" else 401), call["path"]
        assert call["path"] == "/healthz" or "needs a valid token" in answer.json()["error"]


@pytest.mark.parametrize("auth", ["off", "tokens"])
def test_an_old_client_may_submit_cancel_and_retry(calls, tmp_path, auth):
    new, old = api(tmp_path / "new.db", auth=auth), api(Path(shutil.copy(PLACE / "root/service/jobs.db", tmp_path)), auth=auth)
    if auth == "tokens":
        new, old = as_owner(new), as_owner(old)
    hopeless: list[str] = []
    for call in calls["changes"]:
        answer = ask(new if call["path"] == "/api/jobs" else old, call)
        if answer.status_code == 422 and "classes_per_batch is 500" in answer.text:
            hopeless.append(call["path"])
            continue
        assert answer.status_code == call["status"], (call["body"], answer.text)
        assert json.loads(call["answer"]).keys() <= answer.json().keys()
    assert [path.rpartition("/")[2] for path in hopeless] == ["jobs"], "a job that could only fail is refused since"


def test_an_interrupted_training_whose_best_encoder_was_lost_goes_on_too(tmp_path, capsys):
    """That version could leave a checkpoint which named an encoder that was never saved; every further attempt then failed."""
    words = json.loads((PLACE / "interrupted.json").read_text())[1:]
    begun = [path for path in Path(ROOT, "runs").iterdir() if not (path / "manifest.json").exists()]
    (left,) = [path for path in begun if (path / "checkpoints" / "step-000008").exists()]
    copied = shutil.copytree(left, tmp_path / "runs" / left.name)
    for best in copied.glob("checkpoints/best-*"):
        shutil.rmtree(best)
    run = Artifact(train._parse([*words, "--root", str(tmp_path)]), "run")
    assert run.folder_name == left.name
    assert "was never saved; from here on the best one is chosen anew" in capsys.readouterr().err
    assert run.manifest.counts["best_step"] > 8
    assert [path.name for path in copied.glob("checkpoints/*")] == ["step-000016"]


def test_an_interrupted_training_goes_on_from_its_checkpoint(facts, capsys):
    words = json.loads((PLACE / "interrupted.json").read_text())[1:]
    run = train._parse([*words, "--root", ROOT])
    assert "resuming at step 8 of 16" in capsys.readouterr().err
    assert [path.name for path in (Path(run) / "checkpoints").iterdir()] == ["step-000016"]
    assert Artifact(run, "run").manifest.counts["steps"] == 16

    report, found = evaluate._parse([run, "--root", ROOT]), index._parse([run, "--root", ROOT])
    with pytest.raises(
        RunError, match=r"would be .*: map_all .* of the champion models:/zsbir-resnet18-16/1, .* interval .* over 7 classes"
    ):
        promote._parse([report, "--index", found, "--dry-run", "--root", ROOT])
    force = ["--force", "--reason", "a successor of a champion of the version before"]
    told = capsys.readouterr().err
    assert f"zsbir has no champion yet: the champions under older names are the opponents: {facts['model']}" in told
    old = ["--model", "zsbir-resnet18-16"]
    assert promote._parse([report, "--index", found, *force, *old, "--root", ROOT]) == "models:/zsbir-resnet18-16/2"
    assert promote._parse(["rollback", "zsbir-resnet18-16", "--reason", "and back", "--root", ROOT]) == facts["model"]


def test_a_registered_model_of_that_version_is_loaded_and_stands_for_its_run(facts, monkeypatch):
    """As MLflow loads it, and as an address in place of a run's."""
    import mlflow
    import numpy as np
    import pandas as pd

    from zsbir.edge import model_address

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{ROOT}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{ROOT}/mlflow.db")
    model = mlflow.pyfunc.load_model(facts["model"])
    embedded = np.asarray(model.predict(pd.DataFrame({"image": [SKETCH.read_bytes()]})))
    assert embedded.shape[-1] == 16
    assert np.isfinite(embedded.astype(float)).all()
    assert model_address.artifact_address(facts["model"], "run", ROOT) == facts["run"]


def test_a_job_that_ran_when_the_service_went_down_goes_on_under_this_one(tmp_path):
    """It declares four GPUs, which the version before only counted; an attempt runs on a node that has them now."""
    url = f"sqlite:///{PLACE}/root/service/jobs.db"
    assert open_store(url).job(5).state == "running"
    with ray_head(2, gpus=4) as head, job_queue(ROOT, head, tmp_path, url=url) as queue:
        assert queue.ended(5).state == "succeeded"
    first, second = queue.store.attempts(5)
    assert (first.cause, second.cause, second.resumed_from) == ("preempted", "succeeded", "step 6")
