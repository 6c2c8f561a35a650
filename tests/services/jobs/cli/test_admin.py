"""`limits` and `tokens` on a client: they ask the service, or open the store that is named, and never make one by the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from services.common.server import make_server
from services.common.tokens import Tokens
from services.jobs.cli.admin import limits, tokens
from services.jobs.cli.commands import jobs
from services.jobs.http.api import create_app
from services.jobs.http.state import ApiSettings
from services.jobs.local.ownership import start_of
from services.jobs.local.paths import OWNER_TOKEN, make_state_folder, owner_token, write_state
from services.jobs.queue.limits import Limits
from services.jobs.queue.store import Store
from zsbir.base.errors import InputError


@pytest.fixture(autouse=True)
def client(tmp_path, monkeypatch) -> Path:
    """A client's machine that knows neither a service nor a store; its default root."""
    for name in ("ZSBIR_JOBS_URL", "ZSBIR_JOBS_STORE", "ZSBIR_JOBS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ZSBIR_ROOT", str(tmp_path / "here"))
    (tmp_path / "here").mkdir()
    (tmp_path / "limits.yaml").write_text(yaml.safe_dump({"running": 7, "projects": {"vision": {"gpus": 2}}}))
    return tmp_path / "here"


@pytest.fixture
def team(tmp_path) -> Iterator[tuple[str, Store, str]]:
    """A team's service elsewhere: its address, its store, an operator's token."""
    app = create_app(ApiSettings(store=f"sqlite:///{tmp_path}/team/jobs.db", root=str(tmp_path / "team")))
    server = make_server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    store: Store = app.state.jobs.store
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", store, Tokens(store).make("root", "operator", "test")
    server.should_exit = server.force_exit = True
    thread.join(10)
    store.engine.dispose()


@pytest.mark.parametrize("words", [[], ["--set={limits}"], ["--root={here}/other", "--set={limits}"]])
def test_limits_without_a_service_or_a_store_are_refused_and_make_none(client, words):
    words = [word.format(here=client, limits=client.parent / "limits.yaml") for word in words]
    with pytest.raises(InputError, match="no job service and no job store is known here"):
        limits(words)
    assert list(client.rglob("*")) == []


@pytest.mark.parametrize("words", [["list"], ["make", "ann"], ["revoke", "1"]])
def test_so_are_tokens(client, words):
    with pytest.raises(InputError, match="no job service and no job store is known here"):
        tokens(words)
    assert list(client.rglob("*")) == []


def test_a_service_that_is_named_is_asked(client, team, monkeypatch):
    url, store, token = team
    monkeypatch.setenv("ZSBIR_JOBS_URL", url)
    with pytest.raises(InputError, match="this needs a valid token"):
        limits([f"--set={client.parent / 'limits.yaml'}"])
    monkeypatch.setenv("ZSBIR_JOBS_TOKEN", token)
    assert json.loads(limits([f"--set={client.parent / 'limits.yaml'}"]))["running"] == 7
    assert store.limits().running == 7
    assert json.loads(limits([]))["projects"] == {"vision": {"cpus": None, "gpus": 2.0, "gpu_hours": None}}
    made = tokens(["make", "ann", "--role", "viewer", "--projects", "vision, audio"])
    assert Tokens(store).bearer(made).name == "ann"
    assert "viewer     ann  for audio, vision" in tokens([])
    tokens(["revoke", str(Tokens(store).bearer(made).id)])
    assert Tokens(store).bearer(made) is None
    assert list(client.rglob("*")) == [], "nothing was written here"


def test_a_store_that_is_named_is_opened(client, team, tmp_path):
    _, store, _ = team
    limits([f"--store={store.url}", f"--set={tmp_path / 'limits.yaml'}"])
    assert store.limits().running == 7
    with pytest.raises(InputError, match="name one of the two"):
        limits([f"--store={store.url}", "--server=http://127.0.0.1:9"])


def test_the_store_of_a_root_whose_service_is_down_is_opened(client, tmp_path):
    store = Store(f"sqlite:///{make_state_folder(str(client)) / 'jobs.db'}")
    from services.jobs.queue.schema import upgrade

    upgrade(store.engine)
    store.set_limits(Limits(running=3), "test")
    assert json.loads(limits([]))["running"] == 3
    store.engine.dispose()


def recorded(client: Path, url: str, token: str, pid: int, start: str) -> None:
    """What `up` leaves on the machine where it was started."""
    file = make_state_folder(str(client)) / OWNER_TOKEN
    file.write_text(token)
    write_state(str(client), {"url": url, "token": str(file), "programs": [{"name": "api", "pid": pid, "start": start}]})


def test_the_user_who_started_the_service_needs_no_token(client, team, capfd):
    url, _, token = team
    recorded(client, url, token, os.getpid(), start_of(os.getpid()))
    assert jobs(["--json"]) == "[]"
    assert jobs(["--json", f"--server={url}"]) == "[]"
    assert limits([])


@pytest.mark.parametrize(
    ("pid", "start"), [(os.getpid(), "another boot 1"), (2**22 + 1, "x"), (os.getpid(), "")], ids=["reused", "gone", "unknown"]
)
def test_the_owners_token_goes_to_no_process_but_the_one_that_was_started(client, team, pid, start):
    """After a crash, another user may have taken the port."""
    url, _, token = team
    recorded(client, url, token, pid, start)
    assert owner_token(url) == ""
    with pytest.raises(InputError, match="this needs a valid token"):
        jobs(["--json"])


def test_the_owners_token_goes_to_no_other_service(client, team):
    url, _, token = team
    recorded(client, "http://127.0.0.1:1", token, os.getpid(), start_of(os.getpid()))
    assert owner_token(url) == ""
    assert owner_token("http://127.0.0.1:1") == token
    assert owner_token("http://localhost:1/") == token
    with pytest.raises(InputError, match="this needs a valid token"):
        jobs(["--json", f"--server={url}"])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_told_whom_to_ask(client, tmp_path):
    recorded(client, "http://127.0.0.1:1", "hush", 1, "x")
    for folder in (client, *client.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    code = (
        "import os; from services.jobs.local.paths import server_url\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"server_url({str(client)!r})"
    )
    tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is private to the user whose service it is: ask them for a token" in tried.stderr
