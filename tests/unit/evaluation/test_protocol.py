from dataclasses import dataclass

import numpy as np
import pytest

from zsbir.base.errors import InputError
from zsbir.evaluation.protocol import PROTOCOLS, check_contest, find_protocol, select

TRAIN, DEV, UNSEEN = range(3)
PHOTO, SKETCH = range(2)


@dataclass(frozen=True)
class Table:
    domain: np.ndarray
    class_id: np.ndarray
    split: np.ndarray
    sha256: np.ndarray


def table(photos=20, sketches=10):
    """Classes 0 to 3 train, 4 dev, 5 and 6 unseen; every image has bytes of its own."""
    rows = [
        (domain, label, TRAIN if label < 4 else DEV if label == 4 else UNSEEN)
        for label in range(7)
        for domain, count in ((PHOTO, photos), (SKETCH, sketches))
        for _ in range(count)
    ]
    domain, label, split = np.array(rows).T
    return Table(
        domain.astype(np.int8), label.astype(np.int32), split.astype(np.int8), np.array([f"{i:064x}" for i in range(len(rows))])
    )


def test_zero_shot_asks_unseen_sketches_for_unseen_photos():
    samples = table()
    queries, gallery = select(samples, find_protocol("zero_shot"))
    assert len(queries) == 20
    assert len(gallery) == 40
    assert set(samples.class_id[queries]) == set(samples.class_id[gallery]) == {5, 6}
    assert set(samples.domain[queries]) == {SKETCH}
    assert set(samples.domain[gallery]) == {PHOTO}


def test_dev_never_opens_the_unseen_classes():
    samples = table()
    for protocol in (find_protocol("dev"), *(PROTOCOLS[name].replace(split="dev") for name in PROTOCOLS)):
        queries, gallery = select(samples, protocol)
        assert UNSEEN not in samples.split[queries]
        assert UNSEEN not in samples.split[gallery]
        assert DEV in samples.split[queries]


def test_generalised_all_searches_every_photo_with_unseen_sketches():
    samples = table()
    queries, gallery = select(samples, find_protocol("generalised_all"))
    assert set(samples.class_id[queries]) == {5, 6}
    assert gallery.tolist() == np.flatnonzero(samples.domain == PHOTO).tolist()


def test_the_sem_pcyc_setting_adds_a_fifth_of_seen_samples_to_both_sides():
    samples = table(photos=21, sketches=14)
    queries, gallery = select(samples, find_protocol("generalised_sem_pcyc"))
    seen_queries, seen_gallery = queries[samples.split[queries] != UNSEEN], gallery[samples.split[gallery] != UNSEEN]
    assert len(seen_queries) == int(0.2 * 2 * 14)
    assert len(seen_gallery) == int(0.2 * 2 * 21)
    assert len(queries) == 28 + len(seen_queries)
    assert len(gallery) == 42 + len(seen_gallery)
    assert len(set(queries.tolist())) == len(queries)
    assert set(samples.domain[queries]) == {SKETCH}
    assert set(samples.domain[gallery]) == {PHOTO}


def test_every_sem_pcyc_query_has_a_relevant_photo_even_in_a_small_draw():
    samples = table(photos=5, sketches=40)
    for seed in range(20):
        queries, gallery = select(samples, find_protocol("generalised_sem_pcyc").replace(seed=seed))
        assert set(samples.class_id[queries]) <= set(samples.class_id[gallery])


def test_the_draw_follows_the_seed_of_the_protocol():
    samples, protocol = table(), find_protocol("generalised_sem_pcyc")
    first, again, other = (select(samples, protocol.replace(seed=seed))[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_positions_ascend_so_that_ties_fall_to_the_earlier_sample():
    for protocol in PROTOCOLS.values():
        for positions in select(table(), protocol):
            assert (np.diff(positions) > 0).all()


def test_dedup_keeps_the_first_photo_of_equal_class_and_bytes_and_no_other_is_lost():
    samples = table()
    unseen = np.flatnonzero((samples.domain == PHOTO) & (samples.split == UNSEEN))
    twin, original, other_class = unseen[3], unseen[1], unseen[-1]
    samples.sha256[[twin, other_class]] = samples.sha256[original]
    gallery = select(samples, find_protocol("zero_shot_dedup"))[1]
    assert gallery.tolist() == [position for position in unseen if position != twin]
    assert len(select(samples, find_protocol("zero_shot"))[1]) == len(unseen)


def test_hashes_may_be_python_objects():
    samples = table()
    objects = Table(samples.domain, samples.class_id, samples.split, samples.sha256.astype(object))
    assert len(select(objects, find_protocol("zero_shot_dedup"))[1]) == 40


def test_a_label_is_the_name_and_the_version():
    assert find_protocol("zero_shot").label() == "zero_shot v1"
    assert all(name == protocol.name and protocol.primary == "map_all" for name, protocol in PROTOCOLS.items())


def test_a_changed_protocol_has_another_fingerprint():
    assert len({protocol.fingerprint() for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)


def test_an_unknown_protocol_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match="unknown protocol 'zero-shot'; did you mean 'zero_shot'"):
        find_protocol("zero-shot")


def test_a_data_set_without_the_split_is_refused():
    samples = table()
    without = Table(samples.domain, samples.class_id, np.zeros_like(samples.split), samples.sha256)
    with pytest.raises(InputError, match="zero_shot v1 needs the split 'unseen', and the data set has no sketch in it"):
        select(without, find_protocol("zero_shot"))


def test_a_single_unseen_class_is_refused_where_every_score_would_be_1():
    samples = table()
    alone = Table(
        samples.domain, samples.class_id, np.where(samples.class_id == 6, TRAIN, samples.split).astype(np.int8), samples.sha256
    )
    for name in ("zero_shot", "zero_shot_dedup"):
        protocol = find_protocol(name)
        with pytest.raises(InputError, match=r"a single unseen class .* is 1: ingest again.*--unseen-classes"):
            check_contest(alone, select(alone, protocol)[1], protocol)
    protocol = find_protocol("generalised_all")
    check_contest(alone, select(alone, protocol)[1], protocol)  # photos of seen classes can be found there
