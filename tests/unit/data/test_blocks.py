import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zsbir.data.blocks import Block, Cuts, cut, stored_bytes
from zsbir.toys.draw import toy_sources


def cuts(sizes, joined=None, max_bytes=10, max_images=4):
    joined = np.zeros(len(sizes), bool) if joined is None else np.array(joined, bool)
    return cut(np.array(sizes, np.int64), joined, max_bytes=max_bytes, max_images=max_images).stops


def test_a_block_takes_as_many_sources_as_fit():
    assert cuts([4, 4, 4, 4]) == (2, 4)
    assert cuts([5, 5, 5]) == (2, 3)


def test_sources_of_unknown_size_are_counted():
    assert cuts([0] * 9) == (4, 8, 9)


def test_what_is_too_large_is_a_block_of_its_own():
    assert cuts([1, 50, 1]) == (1, 2, 3)


def test_no_sources_are_no_blocks():
    assert cuts([]) == ()


def test_what_is_joined_lies_in_one_block_even_beyond_the_bounds():
    assert cuts([1] * 9, joined=[0, 0, 1, 1, 1, 1, 1, 0, 0]) == (1, 7, 9)
    assert cuts([4] * 4, joined=[0, 1, 1, 0]) == (3, 4)


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=60), st.integers(1, 30), st.integers(1, 9))
def test_every_source_is_in_one_block_and_blocks_keep_the_rules(sources, max_bytes, max_images):
    sizes, joined = [size for size, _ in sources], [together for _, together in sources]
    stops = cuts(sizes, joined, max_bytes, max_images)
    bounds = list(zip((0, *stops), stops, strict=False))
    assert [number for start, stop in bounds for number in range(start, stop)] == list(range(len(sources)))
    for start, stop in bounds:
        assert start == 0 or not joined[start]
        groups = 1 + sum(not together for together in joined[start + 1 : stop])
        assert groups == 1 or (sum(sizes[start:stop]) <= max_bytes and stop - start <= max_images)


def test_the_blocks_of_a_plan_are_made_one_by_one():
    sources, plan = toy_sources(1, 1, 32, seed=0)[:5], Cuts((2, 5))
    assert [plan.images(number) for number in range(len(plan))] == [2, 3]
    assert list(plan.blocks(sources, [0, 1])) == [Block(0, 0, sources[:2]), Block(1, 2, sources[2:])]
    assert list(plan.blocks(sources, [1])) == [Block(1, 2, sources[2:])]


def test_large_files_are_counted_as_what_is_left_of_them():
    sizes = np.array([1_000, 5_000_000], np.int64)
    assert stored_bytes(sizes, 256).tolist() == [1_000, 131_072]
    assert stored_bytes(sizes, 0).tolist() == [1_000, 5_000_000]
