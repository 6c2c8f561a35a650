"""The answers of the search service as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from services.common.auth import Role
from services.search.serving.catalogue import Served

if TYPE_CHECKING:
    from zsbir.search_run.engine import Engine
    from zsbir.search_run.meaning import Meaning


class Me(BaseModel):
    """The user who asks. auth: whether the service asks for tokens at all. session: whether the request has a session's cookie.

    jobs_url: address of the job queue's page; empty where there is none.
    """

    name: str
    role: Role
    auth: Literal["tokens", "off"]
    session: bool = False
    jobs_url: str = ""


class Opened(BaseModel):
    """A session was opened. lasts_s: for how many seconds."""

    lasts_s: float


class NameCount(BaseModel):
    """A class, a folder or a value of metadata, and how many photos of an index have it."""

    name: str
    photos: int


class Column(BaseModel):
    """A column of metadata. photos: how many have a value. values: of texts, the most frequent 100, by name.

    complete: whether these are all values. low, high: the least and the largest number; null where there is none.
    """

    name: str
    kind: Literal["string", "int", "float", "bool"]
    photos: int
    values: list[NameCount]
    complete: bool
    low: float | None
    high: float | None


class Choices(BaseModel):
    """What photos can be chosen by in `filter`, besides their classes.

    folders: the 500 with the most photos, by name; none where they are the classes again. complete: whether these are all.
    """

    folders: list[NameCount]
    complete: bool
    columns: list[Column]


class IndexName(BaseModel):
    """An index: its address, digest and name."""

    uri: str
    digest: str
    name: str


class NoMatch(BaseModel):
    """The threshold of the best score below which an index most likely has nothing like the query, and how often that errs.

    threshold: for a search of all photos. false_alarm: share of drawings for which it is said though the thing is there; miss: not
    said though it is not there; each with its 95 % interval over classes.
    """

    threshold: float
    false_alarm: float
    false_alarm_interval: tuple[float, float]
    miss: float
    miss_interval: tuple[float, float]
    measured_on: str


def no_match_of(meaning: Meaning) -> NoMatch | None:
    """Return what is known of "nothing like that here"; None where that was not calibrated."""
    threshold, calibration = meaning.threshold(), meaning.calibration
    if threshold is None or calibration is None or calibration.no_match is None:
        return None
    alarm, miss = calibration.no_match.false_alarm, calibration.no_match.miss
    return NoMatch(
        threshold=threshold,
        false_alarm=alarm.mean,
        false_alarm_interval=(alarm.low, alarm.high),
        miss=miss.mean,
        miss_interval=(miss.low, miss.high),
        measured_on=calibration.measured_on,
    )


class ServedModel(BaseModel):
    """A model that is served. model: address of its version; empty for an index that belongs to none. note: what to know of it.

    options: the switches of a search and their defaults; none where only plain searches are to be had. options_text: what these
    defaults stand for. why_plain: why there are no better ones, where the service was left to choose; else empty.
    calibrated: whether hits have a probability, by default.
    """

    alias: str
    model: str
    note: str
    index: IndexName
    run: str
    photos: int
    dimensions: int
    classes: list[NameCount]
    columns: list[str]
    options: dict[str, bool]
    options_text: str
    why_plain: str
    no_match: NoMatch | None
    calibrated: bool


def describe(served: Served) -> ServedModel:
    """Return what is said of a model that is served."""
    engine = served.engine
    manifest = engine.index.manifest
    return ServedModel(
        alias=served.alias,
        model=served.model,
        note=served.note,
        index=IndexName(uri=engine.index.uri, digest=served.digest, name=manifest.name),
        run=made_by.uri if (made_by := manifest.reference("run")) else "",
        photos=engine.photos,
        dimensions=engine.encoder.embedding_dim,
        classes=[NameCount(**asdict(each)) for each in served.classes],
        columns=list(engine.files.kinds),
        options=_switches(engine),
        options_text=engine.options.text(),
        why_plain=engine.why_plain,
        no_match=no_match_of(engine.meaning()),
        calibrated=engine.meaning().has_probabilities,
    )


def _switches(engine: Engine) -> dict[str, bool]:
    if not engine.is_prepared:
        return {}
    return {"improve": True, **({"expand": True} if engine.options.expand else {})}


class Models(BaseModel):
    """All models that are served, by alias; default: the one that is meant where a request names none.

    problem: what keeps the newest version from being served; empty where nothing does.
    """

    default: str
    models: list[ServedModel]
    problem: str


class Hit(BaseModel):
    """A photo that was found. id: its number in the index. score: cosine similarity. probability: that it is of what was drawn.

    thumbnail, original: addresses on this service; null where the original cannot be shown.
    """

    id: int
    rank: int
    score: float
    probability: float | None
    class_name: str
    path: str
    thumbnail: str
    original: str | None


class Answer(BaseModel):
    """The photos that were found, and by which model in which index.

    options: the search options that ranked them, in words; "off" for a plain search. ranking: "exact", or "graph, recall 0.98"
    where photos may be missing. no_match: whether nothing there is like the query.
    """

    model: str
    index: str
    alias: str
    options: str
    ranking: str
    took_ms: float
    no_match: bool | None
    hits: list[Hit]


class Failed(BaseModel):
    """A query of a batch that could not be answered."""

    error: str


class Answers(BaseModel):
    """The answers to a batch, in its order."""

    answers: list[Answer | Failed]


class Example(BaseModel):
    """A sketch to begin with. image: its address on this service."""

    id: int
    class_name: str
    image: str


class Examples(BaseModel):
    """Sketches to begin with. index: the digest of the index that they are kept in, which numbers them."""

    index: str
    examples: list[Example]


class Health(BaseModel):
    """The answer of a search service that runs, whether or not it has an index to search."""

    ok: Literal[True] = True


class Deleted(BaseModel):
    """The answer to a request to delete stored verdicts on photos: how many there were."""

    deleted: int


class Ready(BaseModel):
    """Whether searches can be answered, and whether that is by the newest version; why it is not, `/api/models` says."""

    ready: bool
    served: dict[str, str]
    newest: bool
