"""What may be asked of the search service."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from services.common.limits import parse_json
from zsbir.base import limits
from zsbir.base.errors import InputError

MOST_HITS = 200
"""Photos of one answer."""

MOST_QUERIES = 64
"""Queries of one batch."""

LARGEST_SIDE = 100_000
"""Pixels of a canvas's side."""

LARGEST_ID = 2**53

Alias = Annotated[str, Field(max_length=64, description="which of the served models; none: the default")]
Count = Annotated[int, Field(ge=1, le=MOST_HITS, description="number of photos to find")]
MinScore = Annotated[float | None, Field(ge=-1, le=1, description="lowest cosine similarity of a photo that is found")]

STROKES_SCHEMA = {
    "type": "array",
    "maxItems": limits.DRAWING_STROKES,
    "items": {
        "type": "array",
        "minItems": 2,
        "maxItems": 3,
        "items": {
            "type": "array",
            "items": {"type": "number", "minimum": -limits.DRAWING_COORDINATE, "maximum": limits.DRAWING_COORDINATE},
        },
    },
    "description": "one list for each stroke: the x of all its points, then the y; a third list, of times, is not looked at",
}
Strokes = Annotated[list[Any], Field(json_schema_extra=STROKES_SCHEMA)]
"""Checked by `zsbir.data.strokes`, which knows the bounds, not point by point by pydantic."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Canvas(_Body):
    """The sides of the canvas that the strokes were drawn on, in their unit."""

    width: float = Field(gt=0, le=LARGEST_SIDE)
    height: float = Field(gt=0, le=LARGEST_SIDE)


class Drawing(_Body):
    """A query: a drawing as strokes, the canvas that it was drawn on, and the model to search with; the default for none."""

    strokes: Strokes
    canvas: Canvas | None = None
    model: Alias = ""


class Options(_Body):
    """Switches of one search. What they switch on was chosen when the service opened the index; `/api/models` says what that is."""

    improve: bool = Field(True, description="photos prepared for search; false: plain, by the embeddings as they are")
    expand: bool = Field(True, description="search again with the first photos found; nothing where `improve` is false")


class Query(Drawing):
    """The body of a search by one drawing: the drawing, how many photos to return, and which."""

    k: Count = 24
    min_score: MinScore = None
    filter: dict[str, Any] = Field({}, description="which photos to search: classes, folder, columns")
    options: Options = Options()


class Batch(_Body):
    """The body of a request with several searches by drawings, which are answered in their order."""

    queries: list[Query] = Field(min_length=1, max_length=MOST_QUERIES)


class Asked(BaseModel):
    """What is asked of a search by an image or a photo, as parameters of the address. filter, options: JSON objects."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    k: Count = 24
    model: Alias = ""
    min_score: MinScore = None
    filter: str = Field("", max_length=20_000, description="which photos to search, as JSON: classes, folder, columns")
    options: str = Field("", max_length=2_000, description="options of the search, as JSON")


class LoginCode(_Body):
    """A code that lets one browser in."""

    code: str = Field(min_length=1, max_length=200)


class Click(_Body):
    """Whether a photo shows what was drawn. example: the number, in the same index, of the sketch that was the query instead."""

    strokes: Annotated[list[Any] | None, Field(json_schema_extra=STROKES_SCHEMA)] = None
    example: int | None = Field(None, ge=0, le=LARGEST_ID)
    index: str = Field(pattern="^[0-9a-f]{64}$", description="the digest of the index that the photo is in")
    id: int = Field(ge=0, le=LARGEST_ID, description="the photo's number in that index")
    right: bool
    consent: bool = Field(description="the person agrees that this is kept")


def json_object(text: str, name: str) -> dict[str, Any]:
    """Return a query parameter that is a JSON object; none for an empty one. HTTPException 400 or 422 for anything else."""
    if not text:
        return {}
    value = parse_json(text.encode("utf-8", "surrogatepass"), name)
    if not isinstance(value, dict):
        raise InputError(f"{name}: expected a JSON object, got {text[:100]!r}")
    return value
