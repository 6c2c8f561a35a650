"""Hostile text in every field and path: the service never fails, never opens a file outside, and never alters the text."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import uvicorn
from servers.processes import HOST, free_ports

from services.common.tokens import Tokens
from services.jobs.http.api import create_app
from services.jobs.http.state import ApiSettings

SECRET = "the bytes of a file that lies outside"
PAYLOADS = (
    "../secret.txt", "..", "..%2fsecret.txt", "%2e%2e/secret.txt", "..\\secret.txt", "....//secret.txt", "/etc/passwd",
    "file:///etc/passwd", "s3://other/bucket", "http://169.254.169.254/", "~root/.ssh", "\0", "a\0b", "a\nb\r\nSet-Cookie: x=1",
    "\x1b[31m", "\x7f", "'; DROP TABLE jobs; --", '" OR 1=1 --', "%' AND '1'='1", "${jndi:ldap://x}", "{{7*7}}", "$(id)", "`id`",
    "; id", "\u202eabc", "--help", "-rf", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "javascript:alert(1)",
    "ä€😀", "\ufeff", "é", "\ufffe", "", " ", "x" * 300, "x" * 5000, "../" * 2000, "%s%n%x", "NaN", "null", "1e999", "-1", "\u0661",
)  # fmt: skip
"""Traversal, other schemes, control characters, SQL, templates, shells, flags, HTML, Unicode, length, invalid numbers."""


def fields(text: str) -> list[dict]:
    """Submissions with `text` in each place of a submission that takes a text."""
    configs = {
        "ingest": ({"layout": text}, {"layout": "folders", "path": text}, {"layout": "toy", "name": text}, {text: 1}),
        "teacher": ({"dataset": text}, {"dataset": text, "weights": text}),
        "train": ({"dataset": text}, {"recipe": text, "dataset": "x"}, {"dataset": text, "unseen_classes": [text]}),
        "evaluate": ({"run": text}, {"run": "x", "protocol": text}),
        "sweep": ({"dataset": text, "space": text}, {"dataset": "x", "search": text}),
        "index": ({"run": text}, {"run": text, "gallery": text, "name": text}),
        "pipeline": (
            {"recipe": text},
            {text: {}},
            {"recipe": "toy", "train": {"experiment": text}},
            {"recipe": "toy", "train": text},
        ),
    }
    bodies = [{"kind": kind, "config": config} for kind, some in configs.items() for config in some]
    bodies += [{"kind": text}, {text: text}, {"kind": "pretrain", "project": text}, {"kind": "pretrain", "priority": text}]
    return bodies


@pytest.fixture
def outside(settings: ApiSettings) -> Path:
    """A file beside the storage root."""
    path = Path(settings.root).parent / "secret.txt"
    path.write_text(SECRET)
    return path


def check(answer, *codes: int) -> None:
    """The answer has one of the expected statuses and reveals nothing."""
    assert answer.status_code in codes, (answer.status_code, answer.text)
    assert SECRET not in answer.text
    assert "root:x:0" not in answer.text
    assert "Traceback" not in answer.text
    assert "set-cookie" not in answer.headers
    if answer.status_code >= 400:
        assert list(answer.json()) == ["error"]
        assert "\n" not in answer.json()["error"]
        assert len(answer.text) < 8000


def is_project(text):
    return re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", text) is not None


@pytest.mark.slow
def test_a_submission_is_refused_or_kept_as_it_is(served, outside):
    client, kept = served.client("operator"), 0
    for text in PAYLOADS:
        for body in fields(text):
            answer = client.post("/api/jobs", json=body)
            check(answer, 201, 400, 422)
            if answer.status_code == 201:
                kept += 1
                shown = client.get(f"/api/jobs/{answer.json()['id']}").json()
                check(client.get(f"/api/jobs/{answer.json()['id']}"), 200)
                assert shown["kind"] == body["kind"]
                given = body.get("config", {}).get("train", {}).get("experiment")
                assert given is None or shown["config"]["train"]["experiment"] == text
    assert kept > len(PAYLOADS) / 2


@pytest.mark.slow
def test_paths_queries_and_other_bodies_take_any_text(served, outside):
    served.submit()
    client = served.client("operator")
    for text in PAYLOADS:
        once = quote(text, safe="").replace(".", "%2E")
        for word in (once, quote(once, safe="")):
            for path in (f"/api/jobs/1/pictures/{word}", f"/static/{word}"):
                check(client.get(path), 404)
            for path in (f"/api/jobs/{word}", f"/api/jobs/{word}/log", f"/jobs/{word}x", f"/{word}x", f"/api/{word}x"):
                check(client.get(path), 404, 422)
        for field in ("state", "kind", "project", "owner", "before", "limit"):
            check(client.get("/api/jobs", params={field: text}), 200, 422)
        check(client.get("/api/jobs/1/log", params={"offset": text, "attempt": text}), 422)
        for field in ("project", "owner", "states", "ids", text):
            check(client.post("/api/cancel", json={field: text}), 200, 400, 422)
        check(client.put("/api/limits", json={"projects": {text: {"cpus": 1}}}), *((200,) if is_project(text) else (400, 422)))
        assert (text in client.get("/api/queue").json()["limits"]["projects"]) == is_project(text)


def test_a_user_with_a_strange_name_owns_their_jobs(served):
    for text in PAYLOADS:
        if "\0" in text or not text.strip() or len(text) > 100:
            continue
        served.tokens["strange"] = Tokens(served.store).make(text, "submitter", "test")
        job = served.submit("strange")
        assert served.client("strange").get("/api/me").json()["name"] == text
        listed = served.client("viewer").get("/api/jobs", params={"owner": text}).json()["jobs"]
        assert [(each["id"], each["owner"]) for each in listed] == [(job, text)]
        assert served.client("strange").post("/api/cancel", json={"owner": text}).json()["cancelled"] == [job]


def test_a_key_is_kept_as_it_is(served):
    for text in PAYLOADS:
        sent = text.encode()
        if any(letter in sent for letter in b"\0\r\n"):
            continue  # no HTTP client sends them
        answer = served.client("operator").post("/api/jobs", json={"kind": "pretrain"}, headers={b"Idempotency-Key": sent})
        check(answer, 201, 200, 422)
        if answer.status_code == 201:
            [job] = served.store.jobs(ids=[answer.json()["id"]])
            assert job.idempotency_key == text


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A real server, for what no client library sends."""
    [port] = free_ports(1)
    app = create_app(ApiSettings(store=f"sqlite:///{tmp_path / 'raw.db'}", root=str(tmp_path / "root"), auth="off"))
    server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield port
    server.should_exit = True
    thread.join()
    app.state.jobs.store.engine.dispose()


def raw(port: int, request: bytes) -> bytes:
    """The server's answer to these bytes."""
    with socket.create_connection((HOST, port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return answer


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        ("GET /static/../api.py HTTP/1.1", "Host: 127.0.0.1", "404"),
        ("GET /static/..%2fapi.py HTTP/1.1", "Host: 127.0.0.1", "404"),
        ("GET /static/%2e%2e%2fapi.py HTTP/1.1", "Host: 127.0.0.1", "404"),
        ("GET /../../../etc/passwd HTTP/1.1", "Host: 127.0.0.1", "404"),
        ("GET //etc/passwd HTTP/1.1", "Host: 127.0.0.1", "404"),
        ("GET /api/jobs/%ff%fe HTTP/1.1", "Host: 127.0.0.1", "422"),
        ("GET /api/jobs?owner=%ff%fe HTTP/1.1", "Host: 127.0.0.1", "200"),
        ("GET /api/me HTTP/1.0", "Accept: */*", "421"),
        ("GET /api/me HTTP/1.1", "Host: evil.example", "421"),
        ("GET http://evil.example/api/me HTTP/1.1", "Host: evil.example", "421"),
        ("POST /api/jobs HTTP/1.1", "Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99999999999", "413"),
        ("POST /api/jobs HTTP/1.1", "Host: 127.0.0.1\r\nOrigin: http://evil.example\r\nContent-Length: 0", "403"),
        ("TRACE /api/jobs HTTP/1.1", "Host: 127.0.0.1", "405"),
    ],
)
def test_raw_requests_are_answered(port, request_line, headers, status):
    answer = raw(port, f"{request_line}\r\n{headers}\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ")[1].decode() == status
    assert b"root:x:0" not in answer
    assert b"import" not in answer
