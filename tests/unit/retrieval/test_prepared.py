"""Smoothing, expansion and the prepared gallery: against slow loops, bit for bit by row, and on thin galleries."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir.base.errors import InputError
from zsbir.retrieval import exact
from zsbir.retrieval.expansion import ASKED, expanded, most_results, result_weights
from zsbir.retrieval.options import PLAIN, SearchOptions
from zsbir.retrieval.prepared import mean_of_views, prepare_gallery, searching
from zsbir.retrieval.smoothing import FEWEST_DECOYS, TAIL, kinship, neighbours, smoothed
from zsbir.retrieval.whitening import measure_statistics, unit_rows

DIM = 24


def vectors(count, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(count, DIM)))


class World:
    """Sketches and photos of trained classes and of unseen ones: photos lie near their class, sketches less so."""

    def __init__(self, photos_each, classes=16, seed=0, trained_classes=80):
        random = np.random.default_rng(seed)
        centres = random.normal(size=(trained_classes + classes, DIM))
        offset = random.normal(size=DIM)

        def side(labels, noise, shift):
            return unit_rows(centres[labels] + noise * random.normal(size=(len(labels), DIM)) + shift)

        trained = np.repeat(np.arange(trained_classes), 4)
        self.statistics = measure_statistics(side(trained, 1.2, offset), trained, side(trained, 0.8, 0), trained)
        unseen = np.arange(trained_classes, trained_classes + classes)
        self.query_labels, self.labels = np.repeat(unseen, 6), np.repeat(unseen, photos_each)
        self.queries, self.gallery = side(self.query_labels, 1.2, offset), side(self.labels, 0.8, 0)

    def score(self, options):
        """Mean average precision."""
        prepared = prepare_gallery(self.gallery, options, self.statistics)
        found, _ = exact.search(prepared.queries(self.queries), prepared.vectors, len(self.labels))
        right = self.labels[found] == self.query_labels[:, None]
        precision = right.cumsum(axis=1) / np.arange(1, len(self.labels) + 1)
        return ((precision * right).sum(axis=1) / right.sum(axis=1)).mean()


def test_neighbours_are_the_nearest_others():
    gallery = vectors(600)
    ids, similarities = neighbours(gallery, 7, searching(gallery))
    cosines = exact.scores(gallery, gallery)
    for row in range(len(gallery)):
        others = [other for other in range(len(gallery)) if other != row]
        best = sorted(others, key=lambda other: (-cosines[row, other], other))[:7]
        assert ids[row].tolist() == best
        assert similarities[row].tolist() == cosines[row, best].tolist()


def test_copies_of_a_photo_are_neighbours_and_a_photo_is_never_its_own():
    gallery = np.concatenate([np.tile(vectors(1), (20, 1)), vectors(5, seed=1)])
    ids, similarities = neighbours(gallery, 4, searching(gallery))
    assert (ids != np.arange(25)[:, None]).all()
    assert (similarities[:20] == 1).all()
    assert neighbours(gallery[:3], 10, searching(gallery[:3]))[0].shape == (3, 2)


def slow_kinship(gallery, similarities, decoys, caution):
    """One number at a time, as the module's text describes it."""
    tail = min(TAIL, len(decoys) // 4)
    result = np.zeros(similarities.shape)
    for row, photo in enumerate(gallery.astype(float)):
        near = sorted((float(np.float32(photo @ decoy)) for decoy in decoys.astype(float)), reverse=True)
        threshold = near[tail - 1]
        spread = max(sum(value - threshold for value in near[:tail]) / max(tail - 1, 1), 1e-4)
        worst = 0.0
        for rank, similarity in enumerate(similarities[row].tolist(), start=1):
            if similarity >= threshold:
                share = tail / len(decoys) * math.exp(-(similarity - threshold) / spread)
            else:
                share = sum(value >= similarity for value in near) / len(decoys)
            worst = max(worst, caution * len(gallery) * share / rank)
            result[row, rank - 1] = min(max(1 - worst, 0), 1)
    return result


@pytest.mark.parametrize(("decoys", "caution"), [(100, 1.0), (100, 4.0), (FEWEST_DECOYS, 0.5)])
def test_kinship_is_what_the_slow_loop_finds(decoys, caution):
    world = World(photos_each=5)
    _, similarities = neighbours(world.gallery, 6, searching(world.gallery))
    strangers = world.statistics.decoys[:decoys]
    found = kinship(world.gallery, similarities, strangers, caution)
    slow = slow_kinship(world.gallery, similarities, strangers, caution)
    assert np.allclose(found, slow, atol=1e-4)
    assert 0.02 < slow.mean() < 0.98
    assert all((left >= right).all() for left, right in pairwise(found.T))


def test_without_caution_every_neighbour_counts_and_without_decoys_none():
    gallery = vectors(30)
    _, similarities = neighbours(gallery, 5, searching(gallery))
    assert (kinship(gallery, similarities, vectors(50, seed=1), 0.0) == 1).all()
    assert (kinship(gallery, similarities, vectors(FEWEST_DECOYS - 1, seed=1), 1.0) == 0).all()


def test_smoothed_rows_are_the_sum_written_out():
    gallery, random = vectors(400), np.random.default_rng(1)
    ids, weights = random.integers(0, 400, (400, 6)), random.random((400, 6)).astype(np.float32)
    found = smoothed(gallery, ids, weights)
    for row in range(400):
        total = gallery[row].astype(float) + sum(
            float(w) * gallery[i].astype(float) for i, w in zip(ids[row], weights[row], strict=True)
        )
        assert np.allclose(found[row], total / np.linalg.norm(total), atol=1e-6)
    assert (smoothed(gallery, ids, np.zeros_like(weights)) == unit_rows(gallery)).all()


def test_results_count_as_far_as_the_first_ones_have_kin():
    near = np.array([6, 3, 0, 9, 0], np.float32)
    found = np.array([[0, 1, 2, 3, 4], [2, 4, 2, 3, 3]])
    assert result_weights(near, found).tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert result_weights(np.array([2.5, 2.5, 2.5, 0], np.float32), np.array([[0, 1, 2, 3]])).tolist() == [[1, 1, 0.5, 0]]
    assert ASKED == 3


def test_expanded_queries_are_the_sum_written_out():
    gallery, queries = vectors(200), vectors(9, seed=1)
    near = np.random.default_rng(2).uniform(0, 6, 200).astype(np.float32)
    moved = expanded(queries, gallery, near, 8, searching(gallery))
    for row, query in enumerate(queries.astype(float)):
        order = sorted(range(200), key=lambda photo: (-exact.scores(queries[row : row + 1], gallery)[0, photo], photo))[:8]
        count = sum(float(near[photo]) for photo in order[:3]) / 3
        weights = [min(max(count - rank, 0), 1) for rank in range(8)]
        total = sum(w * gallery[photo].astype(float) for w, photo in zip(weights, order, strict=True))
        total = query + min(sum(weights), 1) * total / (np.linalg.norm(total) or 1)
        assert np.allclose(moved[row], total / np.linalg.norm(total), atol=1e-6)
    assert most_results(near, 10) == 6
    assert most_results(np.zeros(5, np.float32), 10) == 0


OPTIONS = st.builds(
    SearchOptions,
    flip=st.just(False),
    centring=st.sampled_from(["off", "centre", "whiten"]),
    smooth=st.integers(0, 12),
    expand=st.integers(0, 12),
    caution=st.sampled_from([0.0, 1.0, 4.0]),
)


@given(options=OPTIONS, photos_each=st.sampled_from([1, 2, 9]), seed=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_a_query_has_the_same_bits_alone_and_among_others(options, photos_each, seed):
    world = World(photos_each, classes=8, seed=seed)
    prepared = prepare_gallery(world.gallery, options, world.statistics)
    together = prepared.queries(world.queries)
    again = prepare_gallery(world.gallery.copy(), options, world.statistics)
    assert (again.vectors == prepared.vectors).all()
    assert (again.near == prepared.near).all()
    for row in (0, 5, len(world.queries) - 1):
        assert (prepared.queries(world.queries[row : row + 1]) == together[row : row + 1]).all()


def test_with_everything_off_the_embeddings_stay_as_they_are():
    world = World(3)
    prepared = prepare_gallery(world.gallery, PLAIN)
    assert prepared.vectors is world.gallery
    assert prepared.queries(world.queries) is world.queries
    assert (PLAIN.changes_ranking, PLAIN.needs_statistics, PLAIN.needs_neighbours, PLAIN.text()) == (False, False, False, "off")


def test_the_search_that_is_given_decides_by_which_photos_a_query_is_expanded():
    """As a service does it that searches among a filter's photos alone."""
    world = World(10)
    options = SearchOptions(flip=False, caution=0)
    prepared = prepare_gallery(world.gallery, options, world.statistics)
    mine = np.flatnonzero(world.labels % 2 == 0)

    def among(queries, k):
        found, scores = exact.search(queries, prepared.vectors[mine], k)
        return mine[found], scores

    moved = prepared.queries(world.queries, among)
    assert (moved != prepared.queries(world.queries)).any()
    everything = prepared.queries(world.queries, searching(prepared.vectors))
    assert (everything == prepared.queries(world.queries)).all()


def test_statistics_that_are_missing_are_named_with_the_way_out():
    with pytest.raises(InputError, match="--centring off --smooth 0 --expand 0"):
        prepare_gallery(vectors(5), SearchOptions())
    fixed = SearchOptions(centring="off", caution=0)
    assert len(prepare_gallery(vectors(5), fixed).vectors) == 5


@pytest.mark.parametrize("count", [1, 2])
def test_galleries_of_one_and_two_photos_can_be_searched(count):
    world = World(1)
    prepared = prepare_gallery(world.gallery[:count], SearchOptions(), world.statistics)
    assert np.isfinite(prepared.queries(world.queries)).all()


def test_a_gallery_of_many_photos_of_each_kind_gains_and_one_of_single_photos_is_left_alone():
    """What the rule is for; a fixed number of neighbours gains as much in the first and ruins the second."""
    careful, fixed = SearchOptions(centring="centre"), SearchOptions(centring="centre", caution=0)
    centred = SearchOptions(centring="centre", smooth=0, expand=0)
    many, single = World(photos_each=25), World(photos_each=1)
    gain = many.score(fixed) - many.score(centred)
    assert gain > 0.1
    assert many.score(careful) - many.score(centred) > 0.85 * gain
    loss = single.score(centred) - single.score(fixed)
    assert loss > 0.2
    assert single.score(centred) - single.score(careful) < 0.25 * loss


def test_the_mean_of_two_views_is_the_direction_between_them():
    one, two = vectors(5), vectors(5, seed=1)
    found = mean_of_views(np.concatenate([one, two], axis=1))
    assert np.allclose((found * one).sum(axis=1), (found * two).sum(axis=1), atol=1e-6)
    assert np.allclose((found * found).sum(axis=1), 1, atol=1e-6)
