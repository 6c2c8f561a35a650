"""Schemathesis against the whole search service: it behaves as its OpenAPI description says, whatever it is sent."""

from __future__ import annotations

from collections import Counter

import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

EXAMPLES = 15
"""Requests of each operation, besides the corners of its parameters."""

MAY_REFUSE = {"positive_data_acceptance": {"expected-statuses": ["2xx", "400", "401", "403", "404", "422"]}}
"""No schema can say which lists of numbers are a drawing, which bytes an image, or which models and indexes there are."""

OF_PATH = {"/api/search/batch": {"negative_data_rejection": {"enabled": False}}}
"""What is wrong with one query of a batch is told in its place, and the batch is answered."""


@pytest.mark.slow
def test_the_search_service_does_what_its_description_says(app: FastAPI):
    paths = app.openapi()["paths"]
    config = {
        "headers": {"Authorization": "Bearer operator"},
        "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
        "phases": {"stateful": {"enabled": False}},
        "operations": [{"include-path": path, "checks": MAY_REFUSE | OF_PATH.get(path, {})} for path in paths],
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
    assert not wrong, "\n\n".join(sorted(set(wrong))[:20])
    assert sorted(tested) == sorted(f"{method.upper()} {path}" for path, methods in paths.items() for method in methods)
    assert set(statuses) >= {200, 400, 404, 405, 422}


@pytest.mark.slow
def test_an_accepted_click_is_answered_as_the_description_says(app: FastAPI):
    """None of the requests that schemathesis makes up names the digest of an index that is served."""
    service = schemathesis.openapi.from_asgi("/openapi.json", app)
    sent = {"headers": {"Authorization": "Bearer operator"}}
    models = service["/api/models"]["GET"].Case().call_and_validate(**sent).json()
    click = {
        "strokes": [[[1, 2], [3, 4]]],
        "index": models["models"][0]["index"]["digest"],
        "id": 0,
        "right": True,
        "consent": True,
    }
    case = service["/api/feedback"]["POST"].Case(body=click, media_type="application/json")
    assert case.call_and_validate(**sent).status_code == 201


def failures(recorder) -> list[str]:
    """The failed checks, each with its request."""
    found = []
    for case, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                request = recorder.interactions[case].request
                found.append(f"{request.method} {request.uri} {request.body!r}\n{check.name}: {check.failure_info.failure}"[:700])
    return found
