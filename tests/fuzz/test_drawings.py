"""Drawings of strangers, as files and as requests: whatever they hold, they are drawn within bounds or refused in one line."""

from __future__ import annotations

import json

import pytest
from fuzz.fuzzing import LENGTHS, changed, fuzz, json_changed
from servers.search_service import asked, make_app, make_index, served

from services.search.serving.catalogue import Catalogue
from zsbir.base import limits
from zsbir.base.errors import InputError
from zsbir.base.storage import open_folder
from zsbir.data.images import BadImage, decode
from zsbir.data.ink import QUICKDRAW
from zsbir.data.strokes import SIDE_PX, draw_query, drawings, prefix, read_drawing, read_strokes

STROKES = [[[10, 90, 50.5, 10], [90, 90, 10, 90]], [[30, 70], [60, 60], [0, 120]]]
EVIL = [
    "[[[NaN], [1]]]", "[[[1e999], [1]]]", f"[[[{10**400}], [1]]]", "[[[1e6, -1e6], [1e6, -1e6]]]", "[[[5e-324], [5e-324]]]",
    "[[[1], [1, 2]]]", "[[[true], [1]]]", '[[["1"], [1]]]', "[[]]", "[[[], []]]", "[" * 5000, "[[[0, 0], [0, 1e-300]]]",
    json.dumps([[[0] * 20_001] * 2]), json.dumps([[[0], [0]]] * 2001), json.dumps([[list(range(500)), [7] * 500]] * 9),
]  # fmt: skip
"""Strokes that are none, that have no extent or an enormous one, and that are too many."""


@LENGTHS
@pytest.mark.parametrize("name", ["a.json", "a.ndjson"])
def test_files_of_strokes(tmp_path, name, seconds):
    wrapped = json.dumps({"word": "cat", "drawing": STROKES, "recognized": True})
    examples = [json.dumps(STROKES), wrapped, f"{wrapped}\n{wrapped}", json.dumps({"strokes": STROKES}), "\ufeff[[[1],[1]]]"]

    def read(data: bytes) -> None:
        (tmp_path / name).write_bytes(data)
        strokes = read_strokes(tmp_path / name)
        assert 1 <= sum(map(len, strokes)) <= limits.DRAWING_POINTS
        for some in (strokes, prefix(strokes, 0.3)):
            picture = draw_query(some, QUICKDRAW)
            assert (picture.size, picture.mode) == ((SIDE_PX, SIDE_PX), "L")

    fuzz([text.encode() for text in (*examples, *EVIL)], read, InputError, seconds, json_changed if name == "a.json" else changed)


@LENGTHS
def test_files_of_drawings(tmp_path, seconds):
    """As ingest reads those of Quick, Draw!: lines are found first, and each is drawn when its turn comes."""
    line = json.dumps({"word": "cat", "recognized": True, "drawing": STROKES})
    evil = [json.dumps({"drawing": json.loads(text)}) for text in EVIL if text.strip("[") and "NaN" not in text]
    folder = open_folder(tmp_path)

    def read(data: bytes) -> None:
        (tmp_path / "cat.ndjson").write_bytes(data)
        found = list(drawings(folder, "cat.ndjson", 20))
        assert len(found) <= 20
        if not found:
            raise InputError("no drawing")
        for each in found:
            assert decode(read_drawing(folder, "cat.ndjson", each.start, each.length)).size == (SIDE_PX, SIDE_PX)

    fuzz([f"{line}\n{line}\n".encode(), *(text.encode() for text in evil)], read, (InputError, BadImage), seconds)


class Refused(Exception):
    """The service has refused a request."""


@pytest.fixture(scope="module")
def service(module_path):
    """A search service over a small index, and the digest of that."""
    index = make_index(module_path)
    app = make_app(module_path, Catalogue([served(index)]))
    with asked(app) as asking:
        yield asking, index.digest


def bodies(path: str, digest: str) -> list[bytes]:
    """Return good bodies of requests, and hostile ones."""
    whole = {
        "strokes": STROKES, "canvas": {"width": 300, "height": 200.5}, "k": 5, "model": "champion", "min_score": -0.5,
        "filter": {"classes": ["bear"], "folder": "a/b", "columns": {"price": {"min": 1, "max": 2}}}, "options": {"improve": False},
    }  # fmt: skip
    few = {"strokes": STROKES, "k": 2}
    click = {"strokes": STROKES, "index": digest, "id": 1, "right": True, "consent": True}
    good: list = {"search": [whole, few], "search/batch": [{"queries": [few, whole]}, {"queries": [few]}], "feedback": [click]}[
        path
    ]
    outside = json.dumps(good[-1])
    return [json.dumps(body).encode() for body in good] + [outside.replace(json.dumps(STROKES), evil).encode() for evil in EVIL]


@LENGTHS
@pytest.mark.parametrize("path", ["search", "search/batch", "feedback"])
def test_requests(service, path, seconds):
    asking, digest = service

    def read(data: bytes) -> None:
        answer = asking.post(f"/api/{path}", content=data, headers={"Content-Type": "application/json"})
        value = answer.json()
        assert answer.status_code in (200, 201, 400, 404, 422), f"{answer.status_code}: {answer.text[:500]}"
        for each in value.get("answers", [value]):
            if "error" in each:
                assert "\n" not in each["error"]
                raise Refused(each["error"])
            assert len(each.get("hits", ())) <= 200
            assert all(-1 <= hit["score"] <= 1 for hit in each.get("hits", ()))

    fuzz(bodies(path, digest), read, Refused, seconds, json_changed)
