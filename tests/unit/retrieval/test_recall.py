"""What is asked of an index, against rankings one can count."""

import numpy as np
import pytest

from zsbir.retrieval.exact import search
from zsbir.retrieval.recall import find_themselves, obvious_scores, recall_at


def vectors(count, dim=16, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def test_obvious_scores_are_cosines_one_by_one():
    queries, gallery = vectors(3), vectors(5, seed=1) * 7
    found = obvious_scores(queries, gallery)
    for q in range(3):
        for g in range(5):
            one, two = queries[q].astype(float), gallery[g].astype(float)
            assert found[q, g] == pytest.approx(sum(one * two) / (sum(one * one) * sum(two * two)) ** 0.5, abs=1e-12)
    assert (obvious_scores(np.zeros((1, 16), np.float32), gallery) == 0).all()


def test_exact_search_has_full_recall():
    queries, gallery = vectors(20), vectors(300, seed=1)
    found, _ = search(queries, gallery, 10)
    assert (recall_at(found, queries, gallery) == 1).all()


def test_recall_counts_results_that_belong():
    queries, gallery = vectors(1), vectors(50, seed=1)
    order = np.argsort(-obvious_scores(queries, gallery)[0])
    for wrong in range(5):
        found = np.concatenate([order[: 10 - wrong], order[40 : 40 + wrong]])[None]
        assert recall_at(found, queries, gallery)[0] == (10 - wrong) / 10


def test_of_equals_at_the_end_any_belongs_but_a_repeated_one_counts_once():
    gallery = np.stack([vectors(1)[0]] * 4 + [-vectors(1)[0]])
    queries = vectors(1)
    for pair in ([0, 1], [2, 3], [3, 0]):
        assert recall_at(np.array([pair]), queries, gallery)[0] == 1
    assert recall_at(np.array([[2, 2]]), queries, gallery)[0] == 0.5
    assert recall_at(np.array([[2, 4]]), queries, gallery)[0] == 0.5


def test_photos_find_themselves_beside_duplicates():
    gallery = np.concatenate([vectors(30), vectors(30)])
    places = np.array([0, 7, 31, 59])
    assert find_themselves(gallery[places] + np.float32(1e-5), places, gallery, 1e-5).all()


def test_a_shuffled_or_a_constant_index_is_found_out():
    gallery, places = vectors(30), np.arange(30)
    shuffled = np.roll(gallery, 1, axis=0)
    assert not find_themselves(gallery, places, shuffled, 1e-3).any()
    constant = np.repeat(gallery[:1], 30, axis=0)
    assert find_themselves(gallery, places, constant, 1e-3).tolist() == [True] + [False] * 29


def test_one_wrong_vector_is_one_lost_photo_and_zeros_are_like_nothing():
    gallery, places = vectors(30), np.arange(30)
    damaged = gallery.copy()
    damaged[13] = damaged[14]
    assert np.flatnonzero(~find_themselves(gallery, places, damaged, 1e-3)).tolist() == [13]
    assert not find_themselves(np.zeros_like(gallery), places, gallery, 1e-3).any()


def test_the_tolerance_is_of_the_cosine():
    one, other = np.array([[1.0, 0.0]], np.float32), np.array([[np.cos(0.1), np.sin(0.1)]], np.float32)
    assert find_themselves(one, np.array([0]), other, 0.0051).all()
    assert not find_themselves(one, np.array([0]), other, 0.0049).any()
