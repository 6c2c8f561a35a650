"""The scan against the exact search, bit for bit, on vectors of every kind; and bounds that are too small are noticed."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir.base.errors import InputError
from zsbir.retrieval import estimates, exact, int8, leaders, scan
from zsbir.retrieval.scan import Scan

KINDS = ["random", "clustered", "duplicated", "near ties", "on the grid", "lattice", "zeros", "lengths", "spiky", "one direction"]


def galleries(kind, random, rows, dimensions):
    """Vectors of a kind, and a vector that queries are made from."""
    normal = random.standard_normal((rows, dimensions))
    centres = random.standard_normal((3, dimensions))
    if kind == "clustered":
        normal = centres[random.integers(0, 3, rows)] + 0.3 * normal
    elif kind == "duplicated":
        normal = centres[random.integers(0, 3, rows)] * random.choice([1, 2, 0.37], (rows, 1))
    elif kind == "near ties":
        normal = centres[0] + 1e-7 * np.abs(centres[0]).max() * normal
    elif kind == "on the grid":
        normal = centres[0] + 2.0**-27 * random.integers(-1, 2, normal.shape)
    elif kind == "lattice":
        normal = random.integers(-2, 3, (rows, dimensions)).astype(float)
    elif kind == "zeros":
        normal[random.random(rows) < 0.5] = 0
    elif kind == "lengths":
        normal *= 10.0 ** random.integers(-44, 37, (rows, 1))
    elif kind == "spiky":
        normal[:, random.integers(dimensions)] += 100
    elif kind == "one direction":
        normal = np.abs(normal) + 50
    return normal.astype(np.float32), centres[0].astype(np.float32)


def in_parts(vectors, random):
    cuts = np.sort(random.integers(0, len(vectors) + 1, random.integers(0, 4)))
    return np.split(vectors, cuts)


def the_same(found, expected, rows=None):
    """Assert that ids, order and bits of the scores are those expected, whose ids count `rows` alone."""
    ids, scores = found
    expected_ids, expected_scores = expected
    np.testing.assert_array_equal(ids, expected_ids if rows is None else rows[expected_ids])
    np.testing.assert_array_equal(scores + np.float32(0), expected_scores + np.float32(0))
    assert ids.dtype == np.int64
    assert scores.dtype == np.float32


@pytest.fixture(autouse=True)
def estimates_decide(monkeypatch):
    """In galleries as small as these all would be scored exactly: let estimates decide instead, in blocks of a few rows."""
    monkeypatch.setattr(scan, "MANY_WANTED", 1)
    monkeypatch.setattr(scan, "MANY_LEFT", 1)
    monkeypatch.setattr(scan, "FIRST_ROWS", 5)
    monkeypatch.setattr(scan, "SMALL", 0)


@pytest.mark.parametrize("codes", [True, False], ids=["codes", "floats"])
@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 150),
    dimensions=st.sampled_from([1, 2, 3, 8, 64, 257]),
    queries=st.sampled_from([1, 2, 5]),
    k=st.integers(1, 170),
    masks=st.sampled_from([None, "alive", "among", "both"]),
)
def test_answers_are_those_of_the_exact_search(codes, kind, seed, rows, dimensions, queries, k, masks):
    random = np.random.default_rng(seed)
    gallery, centre = galleries(kind, random, rows, dimensions)
    asked = (centre + random.choice([0, 1e-7, 0.5]) * random.standard_normal((queries, dimensions))).astype(np.float32)
    asked[0] = gallery[random.integers(rows)] if random.random() < 0.3 else asked[0]
    alive = random.random(rows) < 0.7 if masks in ("alive", "both") else None
    among = random.random(rows) < random.choice([0.05, 0.5]) if masks in ("among", "both") else None
    searched = Scan(in_parts(gallery, random), alive=alive, codes=codes, threads=2)
    found = searched.search(asked, k, among=among)
    left = np.flatnonzero((True if alive is None else alive) & np.full(rows, True) & (True if among is None else among))
    if not len(left):
        assert found[0].shape == found[1].shape == (queries, 0)
        return
    the_same(found, exact.search(asked, gallery[left], k), left)


@pytest.mark.parametrize("codes", [True, False], ids=["codes", "floats"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_gallery_at_the_limits_of_production(monkeypatch, kind, codes):
    for name, value in [("MANY_WANTED", 8), ("MANY_LEFT", 8), ("FIRST_ROWS", 512)]:
        monkeypatch.setattr(scan, name, value)
    random = np.random.default_rng(1)
    gallery, centre = galleries(kind, random, 6000, 48)
    asked = (centre + 0.3 * random.standard_normal((70, 48))).astype(np.float32)
    searched = Scan([gallery[:1000], gallery[1000:]], codes=codes, threads=2)
    for some, k in [(asked[:1], 10), (asked, 3), (asked[:2], 1000)]:
        the_same(searched.search(some, k), exact.search(some, gallery, k))


def test_vectors_sorted_by_class_and_a_filter_for_one_class():
    random = np.random.default_rng(2)
    labels = np.sort(random.integers(0, 20, 3000))
    gallery = (random.standard_normal((20, 32))[labels] + 0.4 * random.standard_normal((3000, 32))).astype(np.float32)
    searched = Scan([gallery])
    for label in (0, 7, 19):
        rows = np.flatnonzero(labels == label)
        the_same(searched.search(gallery[::700], 5, among=labels == label), exact.search(gallery[::700], gallery[rows], 5), rows)


def test_a_query_of_zeros_finds_the_first_rows_beside_one_that_finds_the_best():
    gallery = np.random.default_rng(3).standard_normal((200, 16)).astype(np.float32)
    asked = np.stack([np.zeros(16, np.float32), gallery[100]])
    the_same(Scan([gallery]).search(asked, 4), exact.search(asked, gallery, 4))


def test_codes_exclude_nearly_all_and_floats_nearly_all_of_the_rest():
    """Else a search would be right and slow."""
    random = np.random.default_rng(4)
    gallery = random.standard_normal((20_000, 256)).astype(np.float32)
    searched = Scan([gallery])
    grid = exact.on_grid(random.standard_normal((3, 256)).astype(np.float32))
    if int8.library() is not None:
        left = searched._leaders(searched._by_codes, grid, 10, 20_000, None).rows()
        assert all(10 <= len(rows) < 400 for rows in left)
        assert all(10 <= len(rows) < 13 for rows in searched._closer(grid, left, 10))
    assert all(10 <= len(rows) < 13 for rows in searched._leaders(searched._by_floats, grid, 10, 20_000, None).rows())


@pytest.mark.skipif(int8.library() is None, reason="no int8 products on this machine")
def test_codes_that_leave_too_many_rows_hand_over_to_the_floats(monkeypatch):
    random = np.random.default_rng(5)
    gallery = (np.ones(64) + 1e-4 * random.standard_normal((500, 64))).astype(np.float32)
    asked = np.ones((2, 64), np.float32)
    monkeypatch.setattr(scan, "MANY_LEFT", 8)
    searched = Scan([gallery])
    grid = exact.on_grid(asked)
    assert searched._leaders(searched._by_codes, grid, 3, 500 // 8, None).rows() == [None, None]
    the_same(searched.search(asked, 3), exact.search(asked, gallery, 3))


def test_what_no_estimate_can_order_is_scored_exactly_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(scan, "MOST_PAIRS", 50)
    random = np.random.default_rng(6)
    gallery = (np.ones(16) + 1e-7 * random.standard_normal((400, 16))).astype(np.float32)
    asked = np.ones((3, 16), np.float32)
    the_same(Scan([gallery]).search(asked, 5), exact.search(asked, gallery, 5))


def test_many_threads_may_search_at_once():
    random = np.random.default_rng(7)
    gallery, asked = random.standard_normal((2000, 24)).astype(np.float32), random.standard_normal((40, 24)).astype(np.float32)
    searched = Scan([gallery], threads=3)
    expected = exact.search(asked, gallery, 6)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: searched.search(asked[number : number + 1], 6), range(40)))
    the_same((np.concatenate([ids for ids, _ in found]), np.concatenate([scores for _, scores in found])), expected)


def test_vectors_are_read_from_files_that_are_mapped(tmp_path):
    gallery = np.random.default_rng(8).standard_normal((300, 20)).astype(np.float32)
    for number, part in enumerate(np.split(gallery, [120])):
        np.save(tmp_path / f"{number}.npy", part)
    parts = [np.load(tmp_path / f"{number}.npy", mmap_mode="r") for number in range(2)]
    the_same(Scan(parts).search(gallery[5:7], 9), exact.search(gallery[5:7], gallery, 9))


def test_memory_is_a_quarter_of_the_vectors_and_a_little():
    gallery = np.random.default_rng(9).standard_normal((1000, 512)).astype(np.float32)
    bytes_a_row = 512 + 12 if int8.library() is not None else 4
    assert Scan([gallery]).memory_bytes == 1000 * bytes_a_row
    assert Scan([gallery], codes=False).memory_bytes == 4000


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "at least one row"),
        ([np.zeros((0, 4), np.float32)], "at least one row"),
        ([np.ones((2, 4), np.float32), np.ones((2, 5), np.float32)], "matrices of one width"),
        ([np.ones((300, 2), np.float32), np.array([[1, np.nan]], np.float32)], "gallery: row 300 holds NaN"),
    ],
)
def test_galleries_that_cannot_be_searched_are_refused(as_in_production, parts, message):
    with pytest.raises(InputError, match=message):
        Scan(parts)


def test_questions_that_make_no_sense_are_refused(as_in_production):
    gallery = np.ones((5, 4), np.float32)
    searched = Scan([gallery])
    for message, ask in [
        ("k must be at least 1, got 0", lambda: searched.search(gallery[:1], 0)),
        ("queries have 3 dimensions, the gallery 4", lambda: searched.search(gallery[:1, :3], 1)),
        ("queries: row 0 holds NaN", lambda: searched.search(np.full((1, 4), np.inf, np.float32), 1)),
        ("among: expected 5 values", lambda: searched.search(gallery[:1], 1, among=np.ones(4, bool))),
        ("alive: expected 5 values", lambda: Scan([gallery], alive=np.ones(6, bool))),
    ]:
        with pytest.raises(InputError, match=message):
            ask()


# What follows looks at the bounds themselves, with sums of Python's whole numbers, which are exact.


def sums(grid_queries, grid):
    """w.u, exact: whole numbers in units of 2^-52, which float64 holds."""
    return np.array(
        [[float(sum(a * b for a, b in zip(q, u, strict=True))) * 2.0**-52 for q in grid_queries] for u in grid.tolist()]
    )


@pytest.mark.parametrize("by", ["codes", "floats"])
@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32), dimensions=st.sampled_from([1, 2, 7, 64, 300]))
def test_no_estimate_is_further_from_the_sum_than_it_says(by, kind, seed, dimensions):
    if by == "codes" and int8.library() is None:
        pytest.skip("no int8 products on this machine")
    random = np.random.default_rng(seed)
    gallery, centre = galleries(kind, random, 20, dimensions)
    searched = Scan([gallery])
    estimate = searched._by_codes if by == "codes" else searched._by_floats
    grid = exact.on_grid((centre + 0.1 * random.standard_normal((3, dimensions))).astype(np.float32))
    asked = estimate.ask(grid)
    right = sums(grid.tolist(), exact.on_grid(gallery))
    for where in (slice(0, 20), np.arange(20)):
        middle = asked.t * estimate.values(where, asked).astype(np.float64)
        assert (np.abs(middle - right) <= asked.a + asked.b * estimate.errors(where)[:, None]).all()
    if by == "floats":
        rows, queries = np.divmod(np.arange(60), 3)
        values, errors = estimate.pairs(rows, queries, asked)
        assert (np.abs(values - right.ravel()) <= asked.a[queries] + errors).all()


@pytest.mark.skipif(int8.library() is None, reason="no int8 products on this machine")
def test_the_bound_of_the_codes_is_nearly_reached():
    """So one that is a tenth smaller is noticed: in two dimensions what rounding leaves out often points along the other vector."""
    random = np.random.default_rng(13)
    gallery, asked_for = random.standard_normal((3000, 2)).astype(np.float32), random.standard_normal((60, 2)).astype(np.float32)
    estimate, grid = Scan([gallery])._by_codes, exact.on_grid(asked_for)
    asked = estimate.ask(grid)
    right = (exact.on_grid(gallery) * 2.0**-52) @ grid.T.astype(float)
    off = np.abs(asked.t * estimate.values(slice(0, 3000), asked).astype(np.float64) - right)
    share = off / (asked.a + asked.b * estimate.errors(slice(0, 3000))[:, None])
    assert 0.9 < share.max() <= 1


def wrong_answers(gallery, asked, k=3):
    """How many of the queries are answered otherwise than exactly."""
    found, expected = Scan([gallery], threads=1).search(asked, k)[0], exact.search(asked, gallery, k)[0]
    return int((found != expected).any(axis=1).sum())


def without(monkeypatch, estimate, part):
    ask = estimate.ask

    def reduced(self, grid):
        asked = ask(self, grid)
        return asked._replace(**{part: 0 * asked.a})

    monkeypatch.setattr(estimate, "ask", reduced)


@pytest.mark.skipif(int8.library() is None, reason="no int8 products on this machine")
@pytest.mark.parametrize("part", ["a", "b"])
def test_without_either_half_of_the_bound_of_the_codes_answers_are_wrong(monkeypatch, part):
    """One side are whole numbers up to 127, which codes hold without an error: all of it is the other side's."""
    random = np.random.default_rng(10)
    whole, other = random.integers(-127, 128, 8) + random.integers(-2, 3, (400, 8)), random.standard_normal((400, 8))
    whole[:, 0] = 127
    other = whole[0] + 5 * other
    gallery, asked = (whole, other) if part == "a" else (other, whole)
    gallery, asked = gallery.astype(np.float32), asked[:100].astype(np.float32)
    assert wrong_answers(gallery, asked) == 0
    without(monkeypatch, estimates.ByCodes, part)
    assert wrong_answers(gallery, asked) > 0


def test_without_the_bound_of_the_floats_answers_are_wrong(monkeypatch):
    random = np.random.default_rng(11)
    gallery = (random.standard_normal(64) + 1e-6 * random.standard_normal((400, 64))).astype(np.float32)
    asked = (gallery[:100] + 0.1 * random.standard_normal((100, 64))).astype(np.float32)
    assert wrong_answers(gallery, asked) == 0
    without(monkeypatch, estimates.ByFloats, "a")
    monkeypatch.setattr(leaders, "SAME_SCORE", 0.0)
    assert wrong_answers(gallery, asked) > 0


def test_sums_that_differ_by_less_than_a_float32_keep_gallery_order():
    """Of two rows whose sums round to one score the earlier one is first, even where its sum is smaller."""
    found = leaders.Leaders(1, 1, 10)
    sums_of = np.array([0.75 - 2.0**-25, 0.75])
    assert np.float32(sums_of[0]) == np.float32(sums_of[1])
    found.offer(np.zeros(2, np.int64), np.arange(2), sums_of, np.zeros(2))
    assert found.rows()[0].tolist() == [0, 1]


def test_leaders_keep_what_a_slow_look_at_all_of_them_keeps():
    random = np.random.default_rng(12)
    queries, rows, k = 3, 500, 7
    middle, error = random.uniform(-1, 1, (rows, queries)), random.uniform(0, 0.1, (rows, queries))
    offered = leaders.Leaders(queries, k, rows)
    for start in range(0, rows, 50):
        r, q = (part.ravel() for part in np.meshgrid(np.arange(start, start + 50), np.arange(queries), indexing="ij"))
        offered.offer(q, r, middle[r, q], error[r, q])
    for query, kept in enumerate(offered.rows()):
        floor = np.sort(middle[:, query] - error[:, query])[-k] - leaders.SAME_SCORE
        assert kept.tolist() == np.flatnonzero(middle[:, query] + error[:, query] >= floor).tolist()
        assert offered.floors[query] == pytest.approx(floor, abs=1e-12)


@pytest.fixture
def as_in_production():
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
