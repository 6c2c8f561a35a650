"""The queue over HTTP: `create_app(settings)`. Who may do what is checked before a request's body is read.

Every answer that is no success is {"error": "one line"}. The same things can be done with or without a browser; the pages are
plain files, served without a token, that ask for one when the API does.
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import sqlalchemy.exc
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import zsbir
from services.jobs import desk, schemas
from services.jobs.desk import Cancelled, Conflict, Curve, Desk, Explained, Filter, Forbidden, NotFound, Person, Summary
from services.jobs.limits import Limits
from services.jobs.metrics import Metrics, Watch
from services.jobs.places import Places
from services.jobs.states import Role, State
from services.jobs.store import KeyTaken, open_store
from services.jobs.tokens import Tokens
from zsbir.base.config import Config, unknown_name
from zsbir.base.errors import InputError, RunError

MAX_BODY = 1 << 20
MAX_DEPTH = 30
MAX_NUMBER = 2**53
"""Numbers up to here are the same to every reader of JSON, and to both databases."""

SAFE = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
PAGES = Path(__file__).parent / "pages"
PAGE_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png"}
STATUS: Mapping[type[Exception], int] = {
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    KeyTaken: 409,
    InputError: 422,
    RunError: 503,
    sqlalchemy.exc.TimeoutError: 503,  # more readers at once than the store has connections
}


class ApiSettings(Config):
    """Where the service stands, and whom it lets in."""

    store: str = Field(description="the job store, sqlite:///path or postgresql://user@host/name")
    root: str = Field(description="the storage root")
    places: tuple[str, ...] = Field((), description="what jobs may read besides the storage root")
    auth: Literal["tokens", "off"] = Field("tokens", description="off: everybody is operator, on a loopback host only")
    host: str = Field("127.0.0.1", description="the address that it listens on")
    hosts: tuple[str, ...] = Field((), description="names that browsers know it by, besides that one and this machine's own")
    mlflow_url: str = Field("", description="where people see MLflow's pages")


class Error(BaseModel):
    """What was wrong, with which value, and the way out."""

    error: str


class Me(BaseModel):
    """Who asks."""

    name: str
    role: Role
    auth: Literal["tokens", "off"]


class Dispatcher(BaseModel):
    """Who dispatches. seen_s_ago: since its beats moved before the eyes of this process; null when they have not yet."""

    holder: str
    epoch: int
    alive: bool
    seen_s_ago: float | None


class Queue(BaseModel):
    """The queue as a whole."""

    limits: Limits
    usage: desk.Usage
    counts: dict[State, int]
    line: list[desk.InLine]
    dispatcher: Dispatcher


class AuditEvent(desk.Event):
    """Who did what, to which job if to one."""

    id: int
    job_id: int | None


class Audit(BaseModel):
    """The newest events first."""

    events: list[AuditEvent]


class Health(BaseModel):
    """The store answers."""

    ok: Literal[True] = True


@dataclass(frozen=True)
class Service:
    """What the routes work with."""

    settings: ApiSettings
    desk: Desk
    tokens: Tokens
    watch: Watch
    metrics: Metrics
    pages: Mapping[str, bytes]


def create_app(settings: ApiSettings) -> FastAPI:
    """The service. InputError for settings that let everybody in from elsewhere, RunError when the store is away."""
    if settings.auth == "off" and not _is_loopback(settings.host):
        raise InputError(f"without tokens the service listens on a loopback address only, not on {settings.host!r}; use tokens")
    store = open_store(settings.store)
    watch = Watch(store)
    front = Desk(store, settings.root, Places([settings.root, *settings.places]), settings.mlflow_url)
    files = [path for path in PAGES.glob("*") if path.suffix in PAGE_TYPES]
    pages = {path.name: path.read_bytes() for path in files}
    service = Service(settings, front, Tokens(store), watch, Metrics(store, watch), pages)
    title, version = "zsbir jobs", zsbir.__version__
    app = FastAPI(title=title, version=version, docs_url=None, redoc_url=None, redirect_slashes=False, responses=_errors(421))
    app.state.service = service
    app.include_router(ROUTES)
    app.add_middleware(Gate, service=service)
    for error, status in STATUS.items():
        app.add_exception_handler(error, _answers(status))
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _broken)
    described = app.openapi
    app.openapi = lambda: _with_bodies(described())  # type: ignore[method-assign]
    return app


# --- the door


class Gate:
    """Everything passes here: names that are not this service's, and other sites' pages, come no further; all is counted."""

    def __init__(self, app: ASGIApp, service: Service):
        self._app, self._metrics = app, service.metrics
        names = ("localhost", "127.0.0.1", "::1", service.settings.host, *service.settings.hosts)
        self._names = frozenset(name.lower().strip("[]") for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began_s, status = time.perf_counter(), 500

        async def safe_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await (self._refusal(scope) or self._app)(scope, receive, safe_send)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.served(route, scope["method"], status, time.perf_counter() - began_s)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if _hostname(host) not in self._names:
            return _error(421, f"this service is not known as {host!r}; its operator can add that name to its hosts")
        changes = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if changes and origin is not None and origin.lower().partition("://")[2] != host:
            return _error(403, f"a page of {origin!r} cannot do that here; use this service's own page")
        return None


def _hostname(host: str) -> str:
    """Without its port; empty for what is no host."""
    found = re.fullmatch(r"\[([0-9a-f:.]+)\](?::\d+)?|([a-z0-9._-]+)(?::\d+)?", host)
    return (found[1] or found[2]) if found else ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


There = Annotated[Service, Depends(_service)]
BEARER = HTTPBearer(auto_error=False, description="python -m services.jobs tokens makes one")


def _at_least(role: Role) -> Any:
    """Who asks: 401 for nobody known, the same words whatever is wrong with a token; 403 for a lower role."""

    def person(there: There, said: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> Person:
        if there.settings.auth == "off":
            return Person("local", "operator")
        token = there.tokens.bearer(said.credentials) if said else None
        if token is None:
            headers = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(401, "this needs a valid token; ask the service's operator for one", headers)
        found = Person(token.name, token.role)
        found.must_be(role)
        return found

    return Depends(person)


Viewer = Annotated[Person, _at_least("viewer")]
Submitter = Annotated[Person, _at_least("submitter")]
Operator = Annotated[Person, _at_least("operator")]


# --- bodies

Model = TypeVar("Model", bound=BaseModel)
DESCRIBED: list[type[BaseModel]] = [desk.Submission, desk.Selection, Limits, Error]


def _body(model: type[Model]) -> Any:
    """A request's body as a model. 400 for what is no JSON or has unknown fields, 413 above MAX_BODY, 422 for wrong values."""

    async def read(request: Request) -> Model:
        value = await _json(request)
        complaint = _complaint(value)
        if complaint:
            raise InputError(f"body: {complaint}")
        unknown = next((name for name in value if name not in model.model_fields), None) if isinstance(value, dict) else None
        if unknown is not None:
            raise HTTPException(400, unknown_name("field", unknown, model.model_fields))
        try:
            return model.model_validate(value, strict=True)
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_url=False, include_context=False)) from None

    return Depends(read)


def _takes(model: type[BaseModel], example: Mapping[str, Any]) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def _with_bodies(described: dict[str, Any]) -> dict[str, Any]:
    """Bodies are read here, not by FastAPI, and errors are always JSON: so they are described here, too."""
    _, found = models_json_schema([(model, "validation") for model in DESCRIBED], ref_template="#/components/schemas/{model}")
    described["components"]["schemas"].update(found["$defs"])
    return described


async def _json(request: Request) -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(400, "the body must be JSON, with the header Content-Type: application/json")
    told, data = request.headers.get("content-length", ""), bytearray()
    too_large = HTTPException(413, f"the body is larger than {MAX_BODY} bytes")
    if told.isdecimal() and int(told) > MAX_BODY:
        raise too_large
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_BODY:
                raise too_large
    except ClientDisconnect:
        raise HTTPException(400, "the connection was closed before the body was whole") from None
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_number, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is no JSON: {error}") from None


def _number(text: str) -> float:
    """JSON tells no 1.0 from 1."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= MAX_NUMBER else value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _complaint(value: Any, depth: int = 0) -> str:
    """What no database or reader of JSON can be trusted with; empty where there is nothing of that kind."""
    if depth > MAX_DEPTH:
        return f"deeper than {MAX_DEPTH} levels"
    if isinstance(value, str):
        return "" if _is_text(value) else f"{value[:40]!a} has a NUL character or half a surrogate pair"
    if isinstance(value, (int, float)) and abs(value) > MAX_NUMBER:
        return f"a number is beyond {MAX_NUMBER}"
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, (_complaint(part, depth + 1) for part in parts)), "")


def _is_text(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)


# --- errors


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return JSONResponse({"error": line if len(line) <= 1000 else line[:1000] + " ..."}, status, dict(headers or {}))


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def _answers(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_request: Request, error: Exception) -> Response:
        return _error(status, str(error))

    return answer


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    headers, text = dict(error.headers or {}), str(error.detail)
    if error.status_code == 404:
        text = f"there is nothing at {request.url.path!r}; see /openapi.json"
    if error.status_code == 405:
        routes = [route for route in ROUTES.routes if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE]
        allowed = sorted({method for route in routes for method in route.methods or ()})
        headers["Allow"] = ", ".join(allowed) or headers.get("Allow", "")
        text = f"{request.method} cannot be done here, only {headers['Allow']}"
    return _error(error.status_code, text, headers)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = list(error.errors())
    lines = [
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}, got {_short(fault.get('input'))}" for fault in faults[:3]
    ]
    unknown = any(fault["type"] == "extra_forbidden" for fault in faults)
    return _error(400 if unknown else 422, "; ".join(lines))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."


async def _broken(_request: Request, _failure: Exception) -> Response:
    return _error(500, "the service failed; its log says why")


# --- the API

ROUTES = APIRouter()
JobId = Annotated[int, InPath(ge=1, le=desk.LARGEST_ID, description="a job's number")]
Number = Annotated[int | None, Query(ge=1, le=desk.LARGEST_ID)]
Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=-(2**40), le=2**40, description="bytes; below 0: from the end")]
Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=200, pattern=r"^[!-~]([ -~]*[!-~])?$", description="the same key: the same job"),
]
READ = _errors(401, 403, 422, 503)
READ_ONE = _errors(401, 403, 404, 422, 503)
CHANGE = _errors(400, 401, 403, 413, 422, 503)


@ROUTES.get("/api/me", responses=_errors(401, 403, 503))
def me(there: There, person: Viewer) -> Me:
    """Who asks, as the service knows him."""
    return Me(name=person.name, role=person.role, auth=there.settings.auth)


@ROUTES.get("/api/kinds", responses=_errors(401, 403, 503))
def kinds(_person: Viewer) -> dict[str, Any]:
    """What can be submitted: the JSON schema of every kind's configuration, and what each recipe stands for."""
    return schemas.described()


@ROUTES.get("/api/jobs", responses=READ | _errors(400))
def jobs(there: There, _person: Viewer, which: Annotated[Filter, Query()]) -> desk.Page:
    """Jobs, the newest first."""
    return there.desk.jobs(which)


@ROUTES.post(
    "/api/jobs",
    status_code=201,
    responses=CHANGE | _errors(409) | {200: {"model": Summary, "description": "the key was used for this job before"}},
    openapi_extra=_takes(desk.Submission, {"kind": "ingest", "config": {"layout": "toy"}}),
)
def submit(
    there: There,
    person: Submitter,
    asked: Annotated[desk.Submission, _body(desk.Submission)],
    response: Response,
    key: Key = None,
) -> Summary:
    """A new job, or the one that the key was used for before."""
    job, new = there.desk.submit(person, asked, key)
    response.status_code = 201 if new else 200
    return job


@ROUTES.get("/api/jobs/{job_id}", responses=READ_ONE)
def job(there: There, _person: Viewer, job_id: JobId) -> Explained:
    """All that is known of a job."""
    return there.desk.explain(job_id)


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
def log(there: There, _person: Viewer, job_id: JobId, offset: Offset = 0, attempt: Number = None) -> PlainTextResponse:
    """A part of an attempt's log, the newest one's by default."""
    part = there.desk.log(job_id, offset, attempt)
    ends = "true" if part.end else "false"
    return PlainTextResponse(
        part.text, headers={"X-Next-Offset": str(part.next), "X-Log-End": ends, "X-Attempt": str(part.attempt)}
    )


@ROUTES.get("/api/jobs/{job_id}/curve", responses=READ_ONE)
def curve(there: There, _person: Viewer, job_id: JobId) -> Curve:
    """Metrics by optimiser step."""
    return there.desk.curve(job_id)


class Png(Response):
    """A picture."""

    media_type = "image/png"


PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


@ROUTES.get("/api/jobs/{job_id}/pictures/{name}", response_class=Png, responses=READ_ONE | {200: {"content": PNG}})
def picture(there: There, _person: Viewer, job_id: JobId, name: str) -> Png:
    """One of the pictures that the job lists."""
    return Png(there.desk.picture(job_id, name))


@ROUTES.post("/api/jobs/{job_id}/cancel", responses=READ_ONE)
def cancel(there: There, person: Submitter, job_id: JobId) -> Summary:
    """Cancel it; a running one saves its work first. One that has ended stays as it is."""
    return there.desk.cancel(person, job_id)


@ROUTES.post("/api/jobs/{job_id}/retry", status_code=201, responses=READ_ONE | _errors(409))
def retry(there: There, person: Submitter, job_id: JobId) -> Summary:
    """A new job with the same configuration that goes on with the work of one that did not succeed."""
    return there.desk.retry(person, job_id)


@ROUTES.post("/api/cancel", responses=CHANGE, openapi_extra=_takes(desk.Selection, {"project": "default", "states": ["queued"]}))
def cancel_many(there: There, person: Submitter, what: Annotated[desk.Selection, _body(desk.Selection)]) -> Cancelled:
    """Cancel many."""
    return there.desk.cancel_many(person, what)


@ROUTES.get("/api/queue", responses=_errors(401, 403, 503))
def queue(there: There, _person: Viewer) -> Queue:
    """Limits, what is in use, who waits and why, and who dispatches."""
    limits, counts = there.desk.store.limits(), there.desk.store.counts()
    seen = Dispatcher(**vars(there.watch.look()))
    line = there.desk.line(limits)
    return Queue.model_validate({"limits": limits, "usage": there.desk.usage(), "counts": counts, "line": line, "dispatcher": seen})


@ROUTES.put("/api/limits", responses=CHANGE, openapi_extra=_takes(Limits, {"running": 2, "projects": {"vision": {"gpus": 1}}}))
def set_limits(there: There, person: Operator, limits: Annotated[Limits, _body(Limits)]) -> Limits:
    """From now on; what runs already goes on."""
    return there.desk.set_limits(person, limits)


@ROUTES.get("/api/audit", responses=READ)
def audit(there: There, _person: Operator, before: Number = None, limit: Limit = 100) -> Audit:
    """Who did what."""
    return Audit(events=[AuditEvent(**event) for event in there.desk.store.audit(before=before, limit=limit)])


@ROUTES.get("/healthz", responses=_errors(503))
def health(there: There) -> Health:
    """Whether the store answers."""
    there.desk.store.seen_lease()
    return Health()


@ROUTES.get("/metrics", response_class=PlainTextResponse, responses=_errors(401, 403, 503))
def metrics(there: There, _person: Viewer) -> PlainTextResponse:
    """For Prometheus."""
    return PlainTextResponse(there.metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")


# --- the pages


@ROUTES.get("/", include_in_schema=False)
@ROUTES.get("/submit", include_in_schema=False)
@ROUTES.get("/jobs/{job_id:int}", include_in_schema=False)
def page(there: There) -> Response:
    """The page's frame; it asks the API for everything in it."""
    html = there.pages.get("index.html")
    return (
        Response(html, media_type="text/html") if html else PlainTextResponse("This service was installed without its pages.", 503)
    )


@ROUTES.get("/static/{name}", include_in_schema=False)
def static(there: There, name: str) -> Response:
    """A file of the pages; only those that were there when the service began."""
    if name not in there.pages:
        raise HTTPException(404)
    return Response(there.pages[name], media_type=PAGE_TYPES[Path(name).suffix])
