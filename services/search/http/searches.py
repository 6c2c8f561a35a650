"""Answering one search: a query prepared, computed with others, and its hits as JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

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
from zsbir.retrieval.options import SearchOptions
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
    options: Mapping[str, Any] | None = None


def wanted_of(asked: requests.Asked) -> Wanted:
    """Return what the parameters of an address ask. InputError, or HTTPException 400, where a part is no JSON object."""
    return Wanted(asked.k, asked.min_score, json_object(asked.filter, "filter"), json_object(asked.options, "options"))


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
    hits = await _computed(app, _query(served, wanted, among, pixels=pixels))
    return answer_of(app, served, hits, began_s, no_match=served.engine.meaning.nothing_like(hits, among))


async def search_photo(app: AppState, served: Served, row: int, wanted: Wanted) -> models.Answer:
    """Answer which photos are near to a photo of the index, itself left out."""
    began_s = time.perf_counter()
    wider = Wanted(wanted.k + 1, wanted.min_score, wanted.filter, wanted.options)
    query = _query(served, wider, await _among(app, served, wanted), row=row)
    found = [hit for hit in await _computed(app, query) if hit.item_id != row][: wanted.k]
    hits = [replace(hit, probability=None) for hit in found]  # what was calibrated are drawings
    return answer_of(app, served, hits, began_s)


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
    return Query(served, wanted.k, among=among, min_score=wanted.min_score, until_s=time.monotonic() + SEARCH_S, **what)


async def _computed(app: AppState, query: Query) -> list[Hit]:
    return await asyncio.wrap_future(app.batcher.submit(query))


async def _among(app: AppState, served: Served, wanted: Wanted) -> np.ndarray | None:
    """Return which photos meet the filter, in a thread: a large gallery has many paths. Raises InputError for one that is none."""
    if wanted.options:
        raise InputError(unknown_name("option", next(iter(wanted.options)), SearchOptions.model_fields))
    if not wanted.filter:
        return None
    chosen = Filter.from_json(wanted.filter)
    return await app.admission.compute(lambda: served.engine.among(chosen))


def answer_of(app: AppState, served: Served, hits: Sequence[Hit], began_s: float, *, no_match: bool | None = None) -> models.Answer:
    """Return hits as JSON. began_s: when the search began, by `time.perf_counter`. no_match: None where that is not known."""
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
        model=served.model, index=served.digest, alias=served.alias, took_ms=took_ms, no_match=no_match, hits=found
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
