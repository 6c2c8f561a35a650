"""Storage that hangs: whoever waits for it is told, and everybody else is served."""

from __future__ import annotations

import os
import threading
import time

import httpx
import pytest
import uvicorn

from services.common.server import make_server
from services.jobs.http import patience
from services.jobs.http.api import create_app
from services.jobs.http.patience import HealthProbe, Patience
from services.jobs.http.state import ApiSettings
from services.jobs.queue.store import open_store
from zsbir.base.errors import RunError

HANG_S = 30.0


@pytest.fixture
def hanging():
    """What a read of a disk that is away is like; it ends with the test."""
    over = threading.Event()
    yield lambda: over.wait(HANG_S)
    over.set()


def test_a_call_that_hangs_is_given_up_and_its_place_is_kept_until_it_ends(hanging):
    waits = Patience(wait_s=0.1, most=2)
    for _ in range(2):
        with pytest.raises(RunError, match="does not answer within"):
            waits.call(hanging)
    with pytest.raises(RunError, match="too many requests wait"):
        waits.call(lambda: 5)


def test_a_burst_on_storage_that_works_is_served():
    waits, done = Patience(wait_s=5, most=2), []
    calling = [threading.Thread(target=lambda: done.append(waits.call(lambda: time.sleep(0.01)))) for _ in range(30)]
    for each in calling:
        each.start()
    for each in calling:
        each.join()
    assert len(done) == 30


def test_what_the_call_returns_or_raises_comes_through():
    waits = Patience(wait_s=5, most=1)
    assert waits.call(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        waits.call(lambda: 1 // 0)
    assert waits.call(lambda: 6) == 6


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A service that waits half a second for storage; and its application."""
    monkeypatch.setattr(patience.Patience.__init__, "__defaults__", (0.5, 4))
    app = create_app(ApiSettings(store=f"sqlite:///{tmp_path}/jobs.db", root=str(tmp_path / "root"), auth="off"))
    server: uvicorn.Server = make_server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app, tmp_path
    server.should_exit = server.force_exit = True
    thread.join(10)


def test_a_hundred_requests_for_storage_that_hangs_stop_nobody_else(address, monkeypatch, hanging):
    url, _, _ = address
    monkeypatch.setattr("services.jobs.http.submissions.check_config", lambda *_: hanging())
    body = {"kind": "ingest", "config": {"layout": "toy"}}
    codes: list[int] = []

    def ask() -> None:
        codes.append(httpx.post(f"{url}/api/jobs", json=body, timeout=60).status_code)

    asking = [threading.Thread(target=ask) for _ in range(100)]
    for each in asking:
        each.start()
    assert httpx.get(f"{url}/healthz", timeout=10).status_code == 200
    assert httpx.get(f"{url}/api/jobs", timeout=10).status_code == 200
    for each in asking:
        each.join()
    assert codes == [503] * 100


def test_health_says_within_its_time_that_the_store_hangs(address, monkeypatch, hanging):
    url, app, _ = address
    monkeypatch.setattr(app.state.jobs.health, "_check", hanging)
    monkeypatch.setattr(app.state.jobs.health, "_wait_s", 0.2)
    answers = [httpx.get(f"{url}/healthz", timeout=10) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {503}
    assert "does not answer within" in answers[0].json()["error"]
    assert sum(thread.name == "storage" for thread in threading.enumerate()) == 1, "one check at a time"


def test_a_pipe_where_a_manifest_should_be_is_one_answer(address):
    url, _, tmp_path = address
    run = tmp_path / "root" / "runs" / "toy"
    run.mkdir(parents=True)
    os.mkfifo(run / "manifest.json")
    answer = httpx.post(f"{url}/api/jobs", json={"kind": "evaluate", "config": {"run": str(run)}}, timeout=10)
    assert answer.status_code in (422, 503)
    assert httpx.get(f"{url}/healthz", timeout=10).status_code == 200


def test_a_probe_that_failed_is_asked_again(tmp_path):
    import asyncio

    store = open_store(f"sqlite:///{tmp_path}/jobs.db")
    failures = [RunError("away"), None]

    def check() -> None:
        if error := failures.pop(0):
            raise error

    probe = HealthProbe(check)

    async def ask() -> None:
        with pytest.raises(RunError, match="away"):
            await probe.check()
        await probe.check()

    asyncio.run(ask())
    store.engine.dispose()
