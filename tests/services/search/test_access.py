"""Who may use which route, and how much of it one user may use at a time."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from servers.search_service import DRAWING, client

from services.common.auth import ROLES, User
from services.common.errors import Busy, TooMany
from services.common.tokens import Tokens
from services.jobs.queue.store import open_store
from services.search.http.admission import Admission
from services.search.settings import SearchSettings
from services.search.start import port_for, users_of
from zsbir.base.errors import InputError, RunError

OPEN = {"/", "/static/{name}", "/healthz", "/readyz"}
"""Routes that ask for no token."""


def test_every_route_asks_for_a_searcher_but_those_that_tell_nothing(app: FastAPI, index):
    for route in (route for route in app.routes if isinstance(route, APIRoute)):
        path = route.path.format(name="style.css", digest=index.digest, photo_id=0, example_id=0)
        for method in route.methods:
            body = {"json": DRAWING} if method == "POST" else {}
            refused = client(app, "").request(method, path, **body).status_code
            assert (refused == 401) == (route.path not in OPEN), route.path
            if refused == 401:
                assert client(app, "nobody").request(method, path, **body).status_code == 401
                assert {client(app, role).request(method, path, **body).status_code in (401, 403) for role in ROLES} == {False}


def test_a_token_of_the_queue_is_one_of_the_search_until_it_is_revoked(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("ZSBIR_JOBS_STORE", raising=False)
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    with pytest.raises(InputError, match="there is no job store"):
        users_of(SearchSettings(store=url, root=str(tmp_path)))
    store = open_store(url)
    tokens = Tokens(store)
    text = tokens.make("ann", "searcher", "test")
    users = users_of(SearchSettings(store=url, root=str(tmp_path)))
    assert users.user_of(text) == User("ann", "searcher", by_token=True)
    assert users.user_of("zsbir_unknown") is None
    token = tokens.bearer(text)
    assert token
    secret = tokens.open_session(tokens.make_login(token))
    assert users.user_of_session(secret) == User("ann", "searcher")
    tokens.revoke(token.id, "test")
    assert (users.user_of(text), users.user_of_session(secret)) == (None, None)
    store.engine.dispose()


def test_a_port_that_is_taken_is_named_with_the_way_out_before_anything_is_opened():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            RunError, match=f"^cannot listen on port {port} of 127.0.0.1: address already in use; pass another --port"
        ):
            port_for("127.0.0.1", port)
        assert port_for("127.0.0.1", 0) not in (0, port)
    assert port_for("127.0.0.1", port) == port


def test_without_a_store_there_is_one_owner_whose_token_stays(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("ZSBIR_JOBS_STORE", raising=False)
    settings = SearchSettings(root=str(tmp_path))
    users = users_of(settings)
    (file,) = tmp_path.rglob("search.token")
    assert file.stat().st_mode & 0o077 == 0
    token = file.read_text()
    assert users.user_of(token) == users_of(settings).user_of(token) == User("local", "operator", by_token=True)
    assert (users.user_of(None), users.user_of(token[:-1]), users.user_of_session(token)) == (None, None, None)


def test_places_are_bounded_for_one_user_and_for_all():
    async def scene() -> None:
        admission = Admission(places=3, of_one=2, search_s=30)
        async with admission.place(User("ann", "searcher")), admission.place(User("ann", "searcher")):
            with pytest.raises(TooMany):
                async with admission.place(User("ann", "searcher")):
                    pass
            async with admission.place(User("bob", "searcher")):
                with pytest.raises(Busy):
                    async with admission.place(User("eve", "searcher")):
                        pass
            assert admission.under_way == 2
        assert admission.under_way == 0
        late = Admission(search_s=0.01)
        with pytest.raises(Busy, match="within"):
            async with late.place(User("ann", "searcher")):
                await asyncio.sleep(1)
        assert late.under_way == 0

    asyncio.run(scene())


def test_a_refusal_says_when_to_come_back(app: FastAPI):
    app.state.search.admission._places = 0
    answer = client(app).post("/api/search", json=DRAWING)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    app.state.search.admission._places, app.state.search.admission._of_one = 5, 0
    answer = client(app).post("/api/search", json=DRAWING)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert client(app).get("/api/models").status_code == 200, "what costs nothing needs no place"


def test_a_place_is_free_again_however_a_request_ends(app: FastAPI):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async def scene() -> None:
        headers = {"Authorization": "Bearer searcher"}
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver", headers=headers) as asking:
            given_up = asyncio.create_task(asking.post("/api/search", json=DRAWING))
            await asyncio.sleep(0)
            given_up.cancel()
            await asking.post("/api/search", json={"strokes": 1})
            await asking.post("/api/search", content=b"{", headers={"Content-Type": "application/json"})
            assert (await asking.post("/api/search", json=DRAWING)).status_code == 200

    asyncio.run(scene())
    assert app.state.search.admission.under_way == 0
