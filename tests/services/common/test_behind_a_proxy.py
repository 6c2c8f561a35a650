"""What a service believes of a proxy in front of it, from the addresses it is told: whether the connection is encrypted."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from ipaddress import ip_address

import httpx
import pytest
from servers.compose import FOLDER, VARIABLE, read_compose
from starlette.testclient import TestClient

from services.common.server import make_server
from services.common.tokens import Tokens
from services.jobs.http.api import create_app
from services.jobs.http.state import ApiSettings

NAME = "jobs.example.org"


@contextmanager
def served(app):
    server = make_server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = server.force_exit = True
    thread.join(10)


@pytest.mark.parametrize(
    ("trusted", "is_secure"), [("127.0.0.0/8", True), ("10.0.0.0/8", False), ("192.0.2.1,127.0.0.1", True), ("192.0.2.1", False)]
)
def test_a_session_is_for_encrypted_connections_alone_where_a_trusted_proxy_says_that_it_is_one(
    tmp_path, monkeypatch, trusted, is_secure
):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    app = create_app(ApiSettings(store=f"sqlite:///{tmp_path}/jobs.db", root=str(tmp_path), auth="tokens", hosts=(NAME,)))
    tokens: Tokens = app.state.jobs.tokens
    code = tokens.make_login(tokens.bearer(tokens.make("ann", "viewer", "a test")))
    with served(app) as address:
        sent = {"Host": NAME, "Origin": f"https://{NAME}", "X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7"}
        answer = httpx.post(f"{address}/api/session", json={"code": code}, headers=sent, trust_env=False)
        assert answer.status_code == 201, answer.text
        cookie = answer.headers["set-cookie"]
    assert ("secure" in cookie.lower()) == is_secure
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()


def test_a_proxy_that_changes_the_name_is_told_so(tmp_path):
    """A proxy has to pass on the Host header: by it a service tells its own pages from those of others."""
    app = create_app(ApiSettings(store=f"sqlite:///{tmp_path}/jobs.db", root=str(tmp_path), auth="tokens", hosts=(NAME,)))
    with served(app) as address:
        wrong = httpx.get(f"{address}/healthz", headers={"Host": "backend-1:8270"}, trust_env=False)
        assert wrong.status_code == 421
        foreign = {"Host": NAME, "Origin": "https://elsewhere.example.org"}
        assert httpx.post(f"{address}/api/session", json={"code": "x"}, headers=foreign, trust_env=False).status_code == 403


@pytest.mark.parametrize(("sender", "is_secure"), [("proxy", True), ("another container", False)])
def test_in_the_compose_deployment_a_session_is_secure_where_its_proxy_says_so(tmp_path, monkeypatch, sender, is_secure):
    """The application as the server wraps it, asked as if from an address that only the deployment's network has."""
    named = [found["name"] for found in VARIABLE.finditer((FOLDER / "compose.yaml").read_text("utf-8")) if found["kind"] == "?"]
    services = read_compose(variables=dict.fromkeys(named, "secret"))["services"]
    proxy = services["proxy"]["networks"]["pages"]["ipv4_address"]
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", services["jobs"]["environment"]["FORWARDED_ALLOW_IPS"])
    app = create_app(ApiSettings(store=f"sqlite:///{tmp_path}/jobs.db", root=str(tmp_path), auth="tokens", hosts=(NAME,)))
    tokens: Tokens = app.state.jobs.tokens
    code = tokens.make_login(tokens.bearer(tokens.make("ann", "viewer", "a test")))
    config = make_server(app, "127.0.0.1", 0).config
    config.load()
    address = proxy if sender == "proxy" else str(ip_address(proxy) + 70)
    with TestClient(config.loaded_app, base_url=f"http://{NAME}", client=(address, 40000)) as browser:
        sent = {"Origin": f"https://{NAME}", "X-Forwarded-Proto": "https"}
        answer = browser.post("/api/session", json={"code": code}, headers=sent)
    assert answer.status_code == 201, answer.text
    assert ("secure" in answer.headers["set-cookie"].lower()) == is_secure
