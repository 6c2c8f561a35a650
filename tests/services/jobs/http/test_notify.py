"""Notification targets over HTTP: set by operators, named by jobs, never told to anybody."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from services.common.tokens import Tokens
from services.jobs.http.api import create_app

TARGETS = {"targets": {"team": {"webhook": "https://chat.example.org/hooks/secret"}}}


def test_targets_that_were_set_are_shown_without_their_secrets_and_jobs_may_name_them(served):
    operator = served.client("operator")
    for answer in (operator.put("/api/notify-targets", json=TARGETS), operator.get("/api/notify-targets")):
        assert answer.json() == {"targets": {"team": {"webhook": "https://chat.example.org/***"}}}
    assert "secret" not in operator.get("/api/audit").text
    number = served.submit("submitter", notify=[{"to": "team", "on": "failure"}])
    assert served.store.job(number).notify == [{"to": "team", "on": "failure"}]


def test_a_job_names_targets_that_exist(served):
    served.client("operator").put("/api/notify-targets", json=TARGETS)
    job = {"kind": "ingest", "config": {"layout": "toy"}}
    for notify, line in (
        ([{"to": "taem"}], "unknown target 'taem'; did you mean 'team'?"),
        ([{"to": "https://elsewhere"}], "string should match pattern"),
        ([{"to": "team", "on": "monday"}], "'end' or 'failure'"),
        (["team"], "notify"),
    ):
        answer = served.client("submitter").post("/api/jobs", json={**job, "notify": notify})
        assert answer.status_code == 422
        assert line in answer.json()["error"]


def test_a_retry_tells_whom_the_first_job_would_have_told(served):
    served.client("operator").put("/api/notify-targets", json=TARGETS)
    number = served.submit("submitter", notify=[{"to": "team"}])
    served.client("submitter").post(f"/api/jobs/{number}/cancel")
    again = served.client("submitter").post(f"/api/jobs/{number}/retry").json()["id"]
    assert served.store.job(again).notify == [{"to": "team", "on": "end"}]


def test_a_target_that_is_a_command_needs_what_a_command_needs(settings):
    command = {"targets": {"mail": {"command": ["true"]}}}
    for allowed, status in ((False, 403), (True, 200)):
        app = create_app(settings.replace(allow_commands=allowed))
        token = Tokens(app.state.jobs.store).make("ann", "operator", "test")
        client = TestClient(app, base_url="http://127.0.0.1:8080", headers={"Authorization": f"Bearer {token}"})
        assert client.put("/api/notify-targets", json=command).status_code == status
    assert client.post("/api/notify-targets/mail/test").status_code == 200
    assert client.post("/api/notify-targets/none/test").status_code == 404
    app.state.jobs.store.engine.dispose()


@pytest.mark.parametrize(
    "wrong", [{"a b": {"webhook": "http://x"}}, {"a": {}}, {"a": {"webhook": "x"}}, {"a": {"url": "http://x"}}]
)
def test_targets_that_make_no_sense_are_refused_and_change_nothing(served, wrong):
    operator = served.client("operator")
    operator.put("/api/notify-targets", json=TARGETS)
    assert operator.put("/api/notify-targets", json={"targets": wrong}).status_code in (400, 422)
    assert list(operator.get("/api/notify-targets").json()["targets"]) == ["team"]
