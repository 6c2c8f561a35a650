"""The search service over HTTP: `create_app(settings, catalogue)`. Who may search is checked before a request's body is read.

Every answer that is not a success is {"error": "one line"}. Browsers and programs use the same API; the page is plain files, served
without a token, that ask for one when the API does.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Body, FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import PlainTextResponse

import zsbir
from services.common.answers import add_error_handlers, error_responses
from services.common.auth import UserSource, is_loopback
from services.common.errors import Busy, NotFound
from services.common.guard import RequestGuard
from services.common.pages import html_page, load_pages, static_file
from services.common.routes import Searcher, cookie_of_port
from services.search.http import models, requests
from services.search.http.access import ACCESS
from services.search.http.admission import Admission, BatchRequest, ImageRequest, SearchRoute, search
from services.search.http.clicks import CLICKS
from services.search.http.drawings import drawn
from services.search.http.metrics import Metrics
from services.search.http.searches import check_photo, search_drawing, search_image, search_many, search_photo, uploaded, wanted_of
from services.search.http.state import ApiSettings, App, AppState
from services.search.serving.batches import Batcher
from services.search.serving.catalogue import Catalogue
from services.search.serving.feedback import Feedback
from services.search.serving.originals import Originals
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.errors import InputError
from zsbir.base.layout import service_dir
from zsbir.data.images import BadImage

PAGES = Path(__file__).parent.parent / "pages"

ERROR_STATUSES: dict[type[Exception], int] = {BadImage: 422}


def create_app(settings: ApiSettings, catalogue: Catalogue, users: UserSource, problem: Callable[[], str] = lambda: "") -> FastAPI:
    """Return the application. InputError for settings that would let everybody in from elsewhere.

    problem: what keeps the newest version of a registered model from being served; empty where nothing does.
    """
    if settings.auth == "off" and not is_loopback(settings.host):
        raise InputError(f"without tokens the service listens on a loopback address only, not on {settings.host!r}; use tokens")
    batcher, admission = Batcher(), Admission()
    metrics = Metrics(catalogue, batcher, lambda: admission.under_way)
    app = FastAPI(
        title="zsbir search",
        version=zsbir.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    own = service_dir(settings.root)
    originals = Originals(AllowedPaths([settings.root, *settings.places], private=[str(own)]))
    feedback = Feedback(own / "feedback")
    app.state.search = AppState(settings, catalogue, batcher, admission, metrics, load_pages(PAGES), originals, feedback, problem)
    app.state.users = users
    jobs_port = urlsplit(settings.jobs_url).port
    app.state.further_cookies = (cookie_of_port(jobs_port),) if jobs_port else ()
    for router in (ACCESS, ROUTES, CLICKS):
        app.include_router(router)
    app.add_middleware(RequestGuard, hosts=(settings.host, *settings.hosts), on_served=metrics.served)
    add_error_handlers(app, [*ACCESS.routes, *ROUTES.routes, *CLICKS.routes], ERROR_STATUSES)
    return app


ROUTES = APIRouter(route_class=SearchRoute)
Digest = Annotated[str, InPath(pattern="^[0-9a-f]{64}$", description="the digest of an index, as answers name it")]
PhotoId = Annotated[int, InPath(ge=0, le=requests.LARGEST_ID, description="a photo's number in its index")]
Alias = Annotated[str, Query(max_length=64, description="which of the served models; none: the default")]
EXAMPLE = {"strokes": [[[10, 90, 50, 10], [90, 90, 10, 90]]], "canvas": {"width": 100, "height": 100}, "k": 5}
Asked = Annotated[requests.Query, Body(examples=[EXAMPLE])]
Several = Annotated[requests.Batch, Body(examples=[{"queries": [EXAMPLE]}])]
Drawn = Annotated[requests.Drawing, Body(examples=[{"strokes": EXAMPLE["strokes"]}])]

READ = error_responses(401, 403, 422, 503)
READ_ONE = error_responses(401, 403, 404, 422, 503)
SEARCH = error_responses(400, 401, 403, 404, 413, 422, 429, 503)
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "as at the last time: that of the ETag in If-None-Match"}}
IMAGE = error_responses(401, 403, 404, 422, 503, of_json=False)
FOR_EVER = {"Cache-Control": "private, max-age=86400, immutable"}
"""For what a digest names: it never changes."""
FOR_NOW = {"Cache-Control": "private, max-age=60"}
"""For what is read from a folder as it is at the moment."""
BINARY = {"schema": {"type": "string", "format": "binary"}}
UPLOAD = {"requestBody": {"required": True, "content": {"image/*": BINARY}}}


@ROUTES.get("/api/models", response_model=models.Models, responses=error_responses(401, 403, 503) | UNCHANGED)
def served_models(app: App, _user: Searcher, request: Request) -> Response:
    """Return what is served: models, their indexes and what they hold. Pages ask again and again, so an answer has an ETag."""
    now, problem = app.catalogue.now, app.problem()
    if not now:
        raise Busy(f"no index is served at the moment{': ' if problem else ''}{problem}", retry_after_s=5)
    said = models.Models(default=now[0].alias, models=[models.describe(served) for served in now], problem=problem)
    body = said.model_dump_json().encode()
    tag = {"ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}
    if request.headers.get("if-none-match") == tag["ETag"]:
        return Response(status_code=304, headers=tag)
    return Response(body, media_type="application/json", headers=tag)


@ROUTES.get("/api/filters/{digest}", responses=READ_ONE)
def filters(app: App, _user: Searcher, digest: Digest) -> models.Choices:
    """Return by which folders and which columns of metadata the photos of an index can be chosen."""
    return models.Choices.model_validate(asdict(app.catalogue.of_digest(digest).choices))


@ROUTES.post("/api/search", responses=SEARCH)
@search()
async def search_by_drawing(app: App, _user: Searcher, asked: Asked) -> models.Answer:
    """Return the photos nearest to a drawing, which the service draws from its strokes."""
    return await search_drawing(app, asked)


@ROUTES.post("/api/search/batch", responses=SEARCH)
@search(BatchRequest)
async def search_batch(app: App, _user: Searcher, asked: Several) -> models.Answers:
    """Return the answers to several searches, in their order; each that fails is an error in its place."""
    return models.Answers(answers=await search_many(app, asked.queries))


@ROUTES.post("/api/search/image", responses=SEARCH, openapi_extra=UPLOAD)
@search(ImageRequest)
async def search_by_image(app: App, _user: Searcher, request: Request, asked: Annotated[requests.Asked, Query()]) -> models.Answer:
    """Return the photos nearest to an image: the body is its file."""
    served = app.catalogue.find(asked.model)
    data = await request.body()
    return await search_image(app, served, partial(uploaded, data), wanted_of(asked))


@ROUTES.get("/api/neighbours/{digest}/{photo_id}", responses=SEARCH)
@search()
async def neighbours(
    app: App, _user: Searcher, digest: Digest, photo_id: PhotoId, asked: Annotated[requests.Asked, Query()]
) -> models.Answer:
    """Return the photos nearest to a photo of an index, which also says which model is meant."""
    served = app.catalogue.of_digest(digest)
    check_photo(served.engine, photo_id)
    return await search_photo(app, served, photo_id, wanted_of(asked))


@ROUTES.post(
    "/api/drawing",
    response_class=Response,
    responses=error_responses(400, 401, 403, 404, 413, 422, 429, 503, of_json=False) | {200: {"content": {"image/png": BINARY}}},
)
@search()
async def drawing(app: App, _user: Searcher, asked: Drawn) -> Response:
    """Return the drawing that the service makes of strokes: what the network sees, before it is reduced to the encoder's size."""
    served = app.catalogue.find(asked.model)

    def png() -> bytes:
        file = io.BytesIO()
        drawn(asked.strokes, served).save(file, "PNG")
        return file.getvalue()

    return Response(await app.admission.compute(png), media_type="image/png")


@ROUTES.get(
    "/api/thumbnails/{digest}/{photo_id}", response_class=Response, responses=IMAGE | {200: {"content": {"image/jpeg": BINARY}}}
)
def thumbnail(app: App, _user: Searcher, digest: Digest, photo_id: PhotoId) -> Response:
    """Return the thumbnail of a photo."""
    engine = app.catalogue.of_digest(digest).engine
    check_photo(engine, photo_id)
    return Response(engine.files.thumbnail(photo_id), media_type="image/jpeg", headers=FOR_EVER)


@ROUTES.get(
    "/api/originals/{digest}/{photo_id}",
    response_class=Response,
    responses=IMAGE | error_responses(429, of_json=False) | {200: {"content": {"image/jpeg": BINARY}}},
)
@search()
async def original(app: App, _user: Searcher, digest: Digest, photo_id: PhotoId) -> Response:
    """Return a photo itself, encoded again, if it lies where this service may read."""
    served = app.catalogue.of_digest(digest)
    check_photo(served.engine, photo_id)
    data = await app.admission.compute(lambda: app.originals.read(served, photo_id))
    return Response(data, media_type="image/jpeg", headers=FOR_NOW)


@ROUTES.get("/api/examples", responses=READ_ONE)
def examples(app: App, _user: Searcher, model: Alias = "") -> models.Examples:
    """Return sketches to begin with, of the classes of the index's own data set; none for a folder of photos."""
    served = app.catalogue.find(model)
    found = [
        models.Example(id=number, class_name=example.class_name, image=f"/api/examples/{served.digest}/{number}")
        for number, example in enumerate(served.engine.files.examples)
    ]
    return models.Examples(index=served.digest, examples=found)


@ROUTES.get(
    "/api/examples/{digest}/{example_id}", response_class=Response, responses=IMAGE | {200: {"content": {"image/png": BINARY}}}
)
def example(app: App, _user: Searcher, digest: Digest, example_id: PhotoId) -> Response:
    """Return a sketch to begin with."""
    found = app.catalogue.of_digest(digest).engine.files.examples
    if example_id >= len(found):
        raise NotFound(f"the index has no example {example_id}, only {len(found)}")
    return Response(found[example_id].image, media_type="image/png", headers=FOR_EVER)


@ROUTES.get("/healthz", responses=error_responses(503))
async def health() -> models.Health:
    """Answer 200 as long as this process answers."""
    return models.Health()


@ROUTES.get("/readyz", responses={503: {"model": models.Ready, "description": "nothing is served yet"}})
async def ready(app: App, response: Response) -> models.Ready:
    """Answer 200 if searches can be answered, with what is served. Everybody may ask, so it tells no more."""
    served = {each.alias: each.model or each.digest for each in app.catalogue.now}
    if not served:
        response.status_code = 503
        response.headers["Retry-After"] = "5"
    return models.Ready(ready=bool(served), served=served, newest=not app.problem())


@ROUTES.get("/metrics", response_class=PlainTextResponse, responses=error_responses(401, 403, 503, of_json=False))
def metrics(app: App, _user: Searcher) -> PlainTextResponse:
    """Return this process's metrics in the text format of Prometheus."""
    return PlainTextResponse(app.metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")


# --- the page


@ROUTES.get("/", include_in_schema=False)
def page(app: App) -> Response:
    """Return the page; it asks the API for everything in it."""
    return html_page(app.pages)


@ROUTES.get("/static/{name}", include_in_schema=False)
def static(app: App, name: str) -> Response:
    """Return a file of the page, as it was when the service started."""
    return static_file(app.pages, name)
