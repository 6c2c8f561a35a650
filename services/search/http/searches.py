"""Answering one search: a query prepared, computed with others, and its hits as JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import ValidationError

from services.common.errors import NotFound
from services.search.http import models, requests
from services.search.http.drawings import drawn
from services.search.http.requests import json_object
from services.search.http.state import AppState
from services.search.serving.batches import Query
from services.search.serving.catalogue import Served
from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError, RunError
from zsbir.data.images import BadImage, decode, is_blank
from zsbir.data.items import Filter
from zsbir.search_run.hits import Hit

if TYPE_CHECKING:
    from zsbir.search_run.engine import Engine

MAX_PIXELS = 16_000_000
"""Pixels of an uploaded image: that of a phone's camera."""

SEARCH_S = 10.0
"""Seconds after which a query that still waits is not computed any more."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of a search, besides the query itself."""

    k: int
    min_score: float | None = None
    filter: Mapping[str, Any] | None = None
    options: requests.Options = field(default_factory=requests.Options)


def wanted_of(asked: requests.Asked) -> Wanted:
    """Return what the parameters of an address ask. InputError, or HTTPException 400, where a part is no JSON object."""
    return Wanted(asked.k, asked.min_score, json_object(asked.filter, "filter"), options_of(asked.options))


def options_of(text: str) -> requests.Options:
    """Return the switches of a search, a JSON object. InputError, or HTTPException 400, for anything else."""
    value = json_object(text, "options")
    try:
        return requests.Options.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))[:100]
        if first["type"] == "extra_forbidden":
            raise InputError(unknown_name("option", name, requests.Options.model_fields)) from None
        raise InputError(f"options: {name}: expected true or false") from None


async def search_image(app: AppState, served: Served, draw: Callable[[], Image.Image], wanted: Wanted) -> models.Answer:
    """Answer a search by an image. draw: makes the image, in a thread. Raises InputError for an empty one, Busy under load."""
    began_s = time.perf_counter()
    among = await _among(app, served, wanted)

    def prepare() -> np.ndarray:
        image = draw()
        if is_blank(image):
            raise InputError("the drawing is empty: all of it has one colour")
        return served.engine.pixels(image)

    pixels = await app.admission.compute(prepare)
    return await _answered(app, _query(served, wanted, among, pixels=pixels), began_s)


async def search_photo(app: AppState, served: Served, row: int, wanted: Wanted) -> models.Answer:
    """Answer which photos are near to a photo of the index, itself left out."""
    began_s = time.perf_counter()
    return await _answered(app, _query(served, wanted, await _among(app, served, wanted), row=row), began_s)


def check_photo(engine: Engine, row: int) -> None:
    """Raise NotFound for a photo that an index does not have, or that is deleted."""
    try:
        engine.vector(row)
    except InputError as error:
        raise NotFound(str(error)) from None


def uploaded(data: bytes) -> Image.Image:
    """Decode an uploaded image. Raises BadImage for bytes that are none, or too large by their header."""
    return decode(data, max_pixels=MAX_PIXELS)


def _query(served: Served, wanted: Wanted, among: np.ndarray | None, **what: Any) -> Query:
    options = served.engine.switched(improve=wanted.options.improve, expand=wanted.options.expand)
    until_s = time.monotonic() + SEARCH_S
    return Query(served, wanted.k, among=among, min_score=wanted.min_score, options=options, until_s=until_s, **what)


async def _answered(app: AppState, query: Query, began_s: float) -> models.Answer:
    hits = await asyncio.wrap_future(app.batcher.submit(query))
    return answer_of(app, query, hits, began_s)


async def _among(app: AppState, served: Served, wanted: Wanted) -> np.ndarray | None:
    """Return which photos meet the filter, in a thread: a large gallery has many paths. Raises InputError for one that is none."""
    if not wanted.filter:
        return None
    chosen = Filter.from_json(wanted.filter)
    return await app.admission.compute(lambda: served.engine.among(chosen))


def answer_of(app: AppState, query: Query, hits: Sequence[Hit], began_s: float) -> models.Answer:
    """Return the hits of a query as JSON. began_s: when the search began, by `time.perf_counter`."""
    served, meaning = query.served, query.served.engine.meaning(query.options)
    drawn = query.pixels is not None
    found = [
        models.Hit(
            id=hit.item_id,
            rank=rank,
            score=hit.score,
            probability=hit.probability,
            class_name=hit.class_name,
            path=hit.path,
            thumbnail=f"/api/thumbnails/{served.digest}/{hit.item_id}",
            original=f"/api/originals/{served.digest}/{hit.item_id}" if app.originals.may_read(served, hit.item_id) else None,
        )
        for rank, hit in enumerate(hits, start=1)
    ]
    took_ms = round(1000 * (time.perf_counter() - began_s), 2)
    return models.Answer(
        model=served.model,
        index=served.digest,
        alias=served.alias,
        options=(query.options or served.engine.options).text(),
        ranking=served.engine.ranking(query.k, among=query.among, options=query.options),
        took_ms=took_ms,
        no_match=meaning.nothing_like(hits, query.among) if drawn else None,
        hits=found,
    )


async def search_drawing(app: AppState, asked: requests.Query) -> models.Answer:
    """Answer a search by a drawing, as a request describes it."""
    served = app.catalogue.find(asked.model)
    wanted = Wanted(asked.k, asked.min_score, asked.filter, asked.options)
    return await search_image(app, served, partial(drawn, asked.strokes, served), wanted)


async def search_many(app: AppState, asked: Sequence[requests.Query]) -> list[models.Answer | models.Failed]:
    """Answer several searches, each by itself: one that fails does not keep the others from being answered."""

    async def one(query: requests.Query) -> models.Answer | models.Failed:
        try:
            return await search_drawing(app, query)
        except (InputError, RunError, BadImage) as error:
            return models.Failed(error=str(error)[:1000])

    return list(await asyncio.gather(*map(one, asked)))
