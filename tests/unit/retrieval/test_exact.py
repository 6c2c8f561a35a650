import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir.base.errors import InputError
from zsbir.retrieval.exact import on_grid, positions_in, relevant_positions, scores, search


@pytest.fixture
def as_in_production():
    """Shapes unchecked, as outside tests: what a caller then gets for a wrong shape is our own error."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def unit_rows(seed, *shape):
    rows = np.random.default_rng(seed).standard_normal(shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def ranking_by_hand(row):
    return sorted(range(len(row)), key=lambda photo: (-float(row[photo]), photo))


def test_scores_are_cosines_to_float32_precision():
    queries, gallery = np.random.default_rng(0).standard_normal((7, 33)), np.random.default_rng(1).standard_normal((11, 33))
    expected = [[q @ g / np.linalg.norm(q) / np.linalg.norm(g) for g in gallery] for q in queries]
    assert scores(queries, gallery).dtype == np.float32
    np.testing.assert_allclose(scores(queries, gallery), expected, atol=6e-8)


def test_a_vector_scores_one_with_itself_and_minus_one_with_its_opposite():
    rows = unit_rows(0, 20, 512)
    np.testing.assert_allclose(np.diag(scores(rows, rows)), 1, atol=6e-8)
    np.testing.assert_allclose(np.diag(scores(rows, -rows)), -1, atol=6e-8)


def test_length_does_not_matter():
    queries, gallery = unit_rows(0, 5, 64).astype(np.float64), unit_rows(1, 9, 64)
    expected = scores(queries, gallery)
    for factor in (1e-38, 1e-3, 7.0, 1e38):
        np.testing.assert_allclose(scores(queries * factor, gallery), expected, atol=6e-8)


def test_scores_are_the_same_bits_in_any_block_and_with_any_number_of_threads():
    queries, gallery = unit_rows(0, 37, 512), unit_rows(1, 211, 512)
    whole = scores(queries, gallery)
    one_by_one = np.vstack([np.hstack([scores(queries[[q]], gallery[g : g + 13]) for g in range(0, 211, 13)]) for q in range(37)])
    np.testing.assert_array_equal(whole, one_by_one)
    threads = torch.get_num_threads()
    grids = [torch.from_numpy(on_grid(rows)).double() for rows in (queries, gallery)]
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            np.testing.assert_array_equal(whole, (grids[0] @ grids[1].T * 2.0**-52).float().numpy())
    finally:
        torch.set_num_threads(threads)


def test_scores_do_not_depend_on_the_order_of_the_dimensions():
    queries, gallery = unit_rows(0, 9, 2048), unit_rows(1, 50, 2048)
    order = np.random.default_rng(2).permutation(2048)
    np.testing.assert_array_equal(scores(queries, gallery), scores(queries[:, order], gallery[:, order]))


def test_the_grid_leaves_partial_sums_below_two_to_the_53_in_the_worst_case():
    for dimensions in (1, 512, 65536):
        row = on_grid(np.ones((1, dimensions))).astype(object)[0]
        assert sum(int(x) * int(x) for x in row) < 2**53


def test_a_zero_vector_scores_zero_with_everything():
    assert not scores(np.zeros((2, 8)), unit_rows(0, 3, 8)).any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 40), st.integers(1, 50))
def test_search_returns_the_head_of_the_ranking_made_by_hand(seed, queries, gallery, k):
    # Two dimensions of small whole numbers: many equal scores, so that the order of ties is tested too.
    random = np.random.default_rng(seed)
    q, g = random.integers(-2, 3, (queries, 2)).astype(np.float32), random.integers(-2, 3, (gallery, 2)).astype(np.float32)
    indices, best = search(q, g, k)
    block = scores(q, g)
    assert indices.shape == best.shape == (queries, min(k, gallery))
    assert indices.tolist() == [ranking_by_hand(row)[:k] for row in block]
    np.testing.assert_array_equal(best, np.take_along_axis(block, indices, axis=1))


def test_negative_zero_and_zero_are_one_score():
    positions, ties = positions_in(np.array([[0.0, -0.0, 0.0, -0.0]], np.float32), np.array([False, False, True, True]))
    assert positions.tolist() == [[3, 4]]
    assert ties.tolist() == [2]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 60), st.integers(1, 8))
def test_positions_and_ties_equal_those_counted_by_hand(seed, queries, gallery, levels):
    random = np.random.default_rng(seed)
    block = (random.integers(0, levels, (queries, gallery)) / 7 - 0.5).astype(np.float32)
    relevant = random.random(gallery) < 0.4
    positions, ties = positions_in(block, relevant)
    for row, found, tied in zip(block, positions, ties, strict=True):
        assert found.tolist() == [rank for rank, photo in enumerate(ranking_by_hand(row), 1) if relevant[photo]]
        shared = set(row[~relevant].tolist())
        assert tied == sum(score in shared for score in row[relevant].tolist())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60), st.integers(0, 2**32))
def test_positions_are_right_for_scores_of_any_spread_down_to_the_smallest_floats(values, seed):
    row = np.array([values], np.float32)
    relevant = np.random.default_rng(seed).random(len(values)) < 0.5
    positions, _ = positions_in(row, relevant)
    assert positions[0].tolist() == [rank for rank, photo in enumerate(ranking_by_hand(row[0]), 1) if relevant[photo]]


@pytest.mark.parametrize("relevant_share", [0.001, 0.03, 0.9])
def test_positions_equal_those_of_whole_sorted_rows_in_a_large_gallery(relevant_share):
    random = np.random.default_rng(4)
    block = (random.standard_t(2, (6, 20000)) / 100).clip(-1, 1).astype(np.float32)
    relevant = random.random(20000) < relevant_share
    positions, _ = positions_in(block, relevant)
    for row, found in zip(block, positions, strict=True):
        np.testing.assert_array_equal(found, np.flatnonzero(relevant[np.argsort(-row, kind="stable")]) + 1)


def test_positions_depend_neither_on_the_chunk_size_nor_on_the_number_of_threads():
    random = np.random.default_rng(3)
    queries, gallery = unit_rows(0, 31, 16), unit_rows(1, 80, 16)
    query_labels, gallery_labels = random.integers(0, 4, 31), random.integers(0, 4, 80)

    def ranks(chunk_pairs, threads=1):
        torch.set_num_threads(threads)
        found = relevant_positions(queries, query_labels, gallery, gallery_labels, chunk_pairs=chunk_pairs)
        return {
            int(row): (tuple(positions), int(tied))
            for part in found
            for row, positions, tied in zip(part.rows, part.positions, part.ties, strict=True)
        }

    threads = torch.get_num_threads()
    try:
        whole = ranks(1 << 20)
        assert sorted(whole) == list(range(31))
        assert whole == ranks(1) == ranks(80 * 7) == ranks(1 << 20, threads=3)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("queries", "gallery", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "3 dimensions, the gallery 4"),
        (np.ones((0, 3)), np.ones((2, 3)), "queries: expected a matrix of at least one row"),
        (np.ones((2, 3)), np.ones(3), "gallery: expected a matrix"),
        (np.ones((2, 3)), np.array([[1, 2, 3], [1, np.nan, 0]]), "gallery: row 1 holds NaN"),
        (np.full((1, 3), np.inf), np.ones((2, 3)), "queries: row 0 holds NaN or infinity"),
    ],
)
def test_input_that_cannot_be_ranked_is_refused_with_the_reason(as_in_production, queries, gallery, message):
    for refuse in (scores, lambda q, g: search(q, g, 1)):
        with pytest.raises(InputError, match=message):
            refuse(queries, gallery)


def test_k_below_one_is_refused():
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        search(np.ones((1, 2)), np.ones((1, 2)), 0)
