"""Schemathesis against the whole job service: it behaves as its OpenAPI description says, whatever it is sent."""

from __future__ import annotations

from collections import Counter

import pytest
import schemathesis
from PIL import Image
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from services.common.tokens import Tokens
from services.jobs.http.api import create_app
from services.jobs.http.state import ApiSettings
from services.jobs.queue.records import JobRequest
from services.jobs.queue.store import Store
from services.jobs.runs.attempt_dir import End, attempt_dir_of
from zsbir.base.draft import draft

EXAMPLES = 25
"""Requests of each operation, besides the corners of its parameters."""

MAY_REFUSE = {"positive_data_acceptance": {"expected-statuses": ["2xx", "401", "403", "404", "409", "422"]}}
"""No schema can say whether a configuration can run; nor that ids and a project exclude each
other; nor whether commands are allowed; nor that a target is either a webhook or a command; nor how large a number JSON readers
understand; nor which codes and tokens there are."""

REFUSING = (
    "/api/jobs",
    "/api/cancel",
    "/api/limits",
    "/api/session",
    "/api/tokens",
    "/api/tokens/{token_id}/revoke",
    "/api/notify-targets",
)


def some_jobs(store: Store, root: str) -> None:
    """One job in each state, with a log and a picture."""
    lease = store.take_lease("dispatcher", None)
    assert lease
    for number in range(6):
        store.submit(JobRequest(kind="ingest", config={"layout": "toy"}, owner=f"owner{number}"))
    for cause in ("succeeded", "user_error", "timed_out"):
        attempt = store.claim(lease, store.limits())
        assert attempt
        store.started(lease, attempt)
        attempt_dir = attempt_dir_of(root, attempt.submission_id)
        attempt_dir.write_log(0, b"a line\n" * 100)
        with draft(f"{root}/reports/r{attempt.id}", "report", "r") as work:
            Image.new("RGB", (2, 2)).save(work.file("grid.png"))
            work.commit(digest="0" * 64)
        attempt_dir.write_end(End(cause, made={"ingest": f"{root}/reports/r{attempt.id}"}))
        store.end(lease, attempt, cause)
    store.claim(lease, store.limits())


@pytest.mark.slow
def test_the_service_does_what_its_description_says(settings: ApiSettings):
    app = create_app(settings.replace(hosts=("testserver",)))
    store = app.state.jobs.store
    some_jobs(store, settings.root)
    for number in range(12):  # the smallest numbers are among the examples, and these revoke
        Tokens(store).make(f"user{number}", "viewer", "test")
    token = Tokens(store).make("operator", "operator", "test")
    config = {
        "headers": {"Authorization": f"Bearer {token}"},
        "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
        "phases": {"stateful": {"enabled": False}},
        "operations": [{"include-path": path, "checks": MAY_REFUSE} for path in REFUSING],
    }
    service = schemathesis.openapi.from_asgi("/openapi.json", app, config=SchemathesisConfig.from_dict(config))
    tested, statuses, wrong = set(), Counter[int](), []
    for event in from_schema(service).execute():
        if isinstance(event, (events.NonFatalError, events.FatalError)):
            wrong.append(str(event.info if isinstance(event, events.NonFatalError) else event.exception))
        if isinstance(event, events.ScenarioFinished):
            tested.add(event.label)
            answers = [each.response for each in event.recorder.interactions.values()]
            statuses.update(answer.status_code for answer in answers if answer)
            wrong += failures(event.recorder)
    store.engine.dispose()
    assert not wrong, "\n\n".join(sorted(set(wrong))[:20])
    operations = [f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods]
    assert sorted(tested) == sorted(operations)
    assert statuses.total() > EXAMPLES * len(operations)
    assert set(statuses) >= {200, 201, 400, 401, 404, 405, 409, 422}


def failures(recorder) -> list[str]:
    """The failed checks, each with its request."""
    found = []
    for case, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                request = recorder.interactions[case].request
                found.append(f"{request.method} {request.uri} {request.body!r}\n{check.name}: {check.failure_info.failure}"[:700])
    return found
