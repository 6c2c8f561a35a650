"""MLflow behind a name and a password: what a stranger gets, and that MLflow's own client works with it."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time

import httpx
import pytest
from servers.postgres import new_database
from servers.processes import free_ports, kill
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from services.jobs.local import tracking_server
from services.jobs.local.mlflow_entry import OpensOnRuns, _in_script
from services.jobs.local.tracking_server import PASSWORD_VARIABLE, STORE_VARIABLE, USER, PasswordGuard
from zsbir.edge.mlflow_pages import VIEW_TAG, view


async def open_app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize(
    "path", ["/", "/health/", "//health", "/HEALTH", "/health%2f..%2fapi", "/version", "/api/2.0/mlflow/x", "/v1/traces"]
)
@pytest.mark.parametrize(
    "headers", [{}, basic(f"{USER}:"), basic(f"{USER}:hush2"), basic("root:hush"), {"Authorization": "Bearer hush"}, basic("hush")]
)
def test_without_the_password_nothing_is_answered(path, headers):
    answer = TestClient(PasswordGuard(open_app, "hush")).get(path, headers=headers)
    assert (answer.status_code, b"inside" in answer.content) == (401, False)
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_with_the_password_everything_is_and_the_health_without():
    client = TestClient(PasswordGuard(open_app, "hush"))
    assert client.get("/api", headers=basic(f"{USER}:hush")).text == "inside"
    assert client.get("/health").text == "inside"


def test_mlflows_first_page_is_its_own_with_a_script_before_it_whatever_is_wrong_with_the_store(tmp_path, capsys):
    index = tmp_path / "index.html"
    index.write_text("<!doctype html><html><head><title>MLflow</title></head></html>")
    client = TestClient(OpensOnRuns(open_app, index, "sqlite:////proc/nowhere/mlflow.db"))
    page = client.get("/")
    assert page.text.startswith("<!doctype html><html><head><script>")
    assert page.text.endswith("</script><title>MLflow</title></head></html>")
    assert 'replaceState(null, "", "/#/experiments?' in page.text
    assert page.headers["cache-control"] == "no-store"
    assert "MLflow opens on its list of experiments: " in capsys.readouterr().err
    assert [client.get("/api").text, client.post("/").text, client.get("/x").text] == ["inside"] * 3


def test_no_text_ends_the_script():
    assert "</script" not in _in_script({"key": "</script><script>alert(1)</script>"})


def test_a_websocket_is_refused():
    with pytest.raises(WebSocketDisconnect), TestClient(PasswordGuard(open_app, "hush")).websocket_connect("/x"):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--password-file={}/password"], f"no database: pass --database FILE, or set {STORE_VARIABLE}"),
        (["--database={}/mlflow.db"], "no password: name the file"),
        (["--database={}/mlflow.db", "--password-file={}/none"], "the password cannot be read"),
        (["--database={}/mlflow.db", "--password-file={}/empty"], "is empty: write a password into it"),
    ],
)
def test_it_does_not_start_without_a_database_and_a_password(words, said, tmp_path, monkeypatch, capsys):
    for name in (STORE_VARIABLE, PASSWORD_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "password").write_text("hush")
    (tmp_path / "empty").write_text("\n")
    monkeypatch.setattr(sys, "argv", ["tracking_server", "--port=1", *(word.format(tmp_path) for word in words)])
    with pytest.raises(SystemExit) as ended:
        tracking_server.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    """The arguments and the environment that name a database: a file of one machine, or a server of a team."""
    if request.param == "sqlite":
        return [f"--database={tmp_path}/mlflow.db"], {}
    return ["--host=0.0.0.0"], {STORE_VARIABLE: new_database(request.getfixturevalue("postgres"))}


@pytest.mark.slow
def test_mlflows_client_logs_with_it_and_a_stranger_reads_no_file_through_it(database, tmp_path, monkeypatch):
    secret, password = tmp_path / "secret", tmp_path / "password"
    secret.write_text("top secret")
    password.write_text("hush")
    (port,) = free_ports(1)
    words = ["-m", "services.jobs.local.tracking_server", *database[0], f"--artifacts=file://{tmp_path}/art"]
    env = {**os.environ, **database[1], "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen([sys.executable, *words, f"--password-file={password}", f"--port={port}"], env=env)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while not answers(address):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        experiment = {"name": "evil", "artifact_location": tmp_path.as_uri()}
        assert httpx.post(f"{address}/api/2.0/mlflow/experiments/create", json=experiment).status_code == 401
        assert httpx.get(f"{address}/get-artifact", params={"path": "secret", "run_uuid": "0" * 32}).status_code == 401
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush")
        from mlflow.tracking import MlflowClient

        client = MlflowClient(address)
        assert '"/#/experiments?' in httpx.get(f"{address}/", auth=(USER, "hush")).text, "there is no run yet"
        later = client.create_experiment("later")
        client.create_run(later)
        run = client.create_run("0", start_time=1)
        assert f'"/#/experiments/{later}/runs"' in httpx.get(f"{address}/", auth=(USER, "hush")).text
        assert client.get_experiment(later).tags[VIEW_TAG] == view()
        client.log_metric(run.info.run_id, "loss", 1.0)
        assert client.get_run(run.info.run_id).data.metrics == {"loss": 1.0}
        process.terminate()
        assert process.wait(20) in (0, -15)
    finally:
        kill(process)


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.HTTPError:
        return False
