"""Indexes with a graph: what their manifest says, which searches go by it, what becomes of it, and links of strangers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from building import put
from index_photos import DIMENSIONS, Photos
from pictures import drawing
from PIL import Image
from safetensors.numpy import load_file, save_file

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.index_files import IndexFiles
from zsbir.data.items import Filter
from zsbir.data.segments import GRAPH
from zsbir.index import GrowthConfig, IndexConfig, Settings, _parse, compact_index, delete_photos, update_index
from zsbir.retrieval.exact import search as search_exactly
from zsbir.retrieval.graph_facts import GraphFacts, graph_facts_of
from zsbir.search import _parse as search
from zsbir.search_run.engine import Engine

PHOTOS, K = 64, 3
"""Enough photos for the graph to answer a search for three."""


@pytest.fixture(scope="module")
def folder(module_path):
    """A folder of 64 photos, two of which are in a folder of their own."""
    found = Photos(module_path / "photos")
    for number in range(PHOTOS):
        found.write(f"{'few' if number < 2 else 'many'}/{number:02}.png", number)
    return found


@pytest.fixture(scope="module")
def made(run, folder, module_path):
    """A function that makes an index of these photos."""
    return lambda **changes: folder.index(run, Settings(root=str(module_path / "root")), **changes)


@pytest.fixture
def linked(made) -> Artifact:
    return made(graph=True)


def with_links(index: Artifact, root: Settings, change, **facts) -> Artifact:
    """Return an index whose links, and what its manifest says of them, a stranger has changed."""
    arrays = load_file(index.file(GRAPH))
    change(arrays)
    files = {name: index.file(name).read_bytes() for name in index.manifest.files}
    target = index.path.parent / "changed"
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, target)
    files[GRAPH] = target.read_bytes()
    return put(
        root.root,
        "index",
        "evil",
        files=files,
        counts=dict(index.manifest.counts),
        inputs=dict(index.manifest.inputs),
        facts={**index.manifest.facts, **facts},
        config=IndexConfig.of(index.manifest.config),
    )


def none(arrays):
    pass


def without_links(arrays):
    """Whoever walks through such a graph meets the first photo alone."""
    arrays["links"][:] = -1


def test_the_manifest_says_how_photos_were_linked_and_how_many_belong(linked, made, capsys):
    facts = graph_facts_of(linked)
    assert facts.measured_on == "64 of its photos, moved at random"
    assert 0.9 < facts.recall_at_10 <= 1
    assert facts.recall_at_100 == 1, "for more photos than a graph may answer, all are ranked"
    assert facts.threads >= 1
    assert linked.manifest.config["graph"] is True
    assert GRAPH in linked.manifest.files
    plain = made()
    assert GRAPH not in plain.manifest.files
    assert plain.digest != linked.digest
    assert (plain.file("vectors.npy").read_bytes()) == linked.file("vectors.npy").read_bytes()


def test_plain_searches_go_by_the_graph_and_exact_ones_do_not(linked, folder, root):
    """Seen by links that lead nowhere: a search by them finds one photo, whatever is asked."""
    lost = with_links(linked, root, without_links)
    by_graph, exact = Engine(lost.uri), Engine(lost.uri, exact=True)
    queries = exact.embed([Image.open(folder.path / f"many/{number:02}.png") for number in (20, 40, 60)])
    assert len({hits[0].item_id for hits in by_graph.find(queries, 1)}) == 1
    best, _ = search_exactly(queries, np.load(lost.file("vectors.npy")), 1)
    assert [hits[0].item_id for hits in exact.find(queries, 1)] == best[:, 0].tolist()
    assert len(set(best[:, 0].tolist())) > 1
    assert (by_graph.ranking(1), exact.ranking(1)) == (graph_facts_of(linked).text, "exact")
    assert [hit.path for hit in by_graph.find(queries, K)[0]] == [hit.path for hit in exact.find(queries, K)[0]], (
        "fewer than were asked for are not enough"
    )


def scores(hits):
    """Photos that look the same to the network tie, and a graph finds some of them."""
    return [hit.score for hit in hits]


def test_a_search_by_the_graph_finds_what_all_photos_give_and_says_how_it_ranked(linked, folder):
    by_graph, exact = Engine(linked.uri), Engine(linked.uri, exact=True)
    queries = exact.embed([Image.open(folder.path / f"many/{number:02}.png") for number in range(2, PHOTOS)])
    assert [*map(scores, by_graph.find(queries, K))] == [*map(scores, exact.find(queries, K))]
    assert scores(by_graph.neighbours(5, K)) == scores(exact.neighbours(5, K))
    assert 5 not in [hit.item_id for hit in by_graph.neighbours(5, K)]
    assert by_graph.ranking(K) == f"graph, recall {int(100 * by_graph.graph.recall_at_10) / 100:.2f}"
    assert by_graph.ranking(PHOTOS) == "exact"
    few, many = (by_graph.among(Filter(folder=name)) for name in ("few", "many"))
    assert by_graph.ranking(2, among=few) == "exact"
    assert by_graph.ranking(2, among=many) != "exact"
    assert by_graph.find(queries[:5], 2, among=few) == exact.find(queries[:5], 2, among=few)


def test_the_command_says_that_photos_may_be_missing_unless_all_are_ranked(linked, tmp_path, capsys):
    drawing().save(tmp_path / "drawing.png")
    search([linked.uri, str(tmp_path / "drawing.png"), "-k", "2"])
    assert "ranked: graph, recall " in capsys.readouterr().err
    search([linked.uri, str(tmp_path / "drawing.png"), "-k", "2", "--exact"])
    assert "ranked" not in capsys.readouterr().err
    search([linked.uri, str(tmp_path / "drawing.png"), "-k", "2", "--folder", "few"])
    assert "ranked: exact; " in capsys.readouterr().err


def test_an_index_that_changes_has_no_graph_until_it_is_compacted_with_one(linked, folder, root, contents, capsys, tmp_path):
    grown = delete_photos(linked.uri, ["few/00.png"], root)
    assert "the new index has no graph" in capsys.readouterr().err
    more = Photos(tmp_path / "more")
    more.write("one.png", 70)
    added = Artifact(_parse(["add", grown.uri, str(more.path), "--root", root.root]), "index")
    for index in (grown, added, compact_index(added.uri, root)):
        assert GRAPH not in index.manifest.files
        assert "graph" not in index.manifest.facts
        assert index.manifest.config["graph"] is False
        assert Engine(index.uri).ranking(K) == "exact"
    again = Artifact(_parse(["compact", added.uri, "--graph", "--root", root.root]), "index")
    assert again.manifest.config["graph"] is True
    assert Engine(again.uri).ranking(K) == graph_facts_of(again).text
    assert contents(again) == contents(added)
    capsys.readouterr()
    assert compact_index(again.uri, root, graph=True).uri == again.uri
    assert compact_index(again.uri, root).uri == again.uri
    assert "no graph" not in capsys.readouterr().err


def test_an_index_of_one_segment_gets_a_graph_by_being_compacted_with_one(made, root, contents):
    plain = made()
    compacted = compact_index(plain.uri, root, graph=True)
    assert graph_facts_of(compacted).measured_on == "64 of its photos, moved at random"
    assert contents(compacted) == contents(plain)
    assert "segments" not in compacted.manifest.inputs
    assert update_index(compacted.uri, "", GrowthConfig(), root).uri == compacted.uri


def test_without_a_graph_the_identity_is_what_it_was():
    assert "graph" not in IndexConfig().identity()
    assert IndexConfig(graph=True).identity()["graph"] is True


@pytest.mark.parametrize(
    ("change", "facts", "reason"),
    [
        (
            lambda arrays: arrays["links"].__setitem__(3, PHOTOS),
            {},
            r"indexes/evil/.*/graph\.safetensors: a damaged graph: links to",
        ),
        (lambda arrays: arrays.update(levels=arrays["levels"][:-1]), {}, r"graph\.safetensors: a graph of other vectors"),
        (lambda arrays: arrays.pop("entry"), {}, r"graph\.safetensors: not a graph"),
        (none, {"graph": None}, "its manifest does not say how it was built"),
        (none, {"graph": [1]}, "its manifest does not say how it was built"),
        (none, {"graph": {}}, "the graph in its manifest: field 'links' is required"),
    ],
)
def test_links_of_a_stranger_are_refused_in_one_line_and_all_photos_can_still_be_ranked(linked, root, change, facts, reason):
    evil = with_links(linked, root, change, **facts)
    with pytest.raises(InputError, match=reason) as error:
        Engine(evil.uri)
    assert "\n" not in str(error.value)
    assert Engine(evil.uri, exact=True).ranking(K) == "exact"


@pytest.mark.parametrize(
    ("name", "value"),
    [("effort", 10**9), ("effort", 0), ("recall_at_10", 1.5), ("recall_at_10", "x"), ("measured_on", "x" * 10_000), ("more", 1)],
)
def test_a_manifest_that_says_something_impossible_of_a_graph_is_refused(linked, root, name, value):
    stated = json.loads(json.dumps(linked.manifest.facts["graph"]))
    evil = with_links(linked, root, none, graph={**stated, name: value})
    with pytest.raises(InputError, match=rf"the graph in its manifest: .*'{name}'") as error:
        Engine(evil.uri)
    assert "\n" not in str(error.value)


def test_recall_is_shown_rounded_down():
    facts = {"links": 32, "build_effort": 200, "effort": 128, "recall_at_100": 1, "measured_on": "", "build_s": 1, "threads": 1}
    shown = {GraphFacts(recall_at_10=recall, **facts).text for recall in (0.98, 0.9899, 0.98999)}
    assert shown == {"graph, recall 0.98"}
    assert GraphFacts(recall_at_10=1, **facts).text == "graph, recall 1.00"


def test_the_rows_of_an_index_with_a_graph_are_those_of_one_without(linked, made):
    assert IndexFiles(linked, DIMENSIONS).paths.equals(IndexFiles(made(), DIMENSIONS).paths)
