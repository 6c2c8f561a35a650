"""A graph's answers are exact scores of photos that mostly belong there; its file is checked to the last number."""

from contextlib import nullcontext

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from zsbir.base.errors import InputError
from zsbir.retrieval import exact, graph_file
from zsbir.retrieval.graph import Graph
from zsbir.retrieval.recall import recall_at
from zsbir.retrieval.scan import Scan

ROWS, DIMENSIONS, K = 1500, 24, 8


def vectors(count, seed):
    return np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """faiss's threads wait for each other, which on a busy machine takes longer than the work."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


@pytest.fixture(scope="module")
def gallery():
    return vectors(ROWS, 0) * np.float32(3)


@pytest.fixture(scope="module")
def graph(gallery):
    return Graph.build(Scan([gallery[:400], gallery[400:]], threads=1), links=8, effort=40)


def test_scores_are_exact_and_most_results_belong(gallery, graph):
    queries = vectors(30, 1)
    found, scores = graph.search(queries, K)
    np.testing.assert_array_equal(scores, np.take_along_axis(exact.scores(queries, gallery), found, axis=1))
    assert (np.diff(scores, axis=1) <= 0).all()
    assert recall_at(found, queries, gallery).mean() > 0.9


def test_recall_is_that_of_the_slow_ranking_and_falls_with_the_effort(gallery, graph):
    queries = vectors(30, 2)
    for effort in (128, 1):
        expected = recall_at(graph.search(queries, K, effort=effort)[0], queries, gallery)
        np.testing.assert_allclose(graph.recall(queries, K, effort=effort), expected)
    assert graph.recall(queries, K, effort=1).mean() < graph.recall(queries, K, effort=200).mean()


def test_a_saved_graph_finds_what_the_built_one_finds(gallery, graph, tmp_path):
    graph.save(tmp_path / "graph.safetensors")
    loaded = Graph.load(Scan([gallery], threads=1), tmp_path / "graph.safetensors")
    queries = vectors(20, 3)
    for built, read in zip(graph.search(queries, K), loaded.search(queries, K), strict=True):
        np.testing.assert_array_equal(built, read)


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_only_marked_rows_are_found_by_the_graph_or_by_the_scan(gallery, graph, share):
    among = np.random.default_rng(4).random(ROWS) < share
    queries = vectors(10, 5)
    found, scores = graph.search(queries, K, among=among)
    assert among[found].all()
    rows = np.flatnonzero(among)
    expected, best = exact.search(queries, gallery[rows], K)
    assert (scores >= best[:, -1:]).mean() > 0.85
    if share < 1 / 16:
        np.testing.assert_array_equal(found, rows[expected])


def test_deleted_rows_are_not_found(gallery):
    alive = np.random.default_rng(6).random(ROWS) < 0.6
    dead = Graph.build(Scan([gallery], alive=alive, threads=1), links=8, effort=20)
    assert alive[dead.search(vectors(10, 7), K)[0]].all()


def test_a_query_of_zeros_and_a_large_k_are_answered_as_by_the_scan(gallery, graph):
    queries = np.concatenate([np.zeros((1, DIMENSIONS), np.float32), vectors(1, 8)])
    found, _ = graph.search(queries, K)
    assert found[0].tolist() == list(range(K))
    for one, other in zip(graph.search(queries, 700), exact.search(queries, gallery, 700), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(InputError, match="k must be at least 1"):
        graph.search(queries, 0)


def test_links_out_of_range_are_refused(gallery):
    with pytest.raises(InputError, match="links must be from 8 to 128, got 4"):
        Graph.build(Scan([gallery[:50]]), links=4)


def damage(name, change):
    def apply(arrays):
        arrays[name] = change(arrays[name])

    return apply


def put(place, value):
    def change(array):
        array[place] = value
        return array

    return change


def link_upward(arrays):
    """Let a row of level 1 name one that is on level 0 only, behind whose links others' begin."""
    levels, (_, width) = arrays["levels"], arrays["entry"].tolist()
    above, below = int(np.flatnonzero(levels > 1)[0]), int(np.flatnonzero(levels == 1)[-1])
    arrays["links"][graph_file.places(levels, width)[above] + 2 * width] = below


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (damage("links", put(5, ROWS)), "rows that do not exist"),
        (damage("links", put(5, -2)), "rows that do not exist"),
        (damage("links", lambda links: links[:-1]), "links instead of"),
        (damage("links", lambda links: links.astype(np.int64)), "other types"),
        (damage("links", lambda links: links[None]), "other types"),
        (link_upward, "rows that are not on it"),
        (damage("levels", put(3, 0)), "levels out of range"),
        (damage("levels", put(3, 200)), "levels out of range"),
        (damage("levels", lambda levels: levels[:-1]), "of other vectors"),
        (damage("levels", lambda levels: levels[None]), "of other vectors"),
        (damage("entry", put(0, ROWS)), "a start that is not"),
        (damage("entry", put(0, -1)), "a start that is not"),
        (damage("entry", put(1, 0)), "0 links a row"),
        (damage("entry", put(1, 2**40)), "links a row"),
        (damage("entry", lambda entry: entry[:1]), "other types"),
        (lambda arrays: arrays.pop("entry"), "not a graph: it holds"),
        (lambda arrays: arrays.update(more=np.zeros(1)), "not a graph: it holds"),
    ],
)
def test_a_damaged_or_foreign_graph_is_refused_in_one_line(gallery, graph, tmp_path, apply, message):
    path = tmp_path / "graph.safetensors"
    graph.save(path)
    arrays = load_file(path)
    apply(arrays)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    with pytest.raises(InputError, match=message) as refused:
        Graph.load(Scan([gallery], threads=1), path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("width", graph_file.LINKS)
def test_a_graph_of_more_levels_than_faiss_has_a_table_of_is_refused(tmp_path, width):
    """faiss reads past the end of its table then, and a search ends the process."""
    levels = np.full(20, graph_file.most_levels(width), np.uint8)
    for more, refused in ((0, False), (1, True)):
        links = np.zeros(graph_file.places(levels + more, width)[-1], np.int32)
        graph_file.save(tmp_path / "links", graph_file.Links(levels + more, links, np.array([0, width])))
        with pytest.raises(InputError, match="levels out of range") if refused else nullcontext():
            graph_file.load(tmp_path / "links", 20, "links")


def test_what_is_no_file_of_arrays_is_refused(gallery, tmp_path):
    path = tmp_path / "graph.safetensors"
    for content in (b"", b"\xff" * 100, b"IHNf" + bytes(200)):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as a graph"):
            Graph.load(Scan([gallery], threads=1), path)
    with pytest.raises(InputError, match="cannot be read as a graph"):
        Graph.load(Scan([gallery], threads=1), tmp_path / "none")
