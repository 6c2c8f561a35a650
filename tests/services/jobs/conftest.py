"""A job service over a real store, asked over HTTP as its users do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from servers.postgres import new_database
from starlette.testclient import TestClient

from services.common.auth import ROLES
from services.common.tokens import Tokens
from services.jobs.http.api import create_app
from services.jobs.http.state import ApiSettings
from services.jobs.queue.limits import Limits
from services.jobs.queue.records import Attempt, Lease
from services.jobs.queue.store import Store
from services.jobs.runs.attempt_dir import AttemptDir, attempt_dir_of

HERE = "http://127.0.0.1:8080"
MANY = Limits(running=10**6)
TOY = {"kind": "ingest", "config": {"layout": "toy"}}


@dataclass
class Served:
    """A service with a token for each role, and a dispatcher's lease of its store."""

    app: FastAPI
    root: str
    tokens: dict[str, str]
    lease: Lease

    @property
    def store(self) -> Store:
        return self.app.state.jobs.store

    def client(self, token: str = "", **headers: str) -> TestClient:
        """A client with a token: a name in `tokens`, or the token itself."""
        bearer = {"Authorization": f"Bearer {self.tokens.get(token, token)}"} if token else {}
        return TestClient(self.app, base_url=HERE, headers={**bearer, **headers}, raise_server_exceptions=False)

    def submit(self, token: str = "operator", **changes: Any) -> int:
        answer = self.client(token).post("/api/jobs", json={**TOY, **changes})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def run(self) -> tuple[Attempt, AttemptDir]:
        """Start an attempt of the next job; the attempt and its folder."""
        attempt = self.store.claim(self.lease, MANY)
        assert attempt
        assert self.store.started(self.lease, attempt)
        return attempt, attempt_dir_of(self.root, attempt.submission_id)

    def end(self, attempt: Attempt, cause: Any = "user_error", **fields: str) -> None:
        self.store.end(self.lease, attempt, cause, **fields)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    return new_database(request.getfixturevalue("postgres"))


@pytest.fixture
def settings(url: str, tmp_path: Path) -> ApiSettings:
    return ApiSettings(store=url, root=str(tmp_path / "root"), mlflow_url="http://127.0.0.1:5000/")


@pytest.fixture
def served(settings: ApiSettings) -> Iterator[Served]:
    app = create_app(settings)
    store: Store = app.state.jobs.store
    tokens = Tokens(store)
    made = {role: tokens.make(role, role, "test") for role in ROLES}
    made |= {"other": tokens.make("other", "submitter", "test"), "revoked": tokens.make("gone", "operator", "test")}
    tokens.revoke(tokens.all()[-1].id, "test")
    lease = store.take_lease("dispatcher", None)
    assert lease is not None
    yield Served(app, settings.root, made, lease)
    store.engine.dispose()
