"""The queue over HTTP: `create_app(settings)`. Who may do what is checked before a request's body is read.

Every answer that is no success is {"error": "one line"}. The same things can be done with or without a browser; the pages are
plain files, served without a token, that ask for one when the API does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, HTTPException, Query, Response
from fastapi import Path as InPath
from fastapi.responses import PlainTextResponse

import zsbir
from services.common.auth import is_loopback
from services.jobs.http import models as messages
from services.jobs.http.auth import ApiSettings, Operator, Parts, RequestGuard, Service, Submitter, Viewer
from services.jobs.http.bodies import body, takes, with_bodies
from services.jobs.http.errors import refusals, refuse
from services.jobs.http.metrics import Metrics, Watch
from services.jobs.http.models import (
    Cancelled,
    Curve,
    Dispatcher,
    Explained,
    Filter,
    Health,
    Me,
    Queue,
    Selection,
    Submission,
    Summary,
)
from services.jobs.http.service import JobService
from services.jobs.queue.limits import Limits
from services.jobs.queue.store import open_store
from services.jobs.queue.tokens import Tokens
from services.jobs.runs import validation as schemas
from services.jobs.runs.allowed_paths import AllowedPaths
from zsbir.base.errors import InputError, RunError

PAGES = Path(__file__).parent / "pages"
PAGE_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png"}


def create_app(settings: ApiSettings) -> FastAPI:
    """The service. InputError for settings that let everybody in from elsewhere, RunError when the store is away."""
    if settings.auth == "off" and not is_loopback(settings.host):
        raise InputError(f"without tokens the service listens on a loopback address only, not on {settings.host!r}; use tokens")
    store = open_store(settings.store)
    watch = Watch(store)
    front = JobService(store, settings.root, AllowedPaths([settings.root, *settings.places]), settings.mlflow_url)
    files = [path for path in PAGES.glob("*") if path.suffix in PAGE_TYPES]
    pages = {path.name: path.read_bytes() for path in files}
    service = Service(settings, front, Tokens(store), watch, Metrics(store, watch), pages)
    title, version = "zsbir jobs", zsbir.__version__
    app = FastAPI(title=title, version=version, docs_url=None, redoc_url=None, redirect_slashes=False, responses=refusals(421))
    app.state.service = service
    app.include_router(ROUTES)
    app.add_middleware(RequestGuard, service=service)
    refuse(app, ROUTES.routes)
    described = app.openapi
    app.openapi = lambda: with_bodies(described())  # type: ignore[method-assign]
    return app


ROUTES = APIRouter()
JobId = Annotated[int, InPath(ge=1, le=messages.LARGEST_ID, description="a job's number")]
Number = Annotated[int | None, Query(ge=1, le=messages.LARGEST_ID)]
Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=-(2**40), le=2**40, description="bytes; below 0: from the end")]
Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=200, pattern=r"^[!-~]([ -~]*[!-~])?$", description="the same key: the same job"),
]
READ = refusals(401, 403, 422, 503)
READ_ONE = refusals(401, 403, 404, 422, 503)
CHANGE = refusals(400, 401, 403, 413, 422, 503)


@ROUTES.get("/api/me", responses=refusals(401, 403, 503))
def me(parts: Parts, person: Viewer) -> Me:
    """Who asks, as the service knows him."""
    return Me(name=person.name, role=person.role, auth=parts.settings.auth)


@ROUTES.get("/api/kinds", responses=refusals(401, 403, 503))
def kinds(_person: Viewer) -> dict[str, Any]:
    """What can be submitted: the JSON schema of every kind's configuration, and what each recipe stands for."""
    return schemas.describe_kinds()


@ROUTES.get("/api/jobs", responses=READ | refusals(400))
def jobs(parts: Parts, _person: Viewer, which: Annotated[Filter, Query()]) -> messages.Page:
    """Jobs, the newest first."""
    return parts.service.jobs(which)


@ROUTES.post(
    "/api/jobs",
    status_code=201,
    responses=CHANGE | refusals(409) | {200: {"model": Summary, "description": "the key was used for this job before"}},
    openapi_extra=takes(Submission, {"kind": "ingest", "config": {"layout": "toy"}}),
)
def submit(
    parts: Parts,
    person: Submitter,
    asked: Annotated[Submission, body(Submission)],
    response: Response,
    key: Key = None,
) -> Summary:
    """A new job, or the one that the key was used for before."""
    job, new = parts.service.submit(person, asked, key)
    response.status_code = 201 if new else 200
    return job


@ROUTES.get("/api/jobs/{job_id}", responses=READ_ONE)
def job(parts: Parts, _person: Viewer, job_id: JobId) -> Explained:
    """All that is known of a job."""
    return parts.service.explain(job_id)


LOG_HEADERS = {
    "X-Next-Offset": {"description": "pass as offset next time", "schema": {"type": "integer"}, "required": True},
    "X-Log-End": {
        "description": "there will be no more",
        "schema": {"type": "string", "enum": ["true", "false"]},
        "required": True,
    },
    "X-Attempt": {"description": "whose log it is; 0: none yet", "schema": {"type": "integer"}, "required": True},
}


@ROUTES.get("/api/jobs/{job_id}/log", response_class=PlainTextResponse, responses=READ_ONE | {200: {"headers": LOG_HEADERS}})
def log(parts: Parts, _person: Viewer, job_id: JobId, offset: Offset = 0, attempt: Number = None) -> PlainTextResponse:
    """A part of an attempt's log, the newest one's by default."""
    part = parts.service.log(job_id, offset, attempt)
    ends = "true" if part.end else "false"
    return PlainTextResponse(
        part.text, headers={"X-Next-Offset": str(part.next), "X-Log-End": ends, "X-Attempt": str(part.attempt)}
    )


@ROUTES.get("/api/jobs/{job_id}/curve", responses=READ_ONE)
def curve(parts: Parts, _person: Viewer, job_id: JobId) -> Curve:
    """Metrics by optimiser step."""
    return parts.service.curve(job_id)


class Png(Response):
    """A picture."""

    media_type = "image/png"


PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


@ROUTES.get("/api/jobs/{job_id}/pictures/{name}", response_class=Png, responses=READ_ONE | {200: {"content": PNG}})
def picture(parts: Parts, _person: Viewer, job_id: JobId, name: str) -> Png:
    """One of the pictures that the job lists."""
    return Png(parts.service.picture(job_id, name))


@ROUTES.post("/api/jobs/{job_id}/cancel", responses=READ_ONE)
def cancel(parts: Parts, person: Submitter, job_id: JobId) -> Summary:
    """Cancel it; a running one saves its work first. One that has ended stays as it is."""
    return parts.service.cancel(person, job_id)


@ROUTES.post("/api/jobs/{job_id}/retry", status_code=201, responses=READ_ONE | refusals(409))
def retry(parts: Parts, person: Submitter, job_id: JobId) -> Summary:
    """A new job with the same configuration that goes on with the work of one that did not succeed."""
    return parts.service.retry(person, job_id)


@ROUTES.post("/api/cancel", responses=CHANGE, openapi_extra=takes(Selection, {"project": "default", "states": ["queued"]}))
def cancel_many(parts: Parts, person: Submitter, what: Annotated[Selection, body(Selection)]) -> Cancelled:
    """Cancel many."""
    return parts.service.cancel_many(person, what)


@ROUTES.get("/api/queue", responses=refusals(401, 403, 503))
def queue(parts: Parts, _person: Viewer) -> Queue:
    """Limits, what is in use, who waits and why, and who dispatches."""
    limits, counts = parts.service.store.limits(), parts.service.store.counts()
    seen = Dispatcher(**vars(parts.watch.look()))
    line = parts.service.line(limits)
    return Queue.model_validate(
        {"limits": limits, "usage": parts.service.usage(), "counts": counts, "line": line, "dispatcher": seen}
    )


@ROUTES.put("/api/limits", responses=CHANGE, openapi_extra=takes(Limits, {"running": 2, "projects": {"vision": {"gpus": 1}}}))
def set_limits(parts: Parts, person: Operator, limits: Annotated[Limits, body(Limits)]) -> Limits:
    """From now on; what runs already goes on."""
    return parts.service.set_limits(person, limits)


@ROUTES.get("/api/audit", responses=READ)
def audit(parts: Parts, _person: Operator, before: Number = None, limit: Limit = 100) -> messages.Audit:
    """Who did what."""
    return messages.Audit(events=[messages.AuditEvent(**event) for event in parts.service.store.audit(before=before, limit=limit)])


@ROUTES.get("/healthz", responses=refusals(503))
def health(parts: Parts) -> Health:
    """Whether the store answers. Why not, is for those who may ask."""
    try:
        parts.service.store.seen_lease()
    except RunError:
        raise RunError("the job store does not answer") from None
    return Health()


@ROUTES.get("/metrics", response_class=PlainTextResponse, responses=refusals(401, 403, 503))
def metrics(parts: Parts, _person: Viewer) -> PlainTextResponse:
    """For Prometheus."""
    return PlainTextResponse(parts.metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")


# --- the pages


@ROUTES.get("/", include_in_schema=False)
@ROUTES.get("/submit", include_in_schema=False)
@ROUTES.get("/jobs/{job_id:int}", include_in_schema=False)
def page(parts: Parts) -> Response:
    """The page's frame; it asks the API for everything in it."""
    html = parts.pages.get("index.html")
    return (
        Response(html, media_type="text/html") if html else PlainTextResponse("This service was installed without its pages.", 503)
    )


@ROUTES.get("/static/{name}", include_in_schema=False)
def static(parts: Parts, name: str) -> Response:
    """A file of the pages; only those that were there when the service began."""
    if name not in parts.pages:
        raise HTTPException(404)
    return Response(parts.pages[name], media_type=PAGE_TYPES[Path(name).suffix])
