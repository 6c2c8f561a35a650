"""A service of an index with a graph: plain searches go by it unless all are to be exact, and each answer says how it ranked."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers.search_service import DRAWING, asked, make_gallery, make_run

from services.search.settings import SearchSettings
from services.search.start import open_app
from zsbir.base.artifact import Artifact
from zsbir.index import IndexConfig, Settings, build_index
from zsbir.retrieval.graph_facts import graph_facts_of

PLAIN = {"improve": False}


@pytest.fixture(scope="module")
def linked(index_root: Path) -> Artifact:
    """An index with a graph and statistics: 51 photos, enough for the graph to answer a search for two."""
    root = index_root / "linked"
    config = IndexConfig(gallery=str(make_gallery(root, 17)), precision="fp32", graph=True)
    return build_index(make_run(root, 3, statistics=True).uri, config, Settings(root=str(root)))


def opened(index: Artifact, **settings):
    return open_app(SearchSettings.of({"index": index.uri, "root": index.uri, "auth": "off", "hosts": ("testserver",), **settings}))


@pytest.fixture(scope="module")
def asking(linked):
    with asked(opened(linked), "") as asking:
        yield asking


def ranked(asking, **asked) -> str:
    answer = asking.post("/api/search", json={**DRAWING, "k": 2, **asked})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["hits"]) == asked.get("k", 2)
    return answer.json()["ranking"]


def test_an_answer_says_whether_photos_may_be_missing(asking, linked):
    by_graph = graph_facts_of(linked).text
    assert by_graph.startswith("graph, recall ")
    assert ranked(asking, options=PLAIN) == by_graph
    assert ranked(asking) == "exact", "photos prepared for search are another gallery, without links"
    assert ranked(asking, options=PLAIN, k=12) == "exact"
    assert ranked(asking, options=PLAIN, k=1, filter={"folder": "bear"}) == by_graph
    assert asking.get(f"/api/neighbours/{linked.digest}/0", params={"k": 1, "options": '{"improve": false}'}).json()["ranking"] == (
        by_graph
    )


def test_a_narrow_filter_is_exact(asking, linked):
    nothing = {"folder": "bear", "classes": ["none"]}
    answer = asking.post("/api/search", json={**DRAWING, "k": 1, "options": PLAIN, "filter": nothing}).json()
    assert (answer["hits"], answer["ranking"]) == ([], "exact")


def test_a_service_may_rank_all_photos_by_every_search(linked, capsys):
    for exact, said in ((False, True), (True, False)):
        app = opened(linked, exact=exact, options="plain")
        assert ("rank by graph, recall" in capsys.readouterr().err) == said
        with asked(app, "") as asking:
            assert (ranked(asking) == "exact") == exact
