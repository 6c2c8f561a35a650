"""The shared parts carry a service that is not the job queue: users, limits on bodies, errors and pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from pydantic import Field
from starlette.testclient import TestClient

from services.common.answers import add_error_handlers, error_responses
from services.common.auth import User, is_loopback
from services.common.errors import Conflict, NotFound
from services.common.guard import RequestGuard
from services.common.limits import MAX_BODY
from services.common.pages import html_page, load_pages, static_file
from services.common.routes import GuardedRoute, Submitter, Viewer
from zsbir.base.config import Config
from zsbir.base.errors import RunError

ROUTES = APIRouter(route_class=GuardedRoute)


class Note(Config, strict=True):
    text: str = Field(max_length=10)
    stars: int = 0


class KnownUsers:
    def user_of(self, token: str | None) -> User | None:
        if token == "broken":
            raise RunError("the users' store does not answer")
        return {"v": User("eve", "viewer"), "s": User("ann", "submitter")}.get(token or "")


@ROUTES.get("/whoami")
def whoami(user: Viewer) -> str:
    return user.name


@ROUTES.post("/notes", responses=error_responses(400, 401, 403, 413, 422))
def add_note(user: Submitter, note: Note) -> Note:
    return note


@ROUTES.get("/fail/{how}")
def fail(how: str) -> None:
    raise {"conflict": Conflict("taken"), "missing": NotFound("gone"), "run": RunError("away"), "bug": ValueError("oops")}[how]


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    app.state.users = KnownUsers()
    app.state.served = []
    app.include_router(ROUTES)
    app.add_middleware(RequestGuard, hosts=("notes.example",), on_served=lambda *served: app.state.served.append(served[:3]))
    add_error_handlers(app, ROUTES.routes, {})
    return app


def client(app: FastAPI, token: str = "") -> TestClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return TestClient(app, base_url="http://notes.example", headers=headers, raise_server_exceptions=False)


def test_a_user_is_known_by_their_token_before_the_body_is_read(app: FastAPI) -> None:
    assert client(app, "v").get("/whoami").json() == "eve"
    large = b"x" * (MAX_BODY + 1)
    json = {"Content-Type": "application/json"}
    statuses = [client(app, token).post("/notes", content=large, headers=json).status_code for token in ("", "x", "v", "s")]
    assert statuses == [401, 401, 403, 413]
    assert client(app, "broken").get("/whoami").status_code == 503


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        (b'{"text": "hello", "stars": 2.0}', 200, ""),
        (b'{"text": "hello", "stars": "2"}', 422, "stars: input should be a valid integer, got '2'"),
        (b'{"text": "hello", "star": 2}', 400, "unknown field 'star'; did you mean 'stars'?"),
        (b'{"text": NaN}', 400, "the body is not JSON: NaN is not a number in JSON"),
        (b'{"text": "\\u0000"}', 422, "body: '\\x00' has a NUL character or half a surrogate pair"),
        (b'{"text": "a", "stars": 9007199254740993}', 422, "body: a number is beyond 9007199254740992"),
        (b"[" * 32 + b"]" * 32, 422, "body: deeper than 30 levels"),
    ],
)
def test_a_body_is_read_strictly_and_within_limits(app: FastAPI, body: bytes, status: int, line: str) -> None:
    answer = client(app, "s").post("/notes", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.json() == ({"error": line} if line else {"text": "hello", "stars": 2})


@pytest.mark.parametrize(("how", "status"), [("conflict", 409), ("missing", 404), ("run", 503), ("bug", 500)])
def test_errors_become_one_line_of_json(app: FastAPI, how: str, status: int) -> None:
    answer = client(app).get(f"/fail/{how}")
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert app.state.served == [("/fail/{how}", "GET", status)]


def test_a_service_has_the_shared_pages_and_its_own(tmp_path: Path) -> None:
    assert html_page(load_pages(tmp_path)).status_code == 503
    tmp_path.joinpath("index.html").write_text("<!doctype html>")
    tmp_path.joinpath("dom.js").write_text("// its own")
    pages = load_pages(tmp_path)
    assert html_page(pages).body == b"<!doctype html>"
    assert static_file(pages, "dom.js").body == b"// its own"
    assert static_file(pages, "style.css").media_type == "text/css"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]"])
def test_loopback_addresses_are_recognised(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example.org", ""])
def test_other_addresses_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)
