"""What is left of a data set without what trainings have seen: by folded names of classes, and by the bytes of images."""

import numpy as np
import pytest
from made_up import classes, samples, stored

from zsbir.base.errors import InputError
from zsbir.data.domains import DOMAINS
from zsbir.evaluation.protocol import find_protocol, select
from zsbir.evaluation.seen import NAMES_RECORDED, LeftOut, Seen, seen_by, what_is_left

ZERO_SHOT = find_protocol("zero_shot")


def seen(names=(), images=()):
    """What a training has seen, of a data set that need not exist."""
    return Seen(({"uri": "datasets/x/1", "digest": "d" * 64},), frozenset(names), frozenset(images))


def test_where_nothing_was_seen_everything_is_left():
    table = samples(*classes("cup", "bat"), *classes("car", split="train"))
    left = what_is_left(table, ZERO_SHOT, Seen())
    queries, gallery = select(table, ZERO_SHOT)
    assert left.queries.tolist() == queries.tolist()
    assert left.gallery.tolist() == gallery.tolist()
    assert (left.classes, bool(left.out), left.out.text()) == (2, False, "nothing")


def test_a_class_that_was_seen_leaves_queries_and_gallery_however_it_is_spelled():
    table = samples(*classes("Alarm Clock", "bat", "cup"))
    left = what_is_left(table, ZERO_SHOT, seen(names={"alarm_clock"}))
    assert {table.class_names[n] for n in table.class_id[np.concatenate([left.queries, left.gallery])]} == {"bat", "cup"}
    assert left.classes == 2
    assert left.out == LeftOut(classes=("Alarm Clock",), sketches=2, photos=2)
    assert left.out.text() == "1 class (Alarm Clock) seen in training, with 2 sketches and 2 photos"


def test_images_that_were_seen_are_left_out_of_other_classes_too():
    table = samples(*classes("bat", "cup"))
    left = what_is_left(table, ZERO_SHOT, seen(images={"bat-photo-1", "cup-sketch-0", "somewhere else"}))
    assert table.sha256[left.queries].tolist() == ["bat-sketch-0", "bat-sketch-1", "cup-sketch-1"]
    assert table.sha256[left.gallery].tolist() == ["bat-photo-0", "cup-photo-0", "cup-photo-1"]
    assert left.out == LeftOut(repeated_sketches=1, repeated_photos=1)
    assert bool(left.out)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_class_without_a_photo_or_a_sketch_left_is_not_asked_about(domain):
    table = samples(*classes("bat", "cup"))
    left = what_is_left(table, ZERO_SHOT, seen(images={f"bat-{domain}-0", f"bat-{domain}-1"}))
    assert {table.class_names[n] for n in table.class_id[left.queries]} == {"cup"}
    assert left.classes == 1
    assert left.out.emptied == ("bat",)
    assert "1 class (bat) without a sketch or a photo since" in left.out.text()
    photos = {table.class_names[n] for n in table.class_id[left.gallery]}
    assert photos == ({"cup"} if domain == "photo" else {"bat", "cup"}), "photos of an unseen class stay as distractors"


def test_every_class_may_be_seen():
    left = what_is_left(samples(*classes("bat", "cup")), ZERO_SHOT, seen(names={"bat", "cup"}))
    assert (left.classes, len(left.queries), len(left.gallery)) == (0, 0, 0)


def test_classes_of_other_splits_are_not_asked_about_even_where_nobody_saw_them():
    table = samples(*classes("bat", "cup"), *classes("car", split="train"), *classes("cow", split="dev"))
    left = what_is_left(table, ZERO_SHOT, seen(names={"ship"}))
    assert {table.class_names[n] for n in table.class_id[left.gallery]} == {"bat", "cup"}


def test_duplicates_are_dropped_as_without_anything_seen():
    rows = [*classes("bat", "cup"), ("bat", "unseen", "photo", "bat-photo-0")]
    left = what_is_left(samples(*rows), find_protocol("zero_shot_dedup"), seen(images={"cup-photo-1"}))
    assert len(left.gallery) == 3


@pytest.mark.parametrize("name", ["generalised_all", "generalised_sem_pcyc", "dev"])
def test_a_protocol_with_seen_classes_cannot_leave_seen_ones_out(name):
    table = samples(*classes("bat"), *classes("car", split="train"), *classes("cow", split="dev"))
    with pytest.raises(InputError, match=f"protocol {name} shows seen classes too.*--protocol zero_shot"):
        what_is_left(table, find_protocol(name), seen(names={"x"}))


def test_long_lists_of_classes_are_recorded_in_part_and_counted_in_full():
    out = LeftOut(classes=tuple(f"c{n:04}" for n in range(3000)), sketches=9)
    recorded = out.as_json()
    assert len(recorded["classes"]) == NAMES_RECORDED
    assert recorded["class_count"] == 3000
    assert len(out.text()) < 200


def test_a_run_has_seen_the_train_and_the_dev_classes_of_its_data_set_and_their_images(tmp_path):
    one = stored(
        tmp_path, "a", *classes("Bat"), *classes("Big Car", split="train", images=1), *classes("cow", split="dev", images=1)
    )
    two = stored(tmp_path, "b", *classes("cup"), *classes("Bat", split="train", images=1))
    found = seen_by([one])
    assert found.classes == {"big_car", "cow"}
    assert found.images == {f"{name}-{domain}-0" for name in ("Big Car", "cow") for domain in DOMAINS}
    assert seen_by([two, one]).classes == {"big_car", "cow", "bat"}
    assert seen_by([two, one, one]).digests() == seen_by([one, two]).digests() == ["a" * 8, "b" * 8]


def test_a_data_set_that_is_gone_is_named(tmp_path):
    run = stored(tmp_path, "a", *classes("bat"))
    (tmp_path / "datasets/x/a/manifest.json").unlink()
    with pytest.raises(InputError, match=r"the dataset that .*runs/x-a was made from is gone"):
        seen_by([run])
