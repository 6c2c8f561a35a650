"""The routes of right and wrong clicks: kept after consent, shown to whoever made them and to operators, deleted on demand."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Body, Query
from fastapi.responses import StreamingResponse

from services.common.answers import error_responses
from services.common.auth import User
from services.common.errors import NotFound
from services.common.routes import Searcher
from services.search.http import models, requests
from services.search.http.admission import ParsedRequest, SearchRoute, search
from services.search.http.drawings import checked
from services.search.http.searches import check_photo
from services.search.http.state import App
from zsbir.base.errors import InputError

CLICKS = APIRouter(route_class=SearchRoute)
CHANGE = error_responses(400, 401, 403, 404, 413, 422, 429, 503)
Clicked = Annotated[
    requests.Click,
    Body(examples=[{"strokes": [[[1, 2], [3, 4]]], "index": "0" * 64, "id": 0, "right": True, "consent": True}]),
]
Everyone = Annotated[bool, Query(description="all users' clicks, which only an operator may ask for")]


@CLICKS.post("/api/feedback", status_code=201, responses=CHANGE)
@search(ParsedRequest)
async def add_click(app: App, user: Searcher, clicked: Clicked) -> models.Health:
    """Keep whether a photo shows what was drawn. Without consent nothing is kept."""
    if not clicked.consent:
        raise InputError("consent: nothing is kept without it")
    if (clicked.strokes is None) == (clicked.example is None):
        raise InputError("a click is about strokes or about an example: name one of them")
    served = app.catalogue.of_digest(clicked.index)
    check_photo(served.engine, clicked.id)
    if clicked.example is not None and clicked.example >= (there := len(served.engine.files.examples)):
        raise NotFound(f"the index has no example {clicked.example}, only {there}")
    path = served.engine.files.paths[clicked.id].as_py()
    row = {
        "at_s": round(time.time(), 3),
        "index": served.digest,
        "model": served.model,
        "id": clicked.id,
        "path": path,
        "right": clicked.right,
    }

    def keep() -> None:
        drawing = {"example": clicked.example} if clicked.strokes is None else {"strokes": checked(clicked.strokes)}
        app.feedback.add(user.name, {**row, **drawing})

    await app.admission.compute(keep)
    return models.Health()


@CLICKS.get(
    "/api/feedback",
    response_class=StreamingResponse,
    responses=error_responses(401, 403, 422, 503, of_json=False)
    | {200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
def clicks(app: App, user: Searcher, everyone: Everyone = False) -> StreamingResponse:
    """Return the clicks of the user who asks, one JSON object a line."""
    return StreamingResponse(app.feedback.lines(_whose(user, everyone=everyone)), media_type="application/x-ndjson")


@CLICKS.delete("/api/feedback", responses=error_responses(401, 403, 422, 503))
def delete_clicks(app: App, user: Searcher, everyone: Everyone = False) -> models.Deleted:
    """Delete the clicks of the user who asks."""
    return models.Deleted(deleted=app.feedback.delete(_whose(user, everyone=everyone)))


def _whose(user: User, *, everyone: bool) -> str | None:
    """Return whose clicks are meant, None for all. Raises Forbidden where only an operator may ask for them."""
    if everyone:
        user.require_role("operator")
    return None if everyone else user.name
