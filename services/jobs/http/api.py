"""The queue over HTTP: `create_app(settings)`. Who may do what is checked before a request's body is read.

Every answer that is not a success is {"error": "one line"}. Browsers and programs use the same API; the pages are plain files,
served without a token, that ask for one when the API does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import sqlalchemy.exc
from fastapi import APIRouter, Body, FastAPI, Header, Query, Response
from fastapi import Path as InPath
from fastapi.responses import PlainTextResponse

import zsbir
from services.common.answers import add_error_handlers, error_responses
from services.common.auth import is_loopback
from services.common.guard import RequestGuard
from services.common.pages import html_page, load_pages, static_file
from services.common.routes import GuardedRoute, Operator, Submitter, Viewer
from services.common.tokens import Tokens
from services.common.users import LocalUser, TokenUsers
from services.jobs.http import models
from services.jobs.http.access import ACCESS
from services.jobs.http.metrics import DispatcherMonitor, Metrics
from services.jobs.http.notify import NOTIFY
from services.jobs.http.patience import HealthProbe
from services.jobs.http.permissions import Permissions
from services.jobs.http.requests import LARGEST_ID, Filter, Selection, Submission
from services.jobs.http.service import JobService
from services.jobs.http.state import ApiSettings, App, AppState
from services.jobs.http.views import ArrayView, Cancellations, JobView
from services.jobs.queue.limits import Limits
from services.jobs.queue.store import KeyTaken, open_store
from services.jobs.runs.fields import describe_kinds
from services.jobs.runs.names import seed_of
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.errors import InputError
from zsbir.base.layout import service_dir

PAGES = Path(__file__).parent / "pages"

ERROR_STATUSES = {
    KeyTaken: 409,
    sqlalchemy.exc.TimeoutError: 503,  # more readers at once than the store has connections
}


def create_app(settings: ApiSettings) -> FastAPI:
    """Return the application. InputError for settings that would let everybody in from elsewhere, RunError without the store."""
    if settings.auth == "off" and not is_loopback(settings.host):
        raise InputError(f"without tokens the service listens on a loopback address only, not on {settings.host!r}; use tokens")
    store = open_store(settings.store)
    monitor = DispatcherMonitor(store)
    allowed = AllowedPaths([settings.root, *settings.places], private=[str(service_dir(settings.root))])
    permissions = Permissions(settings.allow_commands, settings.promotion == "submitters")
    service = JobService(store, settings.root, allowed, settings.mlflow_url, permissions)
    tokens = Tokens(store)
    state = AppState(
        settings,
        store,
        service,
        monitor,
        Metrics(store, monitor),
        load_pages(PAGES),
        tokens,
        HealthProbe(service.check_store),
        permissions,
    )
    app = FastAPI(
        title="zsbir jobs",
        version=zsbir.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.jobs = state
    app.state.users = LocalUser() if settings.auth == "off" else TokenUsers(tokens)
    for router in (ACCESS, NOTIFY, ROUTES):
        app.include_router(router)
    app.add_middleware(RequestGuard, hosts=(settings.host, *settings.hosts), on_served=state.metrics.served)
    add_error_handlers(app, [*ACCESS.routes, *NOTIFY.routes, *ROUTES.routes], ERROR_STATUSES)
    return app


ROUTES = APIRouter(route_class=GuardedRoute)
ArrayId = Annotated[int, InPath(ge=1, le=LARGEST_ID, description="an array's number: that of its first job")]
JobId = Annotated[int, InPath(ge=1, le=LARGEST_ID, description="a job's number")]
Number = Annotated[int | None, Query(ge=1, le=LARGEST_ID)]
Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=-(2**40), le=2**40, description="bytes; below 0: from the end")]
Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=200, pattern=r"^[!-~]([ -~]*[!-~])?$", description="the same key: the same job"),
]
NewJob = Annotated[Submission, Body(examples=[{"kind": "ingest", "config": {"layout": "toy"}}])]
SelectedJobs = Annotated[Selection, Body(examples=[{"project": "default", "states": ["queued"]}])]
NewLimits = Annotated[Limits, Body(examples=[{"running": 2, "projects": {"vision": {"gpus": 1}}}])]

READ = error_responses(401, 403, 422, 503)
READ_ONE = error_responses(401, 403, 404, 422, 503)
CHANGE = error_responses(400, 401, 403, 413, 422, 503)


@ROUTES.get("/api/kinds", responses=error_responses(401, 403, 503))
def kinds(_user: Viewer) -> dict[str, Any]:
    """Return what can be submitted: the JSON schema of every kind's configuration, and what each recipe stands for."""
    return describe_kinds()


@ROUTES.get("/api/jobs", responses=READ | error_responses(400))
def jobs(app: App, _user: Viewer, wanted: Annotated[Filter, Query()]) -> models.Page:
    """Return jobs, the newest first."""
    page = app.service.jobs(wanted)
    return models.Page(jobs=[_summary(view) for view in page.jobs], next=page.next)


@ROUTES.post(
    "/api/jobs",
    status_code=201,
    responses=CHANGE
    | error_responses(409)
    | {200: {"model": models.Summary, "description": "the key was used for this job before"}},
)
def submit(app: App, user: Submitter, submission: NewJob, response: Response, key: Key = None) -> models.Summary:
    """Submit a job, or find the one that the key was used for before. With `each`, an array: the answer is its first job."""
    view, is_new = app.service.submit(user, submission, key)
    response.status_code = 201 if is_new else 200
    return _summary(view)


@ROUTES.get("/api/jobs/{job_id}", responses=READ_ONE)
def job(app: App, _user: Viewer, job_id: JobId) -> models.Explained:
    """Return all that is known of a job."""
    details = app.service.explain(job_id)
    return models.Explained(
        **vars(_summary(details.view)),
        config=details.view.job.config,
        attempts_made=[models.AttemptMade(**vars(attempt)) for attempt in details.attempts],
        events=[models.Event(**event) for event in details.events],
        steps=[models.Step(**vars(step)) for step in details.steps],
        links=dict(details.links),
        pictures=[
            models.Picture(name=name, title=_title(name), url=f"/api/jobs/{job_id}/pictures/{name}") for name in details.pictures
        ],
    )


LOG_HEADERS = {
    "X-Next-Offset": {"description": "pass as offset next time", "schema": {"type": "integer"}, "required": True},
    "X-Log-End": {
        "description": "there will be no more",
        "schema": {"type": "string", "enum": ["true", "false"]},
        "required": True,
    },
    "X-Attempt": {"description": "whose log it is; 0: none yet", "schema": {"type": "integer"}, "required": True},
}


@ROUTES.get(
    "/api/jobs/{job_id}/log",
    response_class=PlainTextResponse,
    responses=error_responses(401, 403, 404, 422, 503, of_json=False) | {200: {"headers": LOG_HEADERS}},
)
def log(app: App, _user: Viewer, job_id: JobId, offset: Offset = 0, attempt: Number = None) -> PlainTextResponse:
    """Return a part of an attempt's log, the newest attempt's by default."""
    part = app.service.log(job_id, offset, attempt)
    end = "true" if part.end else "false"
    headers = {"X-Next-Offset": str(part.next), "X-Log-End": end, "X-Attempt": str(part.attempt)}
    return PlainTextResponse(part.text, headers=headers)


@ROUTES.get("/api/jobs/{job_id}/curve", responses=READ_ONE)
def curve(app: App, _user: Viewer, job_id: JobId) -> models.Curve:
    """Return metrics by optimiser step."""
    return models.Curve(**vars(app.service.curve(job_id)))


class Png(Response):
    """A response whose body is a PNG image."""

    media_type = "image/png"


PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


@ROUTES.get(
    "/api/jobs/{job_id}/pictures/{name}",
    response_class=Png,
    responses=error_responses(401, 403, 404, 422, 503, of_json=False) | {200: {"content": PNG}},
)
def picture(app: App, _user: Viewer, job_id: JobId, name: str) -> Png:
    """Return one of the pictures that the job lists."""
    return Png(app.service.picture(job_id, name))


@ROUTES.post("/api/jobs/{job_id}/cancel", responses=READ_ONE)
def cancel(app: App, user: Submitter, job_id: JobId) -> models.Summary:
    """Cancel a job; a running one saves its work first. One that has ended stays as it is."""
    return _summary(app.service.cancel(user, job_id))


@ROUTES.post("/api/jobs/{job_id}/retry", status_code=201, responses=READ_ONE | error_responses(409))
def retry(app: App, user: Submitter, job_id: JobId) -> models.Summary:
    """Submit a job with the same configuration that goes on with the work of one that did not succeed."""
    return _summary(app.service.retry(user, job_id))


@ROUTES.get("/api/arrays/{array_id}", responses=READ_ONE)
def array(app: App, _user: Viewer, array_id: ArrayId) -> models.ArrayDetails:
    """Return an array, and its jobs in order."""
    view, jobs = app.service.array(array_id)
    return models.ArrayDetails(**_array(view), jobs=[_summary(each) for each in jobs])


@ROUTES.post("/api/arrays/{array_id}/cancel", responses=READ_ONE)
def cancel_array(app: App, user: Submitter, array_id: ArrayId) -> models.Cancelled:
    """Cancel the jobs of an array that have not ended."""
    return _cancelled(app.service.cancel_array(user, array_id))


@ROUTES.post("/api/arrays/{array_id}/retry", status_code=201, responses=READ_ONE | error_responses(409))
def retry_array(app: App, user: Submitter, array_id: ArrayId) -> models.Jobs:
    """Submit again each job of an array that has ended without success; the new jobs belong to the array."""
    return models.Jobs(jobs=[_summary(view) for view in app.service.retry_array(user, array_id)])


@ROUTES.post("/api/cancel", responses=CHANGE)
def cancel_many(app: App, user: Submitter, selection: SelectedJobs) -> models.Cancelled:
    """Cancel all jobs that the body selects; each that could not be cancelled is listed with the reason."""
    return _cancelled(app.service.cancel_many(user, selection))


def _cancelled(done: Cancellations) -> models.Cancelled:
    refused = [models.NotCancelled(id=job_id, error=error) for job_id, error in done.refused.items()]
    return models.Cancelled(cancelled=list(done.cancelled), refused=refused)


@ROUTES.get("/api/queue", responses=error_responses(401, 403, 503))
def queue(app: App, _user: Viewer) -> models.Queue:
    """Return limits, usage, who waits and why, and the dispatcher."""
    view = app.service.queue()
    usage = models.Usage(running=len(view.usage.jobs), **view.usage.held)
    line = [models.QueuedJob(**vars(turn.job), place=turn.position, reason=turn.reason) for turn in view.turns]
    dispatcher = models.Dispatcher(**vars(app.monitor.check()))
    return models.Queue.model_validate(
        {"limits": view.limits, "usage": usage, "counts": view.counts, "line": line, "dispatcher": dispatcher}
    )


@ROUTES.put("/api/limits", responses=CHANGE)
def set_limits(app: App, user: Operator, limits: NewLimits) -> Limits:
    """Set what the queue may use from now on; jobs that run already go on."""
    return app.service.set_limits(user, limits)


@ROUTES.get("/api/audit", responses=READ)
def audit(app: App, _user: Operator, before: Number = None, limit: Limit = 100) -> models.Audit:
    """Return who did what, the newest first."""
    return models.Audit(events=[models.AuditEvent(**event) for event in app.service.audit(before, limit)])


@ROUTES.get("/healthz", responses=error_responses(503))
async def health(app: App) -> models.Health:
    """Answer 200 if the store answers. It is asked in a thread of its own, also while all others wait for a disk."""
    await app.health.check()
    return models.Health()


@ROUTES.get("/metrics", response_class=PlainTextResponse, responses=error_responses(401, 403, 503, of_json=False))
def metrics(app: App, _user: Viewer) -> PlainTextResponse:
    """Return the queue's and this process's metrics in the text format of Prometheus."""
    return PlainTextResponse(app.metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")


def _summary(view: JobView) -> models.Summary:
    standing: dict[str, Any] = {name: getattr(view, name) for name in ("attempts", "started_s", "reason", "recipe", "seed")}
    score = models.Score(**vars(view.score)) if view.score else None
    array = models.Array(**_array(view.array)) if view.array else None
    return models.Summary(**vars(view.job), **standing, place=view.position, score=score, array=array)


def _array(view: ArrayView) -> dict[str, Any]:
    array, best = view.array, None
    if view.best:
        job, score = view.best
        best = models.BestJob(id=job.id, name=job.name, seed=seed_of(job.kind, job.config), score=models.Score(**vars(score)))
    whole = {name: getattr(view, name) for name in ("frac", "left_s", "reason")}
    ids = [member.id for member in array.members]
    return {"id": array.id, "name": array.name, "ids": ids, "state": array.state, "counts": array.states, "best": best, **whole}


def _title(picture_name: str) -> str:
    step, _, file = picture_name.removesuffix(".png").partition("-")
    return f"{step}: {file.replace('_', ' ')}"


# --- the pages


@ROUTES.get("/", include_in_schema=False)
@ROUTES.get("/submit", include_in_schema=False)
@ROUTES.get("/jobs/{job_id:int}", include_in_schema=False)
def page(app: App) -> Response:
    """Return the page; it asks the API for everything in it."""
    return html_page(app.pages)


@ROUTES.get("/static/{name}", include_in_schema=False)
def static(app: App, name: str) -> Response:
    """Return a file of the pages, as it was when the service started."""
    return static_file(app.pages, name)
