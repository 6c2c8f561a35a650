"""What `up` prints: where everything is, and how to get in."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from servers.processes import free_ports

from services.jobs.local.addresses import announce, runs_of
from services.jobs.local.paths import write_state

RAY = {"token": "/r/service/ray.token", "dashboard": "http://127.0.0.1:8272"}
STATE = {"url": "http://127.0.0.1:8270", "store": "sqlite://", "auth": "off", "token": "", "programs": [], "ray": RAY}


@pytest.fixture
def answering():
    """A function that starts a web server which gives that answer to everything, and returns its address."""
    servers = []

    def start(answer: bytes, code: int = 200) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(code)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_each_address_is_a_row_with_the_way_in(tmp_path, capsys):
    root = str(tmp_path / "root")
    write_state(root, {**STATE, "mlflow": "http://127.0.0.1:8271", "mlflow_password": "/r/service/mlflow.password"})
    assert announce(root) == "http://127.0.0.1:8270"
    assert capsys.readouterr().err.splitlines()[:3] == [
        "page, API   http://127.0.0.1:8270",
        "MLflow      http://127.0.0.1:8271     opens on the runs; name zsbir, password in /r/service/mlflow.password",
        "Ray         http://127.0.0.1:8272     dashboard and jobs; token in /r/service/ray.token",
    ]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", 200),
        (b"[]", 200),
        (b'{"experiment": null}', 200),
        (b'{"experiment": {"experiment_id": "../../x"}}', 200),
        (b'{"experiment": {"experiment_id": "1?x=<script>"}}', 200),
        (b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}', 404),
        (b"[" * 100_000, 200),
        (b"\xff", 500),
    ],
)
def test_an_mlflow_of_others_that_does_not_name_the_experiment_is_its_address(answering, answer, code):
    address = answering(answer, code)
    assert runs_of(address) == address


def test_an_mlflow_that_does_not_answer_or_has_no_pages_is_its_address():
    (port,) = free_ports(1)
    for address in (f"http://127.0.0.1:{port}", "sqlite:///mlflow.db", "http://[::1", ""):
        assert runs_of(address) == address


def test_a_password_in_the_environment_goes_to_its_own_server_alone(monkeypatch):
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(self.headers["Authorization"])
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:secret@{address[7:]}")
    runs_of(address)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")
    runs_of(address)
    server.shutdown()
    server.server_close()
    assert [bool(each) for each in heard] == [True, False]
