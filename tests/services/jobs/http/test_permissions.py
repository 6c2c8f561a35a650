"""Who may submit commands and promotions: what runs any program needs an operator's own token, and a service that allows it."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from services.common.tokens import Tokens
from services.jobs.http.api import create_app

COMMAND = {"kind": "command", "config": {"words": ["echo", "a b", "x,y"]}}
PROMOTES = {"kind": "pipeline", "config": {"recipe": "toy", "promote": {}}}


@pytest.fixture
def allowing(settings):
    """A function that serves the same store with other settings; it returns clients by token."""
    apps = []

    def serve(**changes):
        app = create_app(settings.replace(**changes))
        apps.append(app)
        tokens = Tokens(app.state.jobs.store)
        made = {role: tokens.make(role, role, "test") for role in ("submitter", "operator")}

        def client(role=""):
            headers = {"Authorization": f"Bearer {made[role]}"} if role else {}
            return TestClient(app, base_url="http://127.0.0.1:8080", headers=headers)

        return client

    yield serve
    for app in apps:
        app.state.jobs.store.engine.dispose()


def refused(answer):
    assert answer.status_code == 403, answer.text
    return answer.json()["error"]


def test_an_operator_submits_a_command_where_the_service_allows_it_and_its_words_are_kept(allowing):
    client = allowing(allow_commands=True)
    made = client("operator").post("/api/jobs", json=COMMAND)
    assert made.status_code == 201, made.text
    assert client("operator").get(f"/api/jobs/{made.json()['id']}").json()["config"]["words"] == ["echo", "a b", "x,y"]
    assert "this needs a token of an operator" in refused(client("submitter").post("/api/jobs", json=COMMAND))


def test_no_service_runs_commands_that_was_not_told_to(allowing):
    line = refused(allowing()("operator").post("/api/jobs", json=COMMAND))
    assert (
        line == "a job of kind command runs any program, which this service does not allow; it may be started with --allow-commands"
    )


def test_neither_a_browsers_session_nor_a_service_without_tokens_runs_commands(allowing):
    client = allowing(allow_commands=True)
    code = client("operator").post("/api/login-codes").json()["code"]
    browser = client()
    assert browser.post("/api/session", json={"code": code}).status_code == 201
    assert browser.get("/api/me").json()["role"] == "operator"
    assert "not a browser's session" in refused(browser.post("/api/jobs", json=COMMAND))
    open_to_all = allowing(allow_commands=True, auth="off")
    assert "--auth off" in refused(open_to_all().post("/api/jobs", json=COMMAND))
    assert "--auth off" in refused(open_to_all("operator").post("/api/jobs", json=COMMAND)), "whatever token a request has"


def test_a_command_that_failed_is_tried_again_by_those_alone_who_might_submit_it(allowing, settings):
    client = allowing(allow_commands=True)
    made = client("operator").post("/api/jobs", json=COMMAND).json()["id"]
    client("operator").post(f"/api/jobs/{made}/cancel")
    assert "does not allow" in refused(allowing()("operator").post(f"/api/jobs/{made}/retry"))
    assert client("operator").post(f"/api/jobs/{made}/retry").status_code == 201


def test_a_command_is_no_step_of_a_pipeline(allowing):
    config = {"recipe": "toy", "command": {"words": ["echo"]}}
    answer = allowing(allow_commands=True)("operator").post("/api/jobs", json={"kind": "pipeline", "config": config})
    assert answer.status_code == 422
    assert "unknown step 'command'" in answer.json()["error"]


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({}, "command: field 'words' is required"),
        ({"words": []}, "command: field 'words' is required"),
        ({"words": [" "]}, "the first word must be a program"),
        ({"words": ["x" * 200_000]}, "more than 100000 characters"),
        ({"words": "echo"}, "field 'words'"),
        ({"words": ["echo"], "cwd": "/etc"}, "command: field 'cwd': '/etc' is outside of what this service reads"),
    ],
)
def test_what_cannot_be_run_is_refused(allowing, config, line):
    answer = allowing(allow_commands=True)("operator").post("/api/jobs", json={"kind": "command", "config": config})
    assert answer.status_code == 422
    assert line in answer.json()["error"]


@pytest.mark.parametrize("job", [PROMOTES, {"kind": "promote", "config": {"report": "x", "index": "y"}}])
def test_a_promotion_is_for_operators_unless_the_service_says_otherwise(allowing, job):
    line = refused(allowing()("submitter").post("/api/jobs", json=job))
    assert "a promotion changes the model that everybody uses" in line
    assert allowing()("operator").post("/api/jobs", json=job).status_code in (201, 422)
    assert allowing(promotion="submitters")("submitter").post("/api/jobs", json=job).status_code in (201, 422)
    assert allowing()("operator").post("/api/jobs", json=PROMOTES).status_code == 201
