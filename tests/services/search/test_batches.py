"""Queries are gathered into one forward pass, refused beyond a bound, and not computed once nobody waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError

import numpy as np
import pytest
from pictures import drawing, picture

from services.common.errors import Busy
from services.search.serving.batches import Batcher, Query
from services.search.serving.catalogue import Served
from zsbir.base.errors import InputError


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    """One that gathers for as long as a test needs to ask."""
    made = Batcher(most=8, gather_s=0.3, most_waiting=8)
    yield made
    made.close()


def image_query(served: Served, image, k: int = 3, **more) -> Query:
    return Query(served, k, pixels=served.engine.pixels(image), **more)


def test_queries_that_arrive_together_are_one_batch_and_answered_as_alone(opened: Served, batcher: Batcher):
    images = [picture(50 + number, 40).rotate(30 * number) for number in range(4)]
    asked = [image_query(opened, image, k=2 + number) for number, image in enumerate(images)]
    answers = [answer.result(30) for answer in [batcher.submit(query) for query in asked]]
    assert batcher.sizes == {4: 1}
    for image, hits, query in zip(images, answers, asked, strict=True):
        alone = opened.engine.find(opened.engine.embed([image]), query.k)[0]
        assert [hit.item_id for hit in hits] == [hit.item_id for hit in alone]
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in alone], atol=1e-6)


def test_a_batch_of_two_models_answers_each_by_its_own(opened: Served, other_opened: Served, batcher: Batcher):
    pairs = [(served, batcher.submit(image_query(served, drawing()))) for served in (opened, other_opened, opened)]
    for served, answer in pairs:
        alone = served.engine.find(served.engine.embed([drawing()]), 3)[0]
        np.testing.assert_allclose([hit.score for hit in answer.result(30)], [hit.score for hit in alone], atol=1e-6)
    assert pairs[0][1].result() == pairs[2][1].result() != pairs[1][1].result()


def test_photos_masks_and_images_mix_in_a_batch(opened: Served, batcher: Batcher):
    some = np.zeros(len(opened.engine.files), bool)
    some[3:6] = True
    by_photo = batcher.submit(Query(opened, 2, row=4))
    masked = batcher.submit(image_query(opened, drawing(), k=9, among=some))
    assert [hit.item_id for hit in by_photo.result(30)] == [hit.item_id for hit in opened.engine.neighbours(4, 2)]
    assert 4 not in [hit.item_id for hit in by_photo.result(30)]
    assert sorted(hit.item_id for hit in masked.result(30)) == [3, 4, 5]


def test_what_is_more_than_can_wait_is_refused_at_once(opened: Served):
    batcher = Batcher(most=1, gather_s=0, most_waiting=3)
    held = threading.Event()
    slow = Served("slow", "", _Held(opened.engine, held))
    first = batcher.submit(image_query(slow, drawing()))
    while batcher.waiting:
        time.sleep(0.001)
    waiting = [batcher.submit(image_query(opened, drawing())) for _ in range(3)]
    with pytest.raises(Busy, match="more searches wait"):
        batcher.submit(image_query(opened, drawing()))
    held.set()
    assert all(len(answer.result(30)) == 3 for answer in [first, *waiting])
    batcher.close()


def test_what_nobody_waits_for_any_more_is_not_computed(opened: Served):
    batcher = Batcher(most=4, gather_s=0.2, most_waiting=8)
    late = batcher.submit(image_query(opened, drawing(), until_s=time.monotonic()))
    given_up = batcher.submit(image_query(opened, drawing()))
    given_up.cancel()
    assert len(batcher.submit(image_query(opened, drawing())).result(30)) == 3
    with pytest.raises(Busy, match="within"):
        late.result(1)
    with pytest.raises(CancelledError):
        given_up.result(1)
    assert batcher.sizes == {1: 1}
    batcher.close()


def test_an_index_that_fails_fails_its_own_queries_alone(opened: Served, batcher: Batcher):
    broken = Served("broken", "", _Broken(opened.engine))
    bad, good = batcher.submit(image_query(broken, drawing())), batcher.submit(image_query(opened, drawing()))
    with pytest.raises(InputError, match="broken"):
        bad.result(30)
    assert len(good.result(30)) == 3
    assert len(batcher.submit(image_query(opened, drawing())).result(30)) == 3


def test_a_query_that_cannot_be_answered_spoils_none_that_came_with_it(opened: Served, batcher: Batcher):
    sensitive = Served("sensitive", "", _Sensitive(opened.engine))
    images = [picture(50, 40), drawing(), picture(60, 40)]
    first, bad, last = [batcher.submit(image_query(sensitive, image)) for image in images]
    with pytest.raises(InputError, match="not finite"):
        bad.result(30)
    for image, answer in ((images[0], first), (images[2], last)):
        assert answer.result(30)[0].item_id == opened.engine.find(opened.engine.embed([image]), 3)[0][0].item_id
    assert batcher.sizes == {3: 1}


class _Held:
    """An engine that waits for an event before it embeds."""

    def __init__(self, engine, event: threading.Event):
        self._engine, self._event = engine, event

    def __getattr__(self, name: str):
        return getattr(self._engine, name)

    def embed_pixels(self, images):
        assert self._event.wait(30)
        return self._engine.embed_pixels(images)


class _Broken(_Held):
    def __init__(self, engine):
        super().__init__(engine, threading.Event())

    def embed_pixels(self, images):
        raise InputError("broken")


class _Sensitive(_Held):
    """An engine to whose network one image is too much."""

    def __init__(self, engine):
        super().__init__(engine, threading.Event())
        self._event.set()

    def embed_pixels(self, images):
        bad = self._engine.pixels(drawing())
        if any(np.array_equal(image, bad) for image in images):
            raise InputError("the encoder answered with numbers that are not finite")
        return self._engine.embed_pixels(images)
