from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir.base.errors import InputError
from zsbir.data.batches import draw_groups, plan_batches
from zsbir.data.samples import Samples


def table(per_class: list[tuple[int, int]]) -> Samples:
    """Samples with that many (photos, sketches) of each class."""
    rows = [(label, domain) for label, counts in enumerate(per_class) for domain in (0, 1) for _ in range(counts[domain])]
    label, domain = (np.array(column) for column in zip(*rows, strict=True))
    order = np.random.default_rng(0).permutation(len(rows))
    size = len(rows)
    return Samples(
        class_id=label[order].astype(np.int32),
        domain=domain[order].astype(np.int8),
        split=np.zeros(size, np.int8),
        shard=np.zeros(size, np.int32),
        row=np.arange(size, dtype=np.int32),
        sha256=np.array([str(i) for i in range(size)], object),
        path=np.array([str(i) for i in range(size)], object),
        class_names=tuple(f"class{i}" for i in range(len(per_class))),
    )


def plan_of(samples: Samples, **changes):
    settings = {"classes_per_batch": 3, "per_class": 2, "steps": 40, "seed": 7} | changes
    return plan_batches(samples, np.arange(len(samples)), **settings)


counts = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=3, max_size=8)


@settings(max_examples=40, deadline=None)
@given(per_class=counts, p=st.integers(2, 3), k=st.integers(1, 4), seed=st.integers(0, 5))
def test_every_batch_has_p_different_classes_with_k_of_each_domain(per_class, p, k, seed):
    samples = table(per_class)
    for step in plan_of(samples, classes_per_batch=p, per_class=k, seed=seed):
        labels = samples.class_id[step]
        assert (labels == labels[:, :1, :1]).all()
        assert len(set(labels[:, 0, 0].tolist())) == p
        assert (samples.domain[step] == np.array([0, 1])[None, :, None]).all()


@settings(max_examples=40, deadline=None)
@given(per_class=counts, k=st.integers(1, 4), seed=st.integers(0, 5))
def test_no_image_comes_again_before_all_others_of_its_class_and_domain_came(per_class, k, seed):
    samples = table(per_class)
    plan = plan_of(samples, per_class=k, seed=seed)
    for label in range(len(per_class)):
        for domain in (0, 1):
            stream = plan[:, :, domain][samples.class_id[plan[:, :, domain, 0]] == label].ravel()
            size = per_class[label][domain]
            for start in range(0, len(stream) - size + 1, size):
                assert len(set(stream[start : start + size].tolist())) == size


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 12), groups=st.integers(1, 30), size=st.integers(1, 12), seed=st.integers(0, 9))
def test_a_group_repeats_nothing_when_the_pool_is_large_enough(n, groups, size, seed):
    drawn = draw_groups(np.arange(n), groups, size, np.random.default_rng(seed))
    for group in drawn:
        assert len(set(group.tolist())) == min(n, size) if n >= size else len(set(group.tolist())) == n
    uses = np.bincount(drawn.ravel(), minlength=n)
    assert uses.max() - uses.min() <= 1


def test_no_class_comes_again_before_all_others_came():
    plan = plan_of(table([(4, 4)] * 7), steps=21)
    stream = table([(4, 4)] * 7).class_id[plan[:, :, 0, 0]].ravel()
    for start in range(0, len(stream), 7):
        assert sorted(stream[start : start + 7].tolist()) == list(range(7))


def test_the_plan_is_a_function_of_its_seed_and_a_longer_one_begins_with_the_shorter():
    samples = table([(5, 6)] * 5)
    assert (plan_of(samples) == plan_of(samples)).all()
    assert (plan_of(samples) != plan_of(samples, seed=8)).any()
    assert (plan_of(samples, steps=80)[:40] == plan_of(samples)).all()


def test_too_few_classes_and_missing_domains_are_refused_by_name():
    with pytest.raises(InputError, match="has 2 classes; choose a number from 2 to 2"):
        plan_of(table([(3, 3)] * 2))
    with pytest.raises(InputError, match="'class1' has no sketch"):
        plan_of(table([(3, 3), (3, 0), (3, 3)]))
