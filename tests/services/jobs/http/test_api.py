"""Every endpoint of the job service, for users who may use it and users who may not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from PIL import Image

from services.common.auth import ROLES
from services.common.limits import MAX_BODY
from services.jobs.http import api
from services.jobs.http.api import create_app
from services.jobs.http.metrics import ALIVE_S, DispatcherMonitor
from services.jobs.http.state import ApiSettings
from services.jobs.queue.limits import Limits, ProjectLimits
from services.jobs.queue.states import STATES
from services.jobs.runs.attempt_dir import LOG_PIECE, End
from zsbir.base.draft import draft
from zsbir.base.errors import InputError

TOY = {"kind": "ingest", "config": {"layout": "toy"}}

LEAST_ROLE = {
    "GET /api/me": "viewer",
    "POST /api/login-codes": "viewer",
    "POST /api/session": "",
    "DELETE /api/session": "",
    "GET /api/tokens": "operator",
    "POST /api/tokens": "operator",
    "POST /api/tokens/{token_id}/revoke": "operator",
    "GET /api/kinds": "viewer",
    "GET /api/jobs": "viewer",
    "POST /api/jobs": "submitter",
    "GET /api/jobs/{job_id}": "viewer",
    "GET /api/jobs/{job_id}/log": "viewer",
    "GET /api/jobs/{job_id}/curve": "viewer",
    "GET /api/jobs/{job_id}/pictures/{name}": "viewer",
    "POST /api/jobs/{job_id}/cancel": "submitter",
    "POST /api/jobs/{job_id}/retry": "submitter",
    "POST /api/cancel": "submitter",
    "GET /api/arrays/{array_id}": "viewer",
    "POST /api/arrays/{array_id}/cancel": "submitter",
    "POST /api/arrays/{array_id}/retry": "submitter",
    "GET /api/queue": "viewer",
    "PUT /api/limits": "operator",
    "GET /api/notify-targets": "operator",
    "PUT /api/notify-targets": "operator",
    "POST /api/notify-targets/{name}/test": "operator",
    "GET /api/audit": "operator",
    "GET /metrics": "viewer",
    "GET /healthz": "",
    "GET /": "",
    "GET /submit": "",
    "GET /jobs/{job_id:int}": "",
    "GET /static/{name}": "",
    "GET /openapi.json": "",
    "HEAD /openapi.json": "",
}
"""The lowest role that may use each endpoint; empty: no token is needed."""


def routes_of(app: FastAPI) -> list[str]:
    """Each method and path that the application serves."""
    found = []
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        for each in inner.routes if inner else [route]:
            found += [f"{method} {each.path}" for method in each.methods]
    return found


def error_of(answer) -> str:
    """The one line of an error answer."""
    assert list(answer.json()) == ["error"]
    line = answer.json()["error"]
    assert line
    assert "\n" not in line
    return line


# --- who may do what


def test_each_role_may_use_the_endpoints_of_the_table_and_no_route_is_missing_from_it(served):
    assert sorted(routes_of(served.app)) == sorted(LEAST_ROLE)
    for endpoint, least in LEAST_ROLE.items():
        method, path = endpoint.split()
        path = (
            re.sub(r"\{job_id(:int)?\}", "1", path)
            .replace("{name}", "app.js")
            .replace("{token_id}", "999")
            .replace("{array_id}", "999")
        )
        for token in ("", "zsbir_wrong", "revoked", *ROLES):
            code = served.client(token).request(method, path).status_code
            if not least:
                assert code in (200, 400, 404, 503), (endpoint, token)
            elif token not in ROLES:
                assert code == 401, (endpoint, token)
            elif ROLES.index(token) < ROLES.index(least):
                assert code == 403, (endpoint, token)
            else:
                assert code not in (401, 403, 500), (endpoint, token)


def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(served):
    wrong = ["", "zsbir_wrong", "revoked", "x" * 5000, "'; drop table tokens; --", served.tokens["operator"][:-1]]
    answers = {(served.client(token).get("/api/me")).text for token in wrong}
    answers |= {served.client(Authorization=text).get("/api/me").text for text in ("Bearer", "Basic eDp4", "zsbir", "Bearer  ")}
    assert len(answers) == 1
    assert served.client().get("/api/me").headers["www-authenticate"] == "Bearer"


def test_a_user_who_may_not_is_refused_before_the_body_is_read(served):
    assert served.client().post("/api/jobs", content=b"{").status_code == 401
    assert served.client("viewer").post("/api/jobs", content=b"x" * (MAX_BODY + 1)).status_code == 403
    assert served.client("submitter").put("/api/limits", json={"nonsense": 1}).status_code == 403


def test_me_says_who_asks(served):
    assert served.client("submitter").get("/api/me").json() == {
        "name": "submitter",
        "role": "submitter",
        "auth": "tokens",
        "session": False,
        "search_url": "",
    }


def test_without_tokens_everybody_is_the_operator_on_a_loopback_address_and_nowhere_else(tmp_path, served):
    store = {"store": f"sqlite:///{tmp_path / 'off.db'}", "root": str(tmp_path), "auth": "off"}
    for host in ("127.0.0.1", "localhost", "::1"):
        app = create_app(ApiSettings(**store, host=host))
        served.app = app
        assert served.client().get("/api/me").json() == {
            "name": "local",
            "role": "operator",
            "auth": "off",
            "session": False,
            "search_url": "",
        }
        assert served.client().get("/api/audit").status_code == 200
        assert served.client().get("/metrics").status_code == 200
        app.state.jobs.store.engine.dispose()
    for host in ("0.0.0.0", "::", "10.0.0.1", "jobs.example.org", ""):
        with pytest.raises(InputError, match="loopback"):
            create_app(ApiSettings(**store, host=host))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "x@127.0.0.1", "", "[::1", "a b"])
def test_a_foreign_host_name_is_refused_for_pages_and_api_alike(served, host):
    for path in ("/", "/api/me", "/openapi.json", "/nowhere"):
        answer = served.client("operator", Host=host).get(path)
        assert answer.status_code == 421
        assert "known as" in error_of(answer)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost:1", "LOCALHOST", "[::1]:8080"])
def test_this_machines_own_names_are_known(served, host):
    assert served.client("operator", Host=host).get("/api/me").status_code == 200


def test_a_name_that_the_operator_gave_is_known(settings, served):
    app = create_app(settings.replace(hosts=("jobs.example.org",)))
    served.app = app
    assert served.client("operator", Host="jobs.example.org").get("/api/me").status_code == 200
    app.state.jobs.store.engine.dispose()


def test_a_page_of_another_site_changes_nothing(served):
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999", "http://127.0.0.1", "", "file://"):
        answer = served.client("operator", Origin=origin).post("/api/jobs", json=TOY)
        assert answer.status_code == 403
        assert served.client("operator", Origin=origin).put("/api/limits", json={}).status_code == 403
        assert served.client("operator", Origin=origin).get("/api/jobs").json()["jobs"] == []
    assert served.client("operator", Origin="http://127.0.0.1:8080").post("/api/jobs", json=TOY).status_code == 201


def test_every_answer_has_security_headers(served):
    for path in ("/", "/api/me", "/nowhere", "/static/nothing", "/openapi.json", "/healthz"):
        headers = served.client().get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers


# --- jobs


def test_a_job_is_submitted_with_what_its_configuration_takes(served):
    answer = served.client("submitter").post("/api/jobs", json={**TOY, "project": "vision", "priority": 3})
    assert answer.status_code == 201
    job = answer.json()
    shown = {name: job[name] for name in ("kind", "project", "owner", "priority", "state", "cpus", "gpus", "place", "attempts")}
    expected = {"kind": "ingest", "project": "vision", "owner": "submitter", "priority": 3, "state": "queued"}
    assert shown == {**expected, "cpus": 1.0, "gpus": 0.0, "place": 1, "attempts": 0}
    many = served.client("submitter").post("/api/jobs", json={**TOY, "cpus": 4, "gpus": 0.5, "time_limit_s": 60}).json()
    assert (many["cpus"], many["gpus"], many["time_limit_s"], many["place"]) == (4.0, 0.5, 60.0, 2)


def test_a_pipeline_is_submitted_and_its_steps_are_listed(served):
    job = served.submit(kind="pipeline", config={"recipe": "toy"})
    shown = served.client("viewer").get(f"/api/jobs/{job}").json()
    assert [step["name"] for step in shown["steps"]] == ["ingest", "pretrain", "teacher", "train", "evaluate", "index"]
    assert {step["state"] for step in shown["steps"]} == {"waiting"}
    assert shown["steps"][0]["module"] == "zsbir.ingest"
    assert shown["config"]["train"]["recipe"] == "toy"


def test_the_same_idempotency_key_is_the_same_job_for_the_same_owner(served):
    first = served.client("submitter", **{"Idempotency-Key": "k"}).post("/api/jobs", json=TOY)
    again = served.client("submitter", **{"Idempotency-Key": "k"}).post("/api/jobs", json=TOY)
    assert (first.status_code, again.status_code, first.json()["id"]) == (201, 200, again.json()["id"])
    another = served.client("submitter", **{"Idempotency-Key": "k"}).post("/api/jobs", json={**TOY, "project": "another"})
    assert another.status_code == 409
    assert "'k'" in error_of(another)
    assert served.client("other", **{"Idempotency-Key": "k"}).post("/api/jobs", json=TOY).status_code == 201
    for wrong in ("", " ", "x" * 201, "\u00e9"):
        sent = served.client("submitter").post("/api/jobs", json=TOY, headers={"Idempotency-Key": wrong.encode("latin-1")})
        assert sent.status_code == 422


def test_a_list_is_filtered_and_comes_in_pages(served):
    ids = [served.submit(project=f"p{number % 2}") for number in range(5)]
    served.submit("other", kind="pretrain", config={})
    get = served.client("viewer").get
    first = get("/api/jobs", params={"project": "p0", "limit": 2}).json()
    assert ([job["id"] for job in first["jobs"]], first["next"]) == ([ids[4], ids[2]], ids[2])
    last = get("/api/jobs", params={"project": "p0", "limit": 2, "before": first["next"]}).json()
    assert ([job["id"] for job in last["jobs"]], last["next"]) == ([ids[0]], None)
    assert [job["kind"] for job in get("/api/jobs", params={"kind": "pretrain"}).json()["jobs"]] == ["pretrain"]
    assert [job["owner"] for job in get("/api/jobs", params={"owner": "other"}).json()["jobs"]] == ["other"]
    served.client("operator").post(f"/api/jobs/{ids[0]}/cancel")
    both = get("/api/jobs", params={"state": ["queued", "cancelled"]}).json()["jobs"]
    assert (len(both), len(get("/api/jobs", params={"state": "cancelled"}).json()["jobs"])) == (6, 1)
    assert served.client("viewer").get("/api/jobs").json()["jobs"][0]["place"] == 6 - 1


@pytest.mark.parametrize(
    ("query", "code"),
    [("limit=0", 422), ("limit=501", 422), ("limit=x", 422), ("before=0", 422), ("before=99999999999999999999", 422),
     ("state=asleep", 422), ("kind=nap", 422), ("project=../x", 422), ("owner=%00", 422), ("stat=queued", 400)],
)  # fmt: skip
def test_a_filter_that_cannot_be_is_refused(served, query, code):
    answer = served.client("viewer").get(f"/api/jobs?{query}")
    assert answer.status_code == code
    assert query.split("=")[0] in error_of(answer)


def test_a_waiting_job_says_why_it_waits(served):
    assert served.client("operator").put("/api/limits", json={"running": 1}).status_code == 200
    served.submit()
    waiting = served.submit()
    served.run()
    shown = served.client("viewer").get(f"/api/jobs/{waiting}").json()
    assert (shown["place"], shown["reason"]) == (1, "1 of 1 jobs are running: job 1")


def test_a_job_is_cancelled_by_its_owner_or_an_operator(served):
    mine, theirs = served.submit("submitter"), served.submit("other")
    assert served.client("submitter").post(f"/api/jobs/{mine}/cancel").json()["state"] == "cancelled"
    refused = served.client("submitter").post(f"/api/jobs/{theirs}/cancel")
    assert refused.status_code == 403
    assert "'other'" in error_of(refused)
    attempt, _ = served.run()
    shown = served.client("operator").post(f"/api/jobs/{theirs}/cancel").json()
    assert (shown["state"], shown["cancelling"]) == ("running", True)
    served.end(attempt, "succeeded")
    assert served.client("operator").post(f"/api/jobs/{theirs}/cancel").json()["state"] == "succeeded"


def test_many_jobs_are_cancelled_at_once(served):
    mine = [served.submit("submitter", project="a"), served.submit("submitter", project="b")]
    theirs = [served.submit("other", project="a"), served.submit("other", project="b")]
    cancel = served.client("submitter").post
    done = cancel("/api/cancel", json={"ids": [mine[0], theirs[0], 999, mine[0]]}).json()
    assert done["cancelled"] == [mine[0]]
    assert [(each["id"], each["error"].split(";")[0]) for each in done["refused"]] == [
        (theirs[0], f"job {theirs[0]} belongs to 'other'"),
        (999, "there is no job 999"),
    ]
    assert (
        cancel("/api/cancel", json={"ids": [mine[0]]}).json()["refused"][0]["error"] == f"job {mine[0]} has ended: it is cancelled"
    )
    assert cancel("/api/cancel", json={"project": "b"}).json() == {"cancelled": [mine[1]], "refused": []}
    assert cancel("/api/cancel", json={"owner": "other"}).json()["cancelled"] == []
    done = served.client("operator").post("/api/cancel", json={"states": ["queued"], "owner": "other"}).json()
    assert sorted(done["cancelled"]) == theirs


@pytest.mark.parametrize(
    "body", [{}, {"ids": []}, {"ids": [1], "project": "a"}, {"ids": [0]}, {"ids": [2**31]}, {"states": ["failed"]}, {"ids": ["1"]}]
)
def test_a_selection_of_no_jobs_cancels_none(served, body):
    job = served.submit()
    answer = served.client("operator").post("/api/cancel", json=body)
    assert answer.status_code == 422
    error_of(answer)
    assert served.client("viewer").get(f"/api/jobs/{job}").json()["state"] == "queued"


def test_a_job_that_failed_is_tried_again_as_a_new_one(served):
    job = served.submit("submitter", project="vision", priority=7, time_limit_s=60)
    retry = f"/api/jobs/{job}/retry"
    assert served.client("submitter").post(retry).status_code == 409
    attempt, _ = served.run()
    served.end(attempt, "user_error", message="no such class")
    assert served.client("other").post(retry).status_code == 403
    made = served.client("submitter").post(retry)
    assert made.status_code == 201
    again = made.json()
    kept = [again[name] for name in ("retry_of", "project", "priority", "time_limit_s", "state", "owner")]
    assert kept == [job, "vision", 7, 60.0, "queued", "submitter"]
    twice = served.client("submitter").post(retry)
    assert twice.status_code == 409
    assert f"job {again['id']} goes on" in error_of(twice)
    served.client("submitter").post(f"/api/jobs/{again['id']}/cancel")
    third_job = served.client("submitter").post(retry).json()
    assert third_job["retry_of"] == again["id"], "it goes on where the newest retry has stopped"
    third = third_job["id"]
    assert f"job {third} goes on" in error_of(served.client("submitter").post(retry))
    served.end(served.run()[0], "succeeded")
    for number in (job, again["id"]):
        done = served.client("submitter").post(f"/api/jobs/{number}/retry")
        assert done.status_code == 409
        assert error_of(done) == f"job {third} went on with the work of job {number}, and succeeded"


def test_a_job_that_succeeded_is_not_tried_again(served):
    job = served.submit()
    served.end(served.run()[0], "succeeded")
    answer = served.client("operator").post(f"/api/jobs/{job}/retry")
    assert answer.status_code == 409
    assert "succeeded" in error_of(answer)


@pytest.mark.parametrize("path", ["", "/log", "/curve", "/pictures/x.png"])
def test_a_job_that_does_not_exist_is_not_found(served, path):
    assert "no job 77" in error_of(served.client("viewer").get(f"/api/jobs/77{path}"))
    assert served.client("viewer").get(f"/api/jobs/77{path}").status_code == 404


# --- bodies


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", 400), (b"{", 400), (b"\xff\xfe{}", 400), ('{"kind": "ingest"}'.encode("utf-16"), 400), (b'{"priority": NaN}', 400),
     (b'{"cpus": Infinity}', 400), (b"[" * 100_000, 400), (b'{"x": ' + b"9" * 5000 + b"}", 400),
     (b'{"kind": "ingest", "knd": 1}', 400), (b"[]", 422), (b"null", 422), (b'"x"', 422), (b"{}", 422), (b'{"cpus": 1e999}', 422),
     (b'{"config": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}", 422), (b'{"config": {"a": 99999999999999999999}}', 422),
     (b'{"config": {"a": "\\ud800"}}', 422), (b'{"config": {"a\\u0000": 1}}', 422), (b'{"kind": "ingest", "priority": "5"}', 422),
     (b'{"kind": "ingest", "priority": true}', 422), (b'{"kind": "rm -rf", "config": {}}', 422)],
)  # fmt: skip
def test_a_body_that_cannot_be_used_is_refused_in_one_line(served, body, code):
    answer = served.client("operator").post("/api/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == code, answer.text
    assert len(error_of(answer)) < 1100
    assert served.store.jobs() == []


def test_a_body_must_say_that_it_is_json(served):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"):
        answer = served.client("operator").post("/api/jobs", content=json.dumps(TOY), headers={"Content-Type": kind})
        assert answer.status_code == 400
        assert "application/json" in error_of(answer)


def test_a_body_that_is_too_large_is_refused_whether_or_not_its_length_is_announced(served):
    headers = {"Content-Type": "application/json"}
    body = json.dumps({**TOY, "project": "x" * MAX_BODY}).encode()
    assert served.client("operator").post("/api/jobs", content=body, headers=headers).status_code == 413
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
    assert served.client("operator").post("/api/jobs", content=pieces, headers=headers).status_code == 413


def test_absurd_resources_and_times_are_refused(served):
    for words in ({"cpus": 1e9}, {"gpus": -1}, {"time_limit_s": 0}, {"start_by_s": 1e300}):
        assert served.client("operator").post("/api/jobs", json={**TOY, **words}).status_code == 422
    wide = {"kind": "pipeline", "config": {"recipe": "toy", "train": {"num_workers": 2**50}}}
    answer = served.client("operator").post("/api/jobs", json=wide)
    assert answer.status_code == 422
    error_of(answer)


# --- what a job leaves


def test_a_log_is_read_in_parts_across_its_pieces(served):
    job = served.submit()
    get = served.client("viewer").get
    nothing = get(f"/api/jobs/{job}/log")
    assert (nothing.text, nothing.headers["x-next-offset"], nothing.headers["x-log-end"], nothing.headers["x-attempt"]) == (
        "", "0", "false", "0",
    )  # fmt: skip
    attempt, attempt_dir = served.run()
    whole = b"".join(b"line %d of the log\n" % number for number in range(40_000))
    for piece in range(0, len(whole), LOG_PIECE):
        attempt_dir.write_log(piece // LOG_PIECE, whole[piece : piece + LOG_PIECE])
    read, offset, parts = b"", 7, 0
    while True:
        part = get(f"/api/jobs/{job}/log", params={"offset": offset})
        assert part.headers["content-type"] == "text/plain; charset=utf-8"
        assert part.headers["x-log-end"] == "false"
        assert len(part.content) <= LOG_PIECE
        if not part.content:
            break
        read, offset, parts = read + part.content, int(part.headers["x-next-offset"]), parts + 1
    assert read == whole[7:]
    assert (offset, parts) == (len(whole), len(whole) // LOG_PIECE + 1)
    served.end(attempt)
    end = get(f"/api/jobs/{job}/log", params={"offset": -100})
    assert (end.content, end.headers["x-log-end"], end.headers["x-next-offset"]) == (whole[-100:], "true", str(len(whole)))
    early = get(f"/api/jobs/{job}/log", params={"offset": 0})
    assert early.headers["x-log-end"] == "false"
    assert get(f"/api/jobs/{job}/log", params={"offset": -(2**40)}).content == early.content
    beyond = get(f"/api/jobs/{job}/log", params={"offset": 2**40})
    assert (beyond.text, beyond.headers["x-log-end"]) == ("", "true")


def test_half_a_character_waits_for_its_other_half(served):
    job = served.submit()
    attempt, attempt_dir = served.run()
    attempt_dir.write_log(0, "ä€".encode()[:-1])
    part = served.client("viewer").get(f"/api/jobs/{job}/log")
    assert (part.text, part.headers["x-next-offset"]) == ("ä", "2")
    attempt_dir.write_log(0, "ä€".encode() + b"\xff\0<script>")
    part = served.client("viewer").get(f"/api/jobs/{job}/log", params={"offset": 2})
    assert part.text == "€\ufffd\0<script>"
    attempt_dir.write_log(0, "ä€".encode()[:-1])
    served.end(attempt)
    part = served.client("viewer").get(f"/api/jobs/{job}/log", params={"offset": 2})
    assert (part.text, part.headers["x-log-end"]) == ("\ufffd", "true")


def test_each_attempt_has_its_own_log_and_the_newest_comes_first(served):
    job = served.submit()
    attempt, attempt_dir = served.run()
    attempt_dir.write_log(0, b"first")
    served.end(attempt, "preempted")
    _, attempt_dir = served.run()
    attempt_dir.write_log(0, b"second")
    get = served.client("viewer").get
    newest = get(f"/api/jobs/{job}/log")
    assert (newest.text, newest.headers["x-attempt"]) == ("second", "2")
    assert get(f"/api/jobs/{job}/log", params={"attempt": 1}).text == "first"
    assert get(f"/api/jobs/{job}/log", params={"attempt": 3}).status_code == 404
    assert get(f"/api/jobs/{job}/log", params={"attempt": 0}).status_code == 422
    made = get(f"/api/jobs/{job}").json()["attempts_made"]
    assert [(each["number"], each["cause"]) for each in made] == [(1, "preempted"), (2, None)]


def test_steps_curve_links_and_pictures_show_what_a_job_did(served):
    job = served.submit(kind="pipeline", config={"recipe": "toy"})
    attempt, attempt_dir = served.run()
    status = Path(attempt_dir.uri, "train")
    status.mkdir(parents=True)
    status.joinpath("worker.json").write_text('{"facts": {"mlflow_run": "0a1b", "mlflow_experiment": "3"}}')
    status.joinpath("curve.json").write_text('{"rows": [{"step": 10, "train/loss": 1.5, "dev/map_all": NaN}]}')
    served.store.report(served.lease, attempt, {"step": "train", "done": 3, "total": 5})
    get = served.client("viewer").get
    shown = get(f"/api/jobs/{job}").json()
    assert [step["state"] for step in shown["steps"]] == ["done", "done", "done", "running", "waiting", "waiting"]
    assert shown["links"] == {
        "mlflow_run": "http://127.0.0.1:5000/#/experiments/3/runs/0a1b",
        "mlflow_runs": "http://127.0.0.1:5000/#/experiments/3/runs?workflowType=machine_learning&viewStateShareKey=zsbir",
    }
    assert shown["progress"]["done"] == 3
    rows = [{"step": 10.0, "train/loss": 1.5, "dev/map_all": None}]
    assert get(f"/api/jobs/{job}/curve").json() == {"rows": rows, "step_name": "train"}
    report = Path(served.root, "reports", "r")
    with draft(report, "report", "r") as work:
        Image.new("RGB", (2, 2)).save(work.file("grid.png"))
        work.file("table.csv").write_text("a,b")
        work.commit(digest="0" * 64)
    attempt_dir.write_end(End("user_error", made={"evaluate": str(report), "train": str(Path(served.root, "nothing"))}))
    served.end(attempt, "user_error")
    shown = get(f"/api/jobs/{job}").json()
    assert [step["state"] for step in shown["steps"]] == ["done", "done", "done", "done", "done", "failed"]
    assert shown["pictures"] == [
        {"name": "evaluate-grid.png", "title": "evaluate: grid", "url": f"/api/jobs/{job}/pictures/evaluate-grid.png"}
    ]
    picture = get(shown["pictures"][0]["url"])
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    assert picture.content == report.joinpath("grid.png").read_bytes()
    for name in ("grid.png", "evaluate-table.csv", "evaluate-manifest.json", "..%2fgrid.png", "evaluate-..%2f..%2fjobs.db"):
        assert get(f"/api/jobs/{job}/pictures/{name}").status_code == 404
    report.joinpath("grid.png").write_bytes(b"other bytes")
    assert get(shown["pictures"][0]["url"]).status_code == 422


def test_an_artifact_outside_of_what_the_service_reads_shows_no_pictures(served, tmp_path):
    served.submit()
    attempt, attempt_dir = served.run()
    with draft(tmp_path / "elsewhere", "report", "r") as work:
        Image.new("RGB", (2, 2)).save(work.file("grid.png"))
        work.commit(digest="0" * 64)
    attempt_dir.write_end(End("succeeded", result=str(tmp_path / "elsewhere"), made={"ingest": str(tmp_path / "elsewhere")}))
    served.end(attempt, "succeeded", result=str(tmp_path / "elsewhere"))
    assert served.client("viewer").get("/api/jobs/1").json()["pictures"] == []


def test_a_link_is_made_of_word_characters_alone(served):
    job = served.submit()
    _, attempt_dir = served.run()
    Path(attempt_dir.uri, "ingest").mkdir(parents=True)
    Path(attempt_dir.uri, "ingest", "driver.json").write_text(
        '{"facts": {"mlflow_run": "x/../<script>", "mlflow_experiment": "1"}}'
    )
    assert served.client("viewer").get(f"/api/jobs/{job}").json()["links"] == {"mlflow_run": "", "mlflow_runs": ""}


# --- the queue


def test_the_queue_is_shown_as_a_whole(served):
    served.submit()
    served.run()
    served.submit("submitter", project="vision", gpus=1)
    served.client("operator").put("/api/limits", json={"running": 1})
    shown = served.client("viewer").get("/api/queue").json()
    assert shown["usage"] == {"running": 1, "cpus": 1.0, "gpus": 0.0}
    assert shown["counts"] == {"queued": 1, "running": 1}
    [waiting] = shown["line"]
    assert waiting == {
        "id": 2, "name": "toy", "kind": "ingest", "project": "vision", "owner": "submitter", "priority": 0, "place": 1,
        "reason": "1 of 1 jobs are running: job 1",
    }  # fmt: skip
    assert (shown["dispatcher"]["holder"], shown["dispatcher"]["epoch"]) == ("dispatcher", 1)


def test_limits_are_set_and_the_audit_names_who_did_it(served):
    wanted = Limits(running=3, cpus=8, projects={"vision": ProjectLimits(gpus=1, gpu_hours=10)}).model_dump()
    assert served.client("operator").put("/api/limits", json=wanted).json() == wanted
    assert served.client("viewer").get("/api/queue").json()["limits"] == wanted
    for wrong in ({"running": -1}, {"running": "2"}, {"cpus": -1}, {"projects": {"a": 1}}):
        assert served.client("operator").put("/api/limits", json=wrong).status_code == 422
    assert served.client("operator").put("/api/limits", json={"runing": 2}).status_code == 400
    [event, *_] = served.client("operator").get("/api/audit").json()["events"]
    assert (event["actor"], event["what"], event["detail"]) == ("operator", "limits set", wanted)
    before = served.client("operator").get("/api/audit", params={"before": event["id"], "limit": 1}).json()["events"]
    assert [each["id"] for each in before] == [event["id"] - 1]


def test_a_dispatcher_is_alive_as_long_as_its_heartbeats_continue(served):
    now = [100.0]
    monitor = DispatcherMonitor(served.store, clock=lambda: now[0])
    assert (monitor.check().alive, monitor.check().seen_s_ago) == (False, None)
    served.store.heartbeat(served.lease)
    now[0] += ALIVE_S - 1
    assert monitor.check().alive
    now[0] += ALIVE_S - 1
    assert monitor.check().alive
    now[0] += 1
    assert (monitor.check().alive, monitor.check().seen_s_ago) == (False, ALIVE_S)
    served.store.heartbeat(served.lease)
    now[0] += 3600
    assert (monitor.check().alive, monitor.check().seen_s_ago) == (False, None), "its last heartbeat was some time in this hour"
    served.store.heartbeat(served.lease)
    now[0] += 2
    assert monitor.check().alive


def test_metrics_are_in_prometheus_format_and_name_no_job(served):
    served.submit()
    served.end(served.run()[0], "user_error")
    served.submit()
    served.client("viewer").get("/api/jobs/1")
    served.client("viewer").get("/nowhere/1")
    served.client("viewer").request("BREW", "/api/jobs")
    text = served.client("viewer").get("/metrics").text
    for state in STATES:
        expected = 1.0 if state in ("queued", "failed") else 0.0
        assert f'zsbir_jobs{{state="{state}"}} {expected}' in text
    for line in (
        'zsbir_attempts_total{cause="user_error"} 1.0',
        'zsbir_attempts_total{cause="lost"} 0.0',
        'zsbir_queue_wait_seconds_bucket{le="60.0"} 1.0',
        "zsbir_queue_wait_seconds_count 1.0",
        "zsbir_running_limit 2.0",
        "zsbir_dispatcher_alive 1.0",
        'zsbir_http_requests_total{method="GET",route="/api/jobs/{job_id}",status="200"} 1.0',
        'zsbir_http_requests_total{method="GET",route="none",status="404"} 1.0',
        'zsbir_http_requests_total{method="other",route="/api/jobs",status="405"} 1.0',
        'zsbir_http_request_seconds_count{route="/api/jobs/{job_id}"} 1.0',
    ):
        assert line in text
    assert "/jobs/1" not in text


def test_kinds_are_described_for_forms(served):
    kinds = served.client("viewer").get("/api/kinds").json()
    assert set(kinds) == {"kinds", "recipes", "about_recipes", "order", "starts", "chosen", "inputs"}
    assert kinds["kinds"]["train"]["required"] == ["dataset"]


def test_a_store_that_does_not_answer_is_reported_in_one_line(tmp_path, served):
    app = create_app(ApiSettings(store=f"sqlite:///{tmp_path / 'away' / 'jobs.db'}", root=str(tmp_path), auth="off"))
    served.app = app
    assert served.client().get("/healthz").json() == {"ok": True}
    app.state.jobs.store.engine.dispose()
    (tmp_path / "away").rename(tmp_path / "gone")
    for path in ("/healthz", "/api/jobs", "/api/queue", "/metrics", "/api/jobs/1"):
        answer = served.client().get(path)
        assert answer.status_code == 503
        assert "job store" in error_of(answer)
    assert served.client().post("/api/jobs", json=TOY).status_code == 503


def test_a_method_that_is_not_allowed_names_those_that_are(served):
    answer = served.client("operator").put("/api/jobs")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert served.client("operator").get("/api/jobs/1/cancel").headers["allow"] == "POST"


# --- the pages


def test_pages_are_served_as_they_were_when_the_service_started(served, settings, tmp_path, monkeypatch):
    pages = tmp_path / "pages"
    pages.mkdir()
    monkeypatch.setattr(api, "PAGES", pages)
    tmp_path.joinpath("secret.js").write_text("secret")
    served.app = create_app(settings)
    assert served.client().get("/").status_code == 503
    assert served.client().get("/").headers["content-type"].startswith("text/plain")
    for name, text in {"index.html": "<!doctype html>", "app.js": "1", "style.css": "a{}", "notes.txt": "no"}.items():
        pages.joinpath(name).write_text(text)
    served.app = create_app(settings)
    pages.joinpath("late.js").write_text("late")
    for path in ("/", "/submit", "/jobs/12"):
        answer = served.client().get(path)
        assert (answer.status_code, answer.text, answer.headers["content-type"]) == (
            200,
            "<!doctype html>",
            "text/html; charset=utf-8",
        )
    assert served.client().get("/static/app.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert served.client().get("/static/style.css").headers["content-type"] == "text/css; charset=utf-8"
    names = (
        "late.js",
        "notes.txt",
        "..%2fsecret.js",
        "%2e%2e%2fsecret.js",
        "..%5csecret.js",
        "%252e%252e%252fsecret.js",
        "app.js%00",
    )
    for name in names:
        assert served.client().get(f"/static/{name}").status_code == 404
    assert served.client().get("/jobs/x").status_code == 404
    assert served.client().get("/docs").status_code == 404
