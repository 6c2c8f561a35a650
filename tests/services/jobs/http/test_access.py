"""Who is let in: tokens made over the API, login links that work once, browser sessions; and what a stranger leaves in the log."""

from __future__ import annotations

from services.common import routes
from services.common.server import Repeats
from services.common.tokens import LOGIN_S, SESSION_S, Tokens

COOKIE = "zsbir_session_8080"


def login(served, token="operator") -> str:
    return served.client(token).post("/api/login-codes").json()["code"]


def test_a_login_link_lets_one_browser_in_once(served):
    code = login(served, "submitter")
    browser = served.client()
    opened = browser.post("/api/session", json={"code": code})
    assert opened.status_code == 201
    cookie = opened.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    me = {"name": "submitter", "role": "submitter", "auth": "tokens", "session": True, "search_url": ""}
    assert browser.get("/api/me").json() == me
    assert served.client().post("/api/session", json={"code": code}).status_code == 401


def test_neither_a_code_nor_a_sessions_secret_is_a_token(served):
    code = login(served)
    assert served.client(code).get("/api/jobs").status_code == 401
    browser = served.client()
    browser.post("/api/session", json={"code": code})
    assert served.client(browser.cookies[COOKIE]).get("/api/jobs").status_code == 401
    stranger = served.client()
    for secret in (code, served.tokens["operator"], "nonsense"):
        stranger.cookies.set(COOKIE, secret)
        assert stranger.get("/api/jobs").status_code == 401


def test_a_session_ends_with_the_log_out_and_with_its_token(served):
    browser, other = served.client(), served.client()
    for each in (browser, other):
        each.post("/api/session", json={"code": login(served, "submitter")})
    secret = browser.cookies[COOKIE]
    assert browser.delete("/api/session").status_code == 200
    browser.cookies.set(COOKIE, secret)
    assert browser.get("/api/me").status_code == 401
    assert other.get("/api/me").status_code == 200
    number = next(token.id for token in Tokens(served.store).all() if token.name == "submitter")
    assert served.client("operator").post(f"/api/tokens/{number}/revoke").status_code == 200
    assert other.get("/api/me").status_code == 401


def test_codes_and_sessions_grow_old(served, monkeypatch):
    now = served.store.now()
    old, code = login(served), login(served)
    browser = served.client()
    browser.post("/api/session", json={"code": code})
    monkeypatch.setattr(served.store, "_clock", lambda: now + LOGIN_S + 60)
    assert served.client().post("/api/session", json={"code": old}).status_code == 401
    assert browser.get("/api/me").status_code == 200
    monkeypatch.setattr(served.store, "_clock", lambda: now + SESSION_S + 60)
    assert browser.get("/api/me").status_code == 401


def test_another_sites_page_can_use_no_session(served):
    browser = served.client(Origin="http://127.0.0.1:9999")
    browser.post("/api/session", json={"code": login(served)})
    assert COOKIE not in browser.cookies
    browser = served.client()
    browser.post("/api/session", json={"code": login(served)})
    assert browser.post("/api/cancel", json={"states": ["queued"]}, headers={"Origin": "http://127.0.0.1:9999"}).status_code == 403


def test_only_the_bearer_of_a_token_gets_a_login_link(served):
    assert served.client().post("/api/login-codes").status_code == 401
    browser = served.client()
    browser.post("/api/session", json={"code": login(served)})
    assert browser.post("/api/login-codes").status_code == 409


def test_operators_make_list_and_revoke_tokens(served):
    operator = served.client("operator")
    made = operator.post("/api/tokens", json={"name": "ann", "role": "submitter", "projects": ["vision", "audio", "vision"]})
    assert made.status_code == 201
    ann = served.client(made.json()["token"])
    assert ann.get("/api/me").json()["name"] == "ann"
    listed = operator.get("/api/tokens")
    assert (listed.json()["tokens"][-1]["name"], listed.json()["tokens"][-1]["projects"]) == ("ann", ["audio", "vision"])
    assert made.json()["token"] not in listed.text
    assert operator.post(f"/api/tokens/{listed.json()['tokens'][-1]['id']}/revoke").status_code == 200
    assert ann.get("/api/me").status_code == 401
    for role in ("viewer", "submitter"):
        assert served.client(role).get("/api/tokens").status_code == 403
        assert served.client(role).post("/api/tokens", json={"name": "eve", "role": "operator"}).status_code == 403
    assert operator.post("/api/tokens", json={"name": "ann", "projects": ["Vision!"]}).status_code == 422


def test_a_project_is_the_tokens_own_or_one_that_the_limits_name(served):
    operator = served.client("operator")
    operator.put("/api/limits", json={"running": 2, "projects": {"vision": {"cpus": 2}, "audio": {"cpus": 1}}})
    bound = operator.post("/api/tokens", json={"name": "bea", "projects": ["audio", "own"]}).json()["token"]

    def status(token, project):
        body = {"kind": "ingest", "config": {"layout": "toy"}, "project": project}
        return served.client(token).post("/api/jobs", json=body).status_code

    assert [status("submitter", project) for project in ("default", "vision", "audio", "invented")] == [201, 201, 201, 403]
    assert [status(bound, project) for project in ("default", "vision", "audio", "own", "invented")] == [403, 403, 201, 201, 403]
    assert status("operator", "invented") == 201
    operator.put("/api/limits", json={"running": 2})
    assert status("submitter", "invented") == 201, "no project has limits that a new name would evade"


def test_failed_logins_are_logged_and_cannot_fill_the_log(served, capfd, monkeypatch):
    monkeypatch.setattr(routes, "REFUSED", Repeats())
    served.client().get("/api/jobs")
    assert "refused" not in capfd.readouterr().err, "no token is no attempt"
    for number in range(50):
        served.client(f"zsbir_guess{number}").get("/api/jobs")
        served.client().post("/api/session", json={"code": f"guess{number}"})
    err = capfd.readouterr().err
    assert err.count("refused an unknown token from") == 1
    assert err.count("refused an unknown login code from") == 1
    assert "guess" not in err
