"""Every endpoint of the search service, over a real index: what it answers, and how it refuses."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pictures import drawing, encoded, picture
from PIL import Image
from servers.search_service import CLASSES, DRAWING, client

from services.search.serving.catalogue import Served
from zsbir.base.artifact import Artifact
from zsbir.retrieval import exact
from zsbir.search import Searcher

JSON = {"Content-Type": "application/json"}
PNG = {"Content-Type": "image/png"}


def ids(answer: dict) -> list[int]:
    return [hit["id"] for hit in answer["hits"]]


def test_a_drawing_finds_what_the_command_finds_and_the_answer_names_model_and_index(searcher: TestClient, index: Artifact):
    answer = searcher.post("/api/search", json={**DRAWING, "k": 4}).json()
    assert (answer["model"], answer["index"], answer["alias"]) == ("models:/zsbir/1", index.digest, "champion")
    seen = Image.open(io.BytesIO(searcher.post("/api/drawing", json=DRAWING).content))
    hits = Searcher(index.uri).search(seen, 4)
    assert ids(answer) == [hit.item_id for hit in hits]
    np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], [hit.score for hit in hits], atol=1e-6)
    assert [hit["path"] for hit in answer["hits"]] == [hit.path for hit in hits]
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4]
    first = answer["hits"][0]
    assert first["thumbnail"] == f"/api/thumbnails/{index.digest}/{first['id']}"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_an_image_is_searched_by_its_content_whatever_it_is_called(searcher: TestClient, index_root, form: str):
    photo = Image.open(index_root / "photos" / "cup" / "3.png")
    data = encoded(photo, form, **({} if form == "PNG" else {"quality": 95}))
    for media in ("image/png", "image/x-unknown", "application/octet-stream"):
        answer = searcher.post("/api/search/image?k=1", content=data, headers={"Content-Type": media}).json()
        assert answer["hits"][0]["path"] == "cup/3.png"


def test_neighbours_of_a_photo_leave_it_out_and_equal_a_search_for_it(searcher: TestClient, index: Artifact):
    vectors, _ = Searcher(index.uri).engine.files.living()
    found, _ = exact.search(vectors[4:5], vectors, 6)
    answer = searcher.get(f"/api/neighbours/{index.digest}/4?k=5").json()
    assert ids(answer) == [row for row in found[0].tolist() if row != 4][:5]


def test_a_filtered_search_equals_a_search_of_the_photos_that_are_left(searcher: TestClient):
    everything = searcher.post("/api/search", json={**DRAWING, "k": 200}).json()["hits"]
    for chosen, kept in (
        ({"classes": ["cup"]}, [hit for hit in everything if hit["class_name"] == "cup"]),
        ({"folder": "tree"}, [hit for hit in everything if hit["path"].startswith("tree/")]),
        ({"classes": ["nothing"]}, []),
    ):
        answer = searcher.post("/api/search", json={**DRAWING, "k": 200, "filter": chosen}).json()
        assert ids(answer) == [hit["id"] for hit in kept]
        by_image = searcher.post(
            f"/api/search/image?k=200&filter={json.dumps(chosen)}",
            content=searcher.post("/api/drawing", json=DRAWING).content,
            headers=PNG,
        )
        assert ids(by_image.json()) == ids(answer)


def test_a_minimum_score_leaves_out_the_rest(searcher: TestClient):
    everything = searcher.post("/api/search", json={**DRAWING, "k": 15}).json()["hits"]
    lowest = everything[6]["score"]
    some = searcher.post("/api/search", json={**DRAWING, "k": 15, "min_score": lowest}).json()
    assert ids(some) == [hit["id"] for hit in everything if hit["score"] >= lowest]


def test_a_batch_is_answered_in_order_and_one_that_fails_spoils_no_other(searcher: TestClient):
    bad = {"strokes": [[["x"], [1]]]}
    answers = searcher.post("/api/search/batch", json={"queries": [{**DRAWING, "k": 2}, bad, {**DRAWING, "k": 3}]}).json()[
        "answers"
    ]
    assert [len(answer.get("hits", [])) for answer in answers] == [2, 0, 3]
    assert list(answers[1]) == ["error"]
    assert ids(answers[0]) == ids(answers[2])[:2]
    assert searcher.post("/api/search/batch", json={"queries": [DRAWING] * 65}).status_code == 422


def test_models_tell_what_is_served(searcher: TestClient, index: Artifact):
    said = searcher.get("/api/models").json()
    assert said["default"] == "champion"
    (model,) = said["models"]
    assert model["index"] == {"uri": index.uri, "digest": index.digest, "name": index.manifest.name}
    assert (model["photos"], model["dimensions"]) == (15, 8)
    assert model["run"] == index.manifest.inputs["run"]["uri"]


def test_thumbnails_and_originals_are_pictures_that_may_be_kept(searcher: TestClient, index: Artifact):
    for kind, kept in (("thumbnails", "immutable"), ("originals", "max-age=60")):
        answer = searcher.get(f"/api/{kind}/{index.digest}/3")
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["cache-control"].endswith(kept)
        Image.open(io.BytesIO(answer.content)).load()
        assert searcher.get(f"/api/{kind}/{index.digest}/99").status_code == 404
        assert searcher.get(f"/api/{kind}/{'0' * 64}/3").status_code == 404
        assert searcher.get(f"/api/{kind}/{index.digest}/x").status_code == 422


def test_a_folder_has_no_examples(searcher: TestClient, index: Artifact):
    assert searcher.get("/api/examples").json() == {"index": index.digest, "examples": []}
    assert searcher.get(f"/api/examples/{index.digest}/0").status_code == 404


HOSTILE = {
    "nothing": b"",
    "no image": b"hello",
    "a script": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "half a PNG": encoded(picture())[:90],
    "one colour": encoded(Image.new("RGB", (50, 50), "white")),
    "a header of a billion pixels": b"BM"
    + (54).to_bytes(4, "little")
    + bytes(4)
    + (54).to_bytes(4, "little")
    + (40).to_bytes(4, "little")
    + (40_000).to_bytes(4, "little")
    + (40_000).to_bytes(4, "little")
    + b"\1\0\x18\0"
    + bytes(24),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_upload_is_refused_in_one_line(searcher: TestClient, what: str):
    answer = searcher.post("/api/search/image", content=HOSTILE[what], headers=PNG)
    assert answer.status_code in (400, 422), answer.text
    assert list(answer.json()) == ["error"]


def test_an_upload_beyond_the_limit_is_not_read_to_its_end(searcher: TestClient):
    assert searcher.post("/api/search/image", content=bytes(11 << 20), headers=PNG).status_code == 413
    assert searcher.post("/api/search/image", content=encoded(drawing()), headers={"Content-Type": "text/plain"}).status_code == 400
    assert searcher.post("/api/search/image?k=201", content=encoded(drawing()), headers=PNG).status_code == 422
    assert searcher.post("/api/search/image?filter=[]", content=encoded(drawing()), headers=PNG).status_code == 422
    broken = searcher.post("/api/search/image?filter={", content=encoded(drawing()), headers=PNG)
    assert (broken.status_code, broken.json()["error"][:19]) == (400, "filter is not JSON:")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"strokes": [[[NaN], [1]]]}', 400),
        (b'{"strokes": [[[1e999], [1]]]}', 422),
        (b'{"strokes": []}', 422),
        (b'{"strokes": [[]]}', 422),
        (b'{"strokes": [[[1, 2], [1]]]}', 422),
        (b'{"strokes": [[["a"], [1]]]}', 422),
        (b'{"strokes": "x"}', 422),
        (b'{"strokes": {"0": 1}}', 422),
        (b'{"strokes": [[[1], [1]]], "k": 0}', 422),
        (b'{"strokes": [[[1], [1]]], "k": true}', 422),
        (b'{"strokes": [[[1], [1]]], "canvas": {"width": 1e300, "height": 1}}', 422),
        (b'{"strokes": [[[1], [1]]], "min_score": 2}', 422),
        (b'{"strokes": [[[1], [1]]], "model": "nobody"}', 404),
        (b'{"strokes": [[[1], [1]]], "filter": {"colour": "red"}}', 422),
        (b'{"strokes": [[[1], [1]]], "filter": {"columns": {"price": {"min": 1}}}}', 422),
        (b'{"strokes": [[[1], [1]]], "options": {"magic": true}}', 400),
        (b'{"strokes": [[[1], [1]]], "options": {"improve": 1}}', 422),
        (b'{"strokes": [[[1], [1]]], "extra": 1}', 400),
        (json.dumps({"strokes": [[list(range(150_000)), [0] * 150_000]]}).encode(), 413),
        (json.dumps({"strokes": [[[1] * 110_000, [0] * 110_000]]}).encode(), 422),
    ],
)
def test_what_is_no_drawing_is_refused_in_one_line(searcher: TestClient, body: bytes, status: int):
    answer = searcher.post("/api/search", content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]


CLICK = {**DRAWING, "id": 2, "right": True, "consent": True}


def test_clicks_are_kept_after_consent_for_their_user_and_deleted_on_demand(app: FastAPI, index: Artifact):
    ann, bob, operator = client(app, "ann-searcher"), client(app, "bob-searcher"), client(app, "operator")
    click = {**CLICK, "index": index.digest}
    assert ann.post("/api/feedback", json={**click, "consent": False}).status_code == 422
    assert ann.post("/api/feedback", json={**click, "id": 99}).status_code == 404
    assert ann.post("/api/feedback", json={**click, "example": 1}).status_code == 422
    unknown = {**click, "strokes": None, "example": 0}
    assert ann.post("/api/feedback", json=unknown).json() == {"error": "the index has no example 0, only 0"}
    assert ann.get("/api/feedback").text == ""
    for asking in (ann, ann, bob):
        assert asking.post("/api/feedback", json=click).status_code == 201
    lines = [json.loads(line) for line in ann.get("/api/feedback").text.splitlines()]
    assert len(lines) == 2
    assert {name: lines[0][name] for name in ("user", "index", "model", "id", "right", "path")} == {
        "user": "ann",
        "index": index.digest,
        "model": "models:/zsbir/1",
        "id": 2,
        "right": True,
        "path": "bear/2.png",
    }
    assert np.array(lines[0]["strokes"]).shape == (1, 2, 4)
    assert ann.get("/api/feedback?everyone=true").status_code == 403
    assert len(operator.get("/api/feedback?everyone=true").text.splitlines()) == 3
    assert ann.delete("/api/feedback").json() == {"deleted": 2}
    assert ann.get("/api/feedback").text == ""
    assert len(bob.get("/api/feedback").text.splitlines()) == 1
    assert operator.delete("/api/feedback?everyone=true").json() == {"deleted": 1}


def test_readiness_metrics_and_the_page(searcher: TestClient, app: FastAPI):
    assert searcher.get("/healthz").json() == {"ok": True}
    assert searcher.get("/readyz").json() == {"ready": True, "served": {"champion": "models:/zsbir/1"}, "newest": True}
    searcher.post("/api/search", json=DRAWING)
    text = searcher.get("/metrics").text
    assert 'zsbir_search_photos{alias="champion"' in text
    assert "zsbir_search_queries_total 1.0" in text
    assert searcher.get("/").text.startswith("<!doctype html>")
    app.state.search.catalogue.put([])
    assert searcher.get("/readyz").status_code == 503
    answer = searcher.post("/api/search", json=DRAWING)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_what_keeps_a_version_from_being_served_is_told_to_those_who_are_known_alone(app: FastAPI, searcher: TestClient):
    """Problems name folders and buckets."""
    state = app.state.search
    app.state.search = dataclasses.replace(state, problem=lambda: "there is no index below /srv/secret")
    assert searcher.get("/api/models").json()["problem"] == "there is no index below /srv/secret"
    assert client(app, "").get("/readyz").json() == {"ready": True, "served": {"champion": "models:/zsbir/1"}, "newest": False}
    state.catalogue.put([])
    assert "secret" not in client(app, "").get("/readyz").text
    answer = searcher.get("/api/models")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"].endswith("at the moment: there is no index below /srv/secret")
    assert client(app, "").get("/api/models").status_code == 401


def test_what_is_served_is_sent_again_only_where_it_has_changed(app: FastAPI, searcher: TestClient, other_opened: Served):
    first = searcher.get("/api/models")
    known = {"If-None-Match": first.headers["etag"]}
    again = searcher.get("/api/models", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    app.state.search.catalogue.put([other_opened])
    changed = searcher.get("/api/models", headers=known)
    assert (changed.status_code, changed.json()["models"][0]["model"]) == (200, "models:/zsbir/2")


def test_names_of_classes_are_counted(searcher: TestClient):
    classes = searcher.get("/api/models").json()["models"][0]["classes"]
    assert classes in ([], [{"name": name, "photos": 5} for name in CLASSES])
