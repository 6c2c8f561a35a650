import itertools

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student_t
from sklearn.metrics import average_precision_score

from zsbir.base.errors import InputError
from zsbir.evaluation import metrics
from zsbir.evaluation.metrics import (
    METRICS,
    chance_ap,
    chance_map,
    evaluate_embeddings,
    map_at,
    metrics_of,
    precision_at,
)
from zsbir.retrieval.exact import scores


@pytest.fixture
def as_in_production():
    """Shapes unchecked, as outside tests: what a caller then gets for a wrong shape is our own error."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def problem(seed=0, queries=40, gallery=300, dimensions=8, classes=5):
    """Classes are clouds around random centres, so that rankings are neither perfect nor random."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((classes, dimensions))
    query_labels = random.integers(classes, size=queries)
    gallery_labels = np.concatenate([np.arange(classes), random.integers(classes, size=gallery - classes)])
    noise = random.standard_normal((queries + gallery, dimensions))
    return (
        (centres[query_labels] + noise[:queries]).astype(np.float32),
        query_labels,
        (centres[gallery_labels] + noise[queries:]).astype(np.float32),
        gallery_labels,
    )


def metrics_by_hand(relevance):
    """Every metric of one ranking, the slow way: one definition after the other, as the papers' code has them."""
    total = sum(relevance)

    precision_at_rank = [found / rank for rank, found in enumerate(itertools.accumulate(relevance), 1)]

    def precision(rank):
        return precision_at_rank[rank - 1]

    def hits(cut):
        return [rank for rank in range(1, min(cut, len(relevance)) + 1) if relevance[rank - 1]]

    def envelope(rank, cut):
        return max(precision(later) for later in range(rank, min(cut, len(relevance)) + 1))

    everything, k200 = len(relevance), min(200, len(relevance))
    at_200 = sum(precision(rank) for rank in hits(200))
    found = {k: len(hits(k)) for k in (100, 200)}
    found_min = {k: len(hits(min(k, total))) for k in (100, 200)}
    return {
        "map_all": sum(precision(rank) for rank in hits(everything)) / total,
        "map_all_voc": sum(envelope(rank, everything) for rank in hits(everything)) / total,
        "map_at_200_min": at_200 / min(k200, total),
        "map_at_200_min_voc": sum(envelope(rank, 200) for rank in hits(200)) / min(k200, total),
        "map_at_200_hits": at_200 / max(1, len(hits(200))),
        "map_at_200_k": at_200 / k200,
        "p_at_100": found[100] / min(100, len(relevance)),
        "p_at_200": found[200] / k200,
        "p_at_100_min": found_min[100] / min(100, total),
        "p_at_200_min": found_min[200] / min(200, total),
    }


def metrics_of_ranking(relevance):
    positions = np.flatnonzero(relevance)[None, :] + 1
    return {name: values[0] for name, values in metrics_of(positions, len(relevance)).items()}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 450), st.floats(0.005, 0.99))
def test_every_metric_equals_its_definition_computed_by_hand(seed, length, share):
    relevance = (np.random.default_rng(seed).random(length) < share).astype(int)
    relevance[seed % length] = 1
    found, expected = metrics_of_ranking(relevance), metrics_by_hand(relevance.tolist())
    assert list(found) == list(METRICS)
    assert found == pytest.approx(expected, abs=1e-12)


PARITY = [1, 0, 1, 0, 0, 1, 0, 0, 1, 1]


def test_the_parity_vector_gives_the_known_average_precisions():
    found = metrics_of_ranking(PARITY)
    assert found["map_all"] == pytest.approx(0.622222, abs=1e-6)
    assert found["map_all_voc"] == pytest.approx(0.633333, abs=1e-6)


def test_the_parity_vector_at_4_and_8_gives_the_known_values_by_divisor():
    positions = np.flatnonzero(PARITY)[None, :] + 1
    at_4, at_8 = map_at(positions, 4, 10), precision_at(positions, 8, 10)
    assert at_4["map_at_4_min"] == pytest.approx(0.416667, abs=1e-6)
    assert at_4["map_at_4_k"] * 4 / 5 == pytest.approx(0.333333, abs=1e-6)  # divided by R = 5
    assert at_4["map_at_4_hits"] == pytest.approx(0.833333, abs=1e-6)
    assert at_8["p_at_8"] == pytest.approx(0.375)
    assert at_8["p_at_8_min"] == pytest.approx(0.4)


def test_a_perfect_ranking_scores_one_in_every_metric_but_those_divided_by_k():
    found = metrics_of_ranking([1] * 30 + [0] * 400)
    divided_by_k = {"map_at_200_k": 30 / 200, "p_at_100": 30 / 100, "p_at_200": 30 / 200}
    assert found == pytest.approx(dict.fromkeys(METRICS, 1.0) | divided_by_k)


def test_a_query_without_a_hit_in_the_first_200_scores_zero_there():
    found = metrics_of_ranking([0] * 200 + [1])
    assert found["map_all"] == pytest.approx(1 / 201)
    assert not any(found[name] for name in METRICS if "200" in name or "100" in name)


def test_the_divisor_alone_changes_map_at_200_from_strict_to_lenient():
    relevance = np.zeros(17101, int)
    relevance[np.random.default_rng(0).choice(400, 220, replace=False)] = 1
    relevance[-464:] = 1
    found = metrics_of_ranking(relevance)
    assert found["map_at_200_k"] == found["map_at_200_min"] < found["map_at_200_hits"]


def test_map_all_equals_scikit_learn():
    query, query_labels, gallery, gallery_labels = problem()
    found = evaluate_embeddings(query, query_labels, gallery, gallery_labels)
    block = scores(query, gallery)
    expected = [average_precision_score(gallery_labels == label, row) for label, row in zip(query_labels, block, strict=True)]
    assert found.ties == 0
    np.testing.assert_allclose(found.per_query["map_all"], expected, atol=1e-12)


def test_every_metric_from_embeddings_equals_the_one_from_rankings_sorted_by_hand():
    query, query_labels, gallery, gallery_labels = problem(seed=1)
    found = evaluate_embeddings(query, query_labels, gallery, gallery_labels)
    for row, label in enumerate(query_labels):
        ranking = sorted(range(len(gallery)), key=lambda photo, row=row: (-scores(query[[row]], gallery[[photo]])[0, 0], photo))
        expected = metrics_by_hand([int(gallery_labels[photo] == label) for photo in ranking])
        assert {name: values[row] for name, values in found.per_query.items()} == pytest.approx(expected, abs=1e-12)


def test_results_are_the_same_bits_for_every_chunk_size_and_order_of_queries():
    query, query_labels, gallery, gallery_labels = problem(seed=2)
    whole = evaluate_embeddings(query, query_labels, gallery, gallery_labels)
    order = np.random.default_rng(0).permutation(len(query))
    for chunk_pairs in (1, 300 * 3, 300 * 7):
        part = evaluate_embeddings(query[order], query_labels[order], gallery, gallery_labels, chunk_pairs=chunk_pairs)
        for name in METRICS:
            np.testing.assert_array_equal(part.per_query[name], whole.per_query[name][order])
        assert part.ties == whole.ties
        np.testing.assert_allclose(part.pr_curve, whole.pr_curve, atol=1e-7)


def test_ties_are_broken_by_gallery_order_and_counted():
    same = np.ones((1, 4), np.float32)
    labels = np.array([0, 1, 0, 1, 1])
    found = evaluate_embeddings(same, np.array([1]), np.repeat(same, 5, axis=0), labels)
    assert found.ties == 3
    assert found.per_query["map_all"][0] == pytest.approx(metrics_by_hand(labels.tolist())["map_all"])


def test_equal_scores_among_relevant_photos_alone_are_no_ties():
    gallery = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert evaluate_embeddings(gallery[:1], np.array([0]), gallery, np.array([0, 0, 1])).ties == 0


def test_macro_is_the_mean_of_class_means_and_micro_the_mean_over_queries():
    query, query_labels, gallery, gallery_labels = problem(seed=3)
    found = evaluate_embeddings(query, query_labels, gallery, gallery_labels)
    summary, rows = found.summary(), found.per_class()
    for name in METRICS:
        values = found.per_query[name]
        means = [values[query_labels == label].mean() for label in sorted(set(query_labels.tolist()))]
        assert summary[name] == pytest.approx(values.mean())
        assert summary[f"{name}/macro"] == pytest.approx(np.mean(means))
        assert [row[name] for row in rows] == pytest.approx(means)


def test_the_class_table_counts_queries_and_relevant_photos():
    query, query_labels, gallery, gallery_labels = problem(seed=3)
    for row in evaluate_embeddings(query, query_labels, gallery, gallery_labels).per_class():
        assert row["queries"] == (query_labels == row["class_id"]).sum()
        assert row["relevant"] == (gallery_labels == row["class_id"]).sum()


def test_the_curve_has_a_hundred_steps_of_recall_from_zero_to_one():
    assert metrics.RECALLS.tolist() == [step / 100 for step in range(101)]


def test_the_curve_equals_mean_precision_at_each_recall_computed_by_hand():
    query, query_labels, gallery, gallery_labels = problem(seed=4, queries=6, gallery=120)
    curve = evaluate_embeddings(query, query_labels, gallery, gallery_labels).pr_curve
    raw, interpolated = np.zeros((2, 101))
    for row, label in zip(scores(query, gallery), query_labels, strict=True):
        relevance = (gallery_labels == label)[np.argsort(-row, kind="stable")]
        found, ranks = np.cumsum(relevance), np.arange(1, len(relevance) + 1)
        for i in range(101):
            reached = (found * 100 >= i * relevance.sum()) & (found > 0)
            raw[i] += (found / ranks)[reached][0] / len(query)
            interpolated[i] += (found / ranks)[reached].max() / len(query)
    np.testing.assert_allclose(curve.raw, raw, atol=1e-6)
    np.testing.assert_allclose(curve.interpolated, interpolated, atol=1e-6)
    assert (np.diff(curve.interpolated) <= 1e-7).all()


def test_the_interval_holds_the_mean_and_is_over_classes():
    found = evaluate_embeddings(*problem(seed=5, queries=50))
    for name in ("map_all", "map_all/macro", "p_at_100"):
        mean, low, high, _ = found.interval(name)
        assert mean == pytest.approx(found.summary()[name])
        assert low < mean < high
        assert found.interval(name, level=0.5).high < high
    means = [row["map_all"] for row in found.per_class()]
    half = student_t.ppf(0.975, len(means) - 1) * np.std(means, ddof=1) / np.sqrt(len(means))
    assert found.interval("map_all/macro").high == pytest.approx(np.mean(means) + half)


def test_one_class_has_no_interval():
    found = evaluate_embeddings(np.eye(3), np.zeros(3, int), np.eye(3), np.array([0, 0, 1]))
    assert found.interval("map_all") is None


@pytest.mark.parametrize(("relevant", "gallery"), [(1, 1), (1, 7), (3, 10), (10, 10), (5, 200)])
def test_the_chance_level_equals_the_average_of_random_rankings(relevant, gallery):
    random = np.random.default_rng(0)
    shuffled = random.permuted(np.tile(np.arange(gallery) < relevant, (20000, 1)), axis=1)
    positions = np.nonzero(shuffled)[1].reshape(20000, relevant) + 1
    values = metrics_of(positions, gallery)["map_all"]
    assert chance_ap(relevant, gallery) == pytest.approx(values.mean(), abs=4 * values.std() / np.sqrt(20000) + 1e-12)


def test_the_chance_level_of_a_set_is_the_mean_over_its_queries():
    assert chance_map(np.array([0, 0, 1]), np.array([0, 1, 1, 1])) == pytest.approx((2 * chance_ap(1, 4) + chance_ap(3, 4)) / 3)


def test_an_unknown_metric_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match="did you mean 'map_all'"):
        evaluate_embeddings(*problem()).interval("map_al")


def test_a_query_class_without_gallery_photos_is_named():
    with pytest.raises(InputError, match="class 7 has 2 queries but no photo in the gallery"):
        evaluate_embeddings(np.ones((3, 2)), np.array([7, 1, 7]), np.ones((2, 2)), np.array([1, 2]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((0, 2)), np.array([], int), np.ones((1, 2)), np.array([0])), "no query to evaluate"),
        ((np.ones((1, 2)), np.array([0]), np.ones((0, 2)), np.array([], int)), "no gallery to evaluate"),
        ((np.ones((2, 2)), np.array([0]), np.ones((1, 2)), np.array([0])), "2 query embeddings, but 1 query labels"),
        ((np.ones((1, 2)), np.array([0.5]), np.ones((1, 2)), np.array([0])), "expected one whole number each"),
        ((np.ones((1, 2)), np.array([0]), np.ones((1, 3)), np.array([0])), "2 dimensions, the gallery 3"),
        ((np.full((1, 2), np.nan), np.array([0]), np.ones((1, 2)), np.array([0])), "queries: row 0 holds NaN"),
    ],
)
def test_input_that_cannot_be_evaluated_is_refused_with_the_reason(as_in_production, arguments, message):
    with pytest.raises(InputError, match=message):
        evaluate_embeddings(*arguments)


def test_progress_is_told_on_standard_error_when_asked_for(capsys):
    evaluate_embeddings(*problem(), progress=True)
    assert "rank: 40 rankings in" in capsys.readouterr().err
    evaluate_embeddings(*problem())
    assert capsys.readouterr().err == ""
