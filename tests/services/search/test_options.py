"""Search options in the service: one opened index answers plain and prepared searches, as reports do, and says which they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from servers.search_service import DRAWING, asked, client, make_app, make_index

from services.search.serving.catalogue import Catalogue, Served
from services.search.settings import SearchSettings
from services.search.start import open_app
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.evaluation.statistics import STATISTICS_FILE
from zsbir.retrieval import exact
from zsbir.retrieval.options import PLAIN, SearchOptions
from zsbir.retrieval.prepared import PreparedGallery, prepare_gallery
from zsbir.retrieval.whitening import load_statistics
from zsbir.search_run.engine import Engine

OPTIONS = SearchOptions(flip=False, smooth=3, expand=2, caution=0)
"""In a gallery of fifteen photos, without kin by any rule, each of these changes what is found."""

SWITCHES = {
    "as it is": ({}, OPTIONS),
    "no expansion": ({"expand": False}, OPTIONS.replace(expand=0)),
    "plain": ({"improve": False}, PLAIN),
}


@pytest.fixture(scope="module")
def with_statistics(index_root: Path) -> Artifact:
    """An index whose encoder has statistics."""
    return make_index(index_root / "improved", 2, statistics=True)


@pytest.fixture(scope="module")
def engine(with_statistics: Artifact) -> Engine:
    return Engine(with_statistics.uri, wanted=OPTIONS)


@pytest.fixture
def asking(index_root: Path, engine: Engine, opened: Served) -> Iterator[TestClient]:
    """A service of that index, and beside it of one without statistics."""
    old = Served("challenger", "models:/zsbir/2", Engine(opened.engine.index.uri, wanted="auto"))
    app = make_app(index_root, Catalogue([Served("champion", "models:/zsbir/1", engine), old]))
    with asked(app) as asking:
        yield asking


def prepared(index: Artifact, options: SearchOptions) -> PreparedGallery:
    """The photos as a report ranks them."""
    return prepare_gallery(np.load(index.file("vectors.npy")), options, load_statistics(index.file(STATISTICS_FILE), 8))


def found(hits: list[dict]) -> list[tuple[int, np.float32]]:
    return [(hit["id"], np.float32(hit["score"])) for hit in hits]


@pytest.mark.parametrize("name", SWITCHES)
def test_a_search_with_switches_equals_a_reports_to_the_bit_and_says_its_options(asking, engine, with_statistics, name):
    switches, options = SWITCHES[name]
    answer = asking.post("/api/search", json={**DRAWING, "k": 6, "options": switches}).json()
    seen = Image.open(io.BytesIO(asking.post("/api/drawing", json=DRAWING).content))
    gallery = prepared(with_statistics, options)
    ids, scores = exact.search(gallery.queries(engine.embed([seen])), gallery.vectors, 6)
    assert found(answer["hits"]) == list(zip(ids[0].tolist(), scores[0], strict=True))
    assert answer["options"] == options.text()


def test_each_switch_changes_what_is_found(asking):
    answers = [
        asking.post("/api/search", json={**DRAWING, "options": switches}).json()["hits"] for switches, _ in SWITCHES.values()
    ]
    assert answers[0] != answers[1] != answers[2] != answers[0]


def test_searches_with_different_switches_in_one_batch_are_answered_as_alone(asking):
    asked = [{**DRAWING, "k": 5, "options": switches} for switches, _ in SWITCHES.values()] * 2
    alone = [asking.post("/api/search", json=each).json() for each in asked[:3]]
    together = asking.post("/api/search/batch", json={"queries": asked}).json()["answers"]
    for one, several in zip(alone * 2, together, strict=True):
        assert (one["options"], [hit["id"] for hit in one["hits"]]) == (several["options"], [hit["id"] for hit in several["hits"]])
        np.testing.assert_allclose([hit["score"] for hit in one["hits"]], [hit["score"] for hit in several["hits"]], atol=1e-6)


@pytest.mark.parametrize("name", ["as it is", "plain"])
def test_neighbours_of_a_photo_are_those_by_its_prepared_vector(asking, with_statistics, name):
    switches, options = SWITCHES[name]
    gallery = prepared(with_statistics, options)
    ids, scores = exact.search(gallery.vectors[4:5], gallery.vectors, 6)
    expected = [pair for pair in zip(ids[0].tolist(), scores[0], strict=True) if pair[0] != 4]
    query = '{"improve": false}' if switches else ""
    answer = asking.get(f"/api/neighbours/{with_statistics.digest}/4", params={"k": 5, "options": query}).json()
    assert found(answer["hits"]) == expected
    assert answer["options"] == options.text()


def test_models_say_what_may_be_switched_and_an_old_index_why_it_is_plain(asking):
    champion, challenger = asking.get("/api/models").json()["models"]
    assert champion["options"] == {"improve": True, "expand": True}
    assert (champion["options_text"], champion["why_plain"]) == (OPTIONS.text(), "")
    assert (challenger["options"], challenger["options_text"]) == ({}, "off")
    assert "no statistics" in challenger["why_plain"]
    for switches in ({}, {"improve": False}, {"improve": True, "expand": True}):
        answer = asking.post("/api/search", json={**DRAWING, "model": "challenger", "options": switches}).json()
        assert answer["options"] == "off"


@pytest.mark.parametrize("text", ['{"improve": 1}', '{"magic": true}', "[]", '{"expand": "no"}'])
def test_switches_that_are_none_are_refused_in_one_line(asking, with_statistics, text):
    refused = asking.get(f"/api/neighbours/{with_statistics.digest}/4", params={"options": text})
    assert (refused.status_code, list(refused.json())) == (422, ["error"])


def test_a_filter_holds_for_the_photos_that_expand_a_query_too(asking, engine, with_statistics):
    """So what is not to be found has no part in what is."""
    answer = asking.post("/api/search", json={**DRAWING, "filter": {"folder": "cup"}}).json()
    cups = np.array([path.startswith("cup/") for path in engine.files.paths.to_pylist()])
    gallery = prepared(with_statistics, OPTIONS)
    seen = Image.open(io.BytesIO(asking.post("/api/drawing", json=DRAWING).content))
    rows = np.flatnonzero(cups)

    def among(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        ids, scores = exact.search(queries, gallery.vectors[rows], k)
        return rows[ids], scores

    ids, scores = among(gallery.queries(engine.embed([seen]), among), 5)
    assert found(answer["hits"]) == list(zip(ids[0].tolist(), scores[0], strict=True))
    nothing = asking.post("/api/search", json={**DRAWING, "filter": {"folder": "nowhere"}})
    assert (nothing.status_code, nothing.json()["hits"]) == (200, [])


def test_an_index_is_prepared_by_itself_only_where_it_is_small_enough(with_statistics, monkeypatch):
    assert Engine(with_statistics.uri, wanted="auto").options == SearchOptions(flip=False)
    monkeypatch.setattr("zsbir.search_run.choice.AUTO_PHOTOS", 14)
    large = Engine(with_statistics.uri, wanted="auto")
    assert (large.options, large.is_prepared) == (PLAIN, False)
    assert "more than 14 photos" in large.why_plain
    assert Engine(with_statistics.uri, wanted="default").is_prepared


def test_options_by_which_no_photo_is_prepared_are_refused(engine, index):
    query = np.ones((1, 8), np.float32)
    for other in (
        OPTIONS.replace(centring="centre"),
        OPTIONS.replace(smooth=2),
        OPTIONS.replace(expand=9),
        OPTIONS.replace(flip=True),
    ):
        with pytest.raises(InputError, match="is searched with the options whiten, smooth 3, expand 2"):
            engine.find(query, 3, options=other)
    with pytest.raises(InputError, match="with the options off alone"):
        Engine(index.uri).find(query, 3, options=OPTIONS)
    with pytest.raises(InputError, match="no statistics of training embeddings"):
        Engine(index.uri, wanted="default")


@pytest.mark.parametrize(("wanted", "text"), [("auto", SearchOptions(flip=False).text()), ("plain", "off")])
def test_the_command_says_whether_the_service_prepares(with_statistics, index_root, wanted, text):
    own = {"root": str(index_root), "auth": "off", "hosts": ("testserver",)}
    app = open_app(SearchSettings.of({"index": with_statistics.uri, "options": wanted, **own}))
    assert client(app).get("/api/models").json()["models"][0]["options_text"] == text
    app.state.search.batcher.close()
