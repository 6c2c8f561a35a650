import io
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsbir.base.errors import InputError
from zsbir.base.storage import open_folder
from zsbir.data.images import is_blank
from zsbir.data.trees import open_tree
from zsbir.toys.draw import DRAWING_VERSION, MORE_CLASSES, PRETEXT_CLASSES, TOY_CLASSES, TOY_UNSEEN, draw, draw_pretext, toy_sources


def test_there_are_enough_classes_and_the_pretext_ones_are_others():
    assert len(TOY_CLASSES) >= 24
    assert 6 <= len(TOY_UNSEEN) <= 8
    assert set(TOY_UNSEEN) < set(TOY_CLASSES)
    assert len(PRETEXT_CLASSES) >= 32
    assert not set(PRETEXT_CLASSES) & set(TOY_CLASSES)


def test_more_classes_are_drawn_where_they_are_named_and_change_no_other(tmp_path):
    assert not set(MORE_CLASSES) & set(TOY_CLASSES)
    plain, more = (toy_sources(2, 2, 32, 0, named) for named in ((), ("anchor", "truck", "chair")))
    assert more[: len(plain)] == plain, "a data set without them is the one that it was"
    assert {source.class_name for source in more[len(plain) :]} == {"anchor", "truck"}
    alone = toy_sources(2, 2, 32, 0, ("truck",))
    assert [source for source in alone if source.class_name == "truck"] == [s for s in more if s.class_name == "truck"]


def test_the_demo_trains_on_the_classes_of_the_toy_data_and_asks_for_all_others():
    unseen = (Path(__file__).parents[3] / "infra/demo_unseen.txt").read_text().split()
    assert set(unseen) == {*TOY_UNSEEN, *MORE_CLASSES}
    assert len(unseen) == 21


@pytest.mark.parametrize("class_name", [*TOY_CLASSES, *MORE_CLASSES])
def test_each_class_draws_photos_in_colour_and_sketches_in_grey_on_white(class_name):
    photo, sketch = (draw(class_name, domain, np.random.default_rng(3), 64) for domain in ("photo", "sketch"))
    assert (photo.mode, photo.size) == ("RGB", (64, 64))
    assert (sketch.mode, sketch.size) == ("L", (64, 64))
    assert not is_blank(photo)
    paper = (np.asarray(sketch) > 250).mean()
    assert 0.5 < paper < 0.98


def test_the_same_seed_draws_the_same_and_another_seed_does_not():
    first, again, other = (draw("chair", "photo", np.random.default_rng(seed), 48).tobytes() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("size_px", [32, 96, 160])
def test_drawings_have_the_size_asked_for(size_px):
    assert draw("car", "sketch", np.random.default_rng(0), size_px).size == (size_px, size_px)
    assert draw_pretext("form_00", np.random.default_rng(0), size_px).size == (size_px, size_px)


def test_an_unknown_class_is_an_input_error_with_a_suggestion():
    with pytest.raises(InputError, match="did you mean 'chair'"):
        draw("chairs", "photo", np.random.default_rng(0))
    with pytest.raises(InputError, match="pretext class"):
        draw_pretext("chair", np.random.default_rng(0))


def ink(class_name, seed):
    """A sketch, blurred down: where its ink is, with the pose removed as far as a bounding box does."""
    sketch = draw(class_name, "sketch", np.random.default_rng([7, seed]))
    dark = Image.fromarray(255 - np.asarray(sketch))
    small = np.asarray(dark.crop(dark.getbbox()).resize((12, 12), Image.Resampling.BOX), dtype=float)
    both = small + small[:, ::-1]  # drawings are mirrored by chance
    return (both / np.linalg.norm(both)).ravel()


def test_sketches_of_a_class_are_more_alike_than_those_of_different_classes():
    names = (*TOY_CLASSES, *MORE_CLASSES)
    gallery = np.stack([np.mean([ink(name, seed) for seed in range(12)], axis=0) for name in names])
    queries = np.stack([[ink(name, seed) for seed in range(12, 16)] for name in names])
    right = (queries @ gallery.T).argmax(-1) == np.arange(len(names))[:, None]
    assert right.mean() > 0.5, "chance is 1/43"


def test_pretext_classes_differ_by_form_not_by_colour():
    means = np.array(
        [
            [np.asarray(draw_pretext(name, np.random.default_rng(seed), 32)).mean() for seed in range(6)]
            for name in PRETEXT_CLASSES[:8]
        ]
    )
    assert means.mean(1).std() < means.std(1).mean()


def test_sources_keep_their_drawing_when_more_are_asked_for(tmp_path):
    few = {source.path: source for source in toy_sources(2, 2, 32, seed=0)}
    many = {source.path: source for source in toy_sources(3, 4, 32, seed=0)}
    assert len(many) == 7 * len(TOY_CLASSES)
    assert all(many[path] == source for path, source in few.items())
    photo, sketch = few["photo/chair/0001"], few["sketch/chair/0001"]
    assert Image.open(io.BytesIO(photo.read(open_folder(tmp_path)))).format == "JPEG"
    assert Image.open(io.BytesIO(sketch.read(open_folder(tmp_path)))).format == "PNG"
    assert photo.stamp(open_tree(tmp_path)) == (DRAWING_VERSION, 32, *photo.seed) != sketch.stamp(open_tree(tmp_path))
    assert pickle.loads(pickle.dumps(photo)) == photo


def test_drawing_is_fast_enough_for_a_demonstration():
    began = time.process_time()
    for seed in range(58):
        draw(TOY_CLASSES[seed % len(TOY_CLASSES)], ("photo", "sketch")[seed % 2], np.random.default_rng(seed))
    assert 58 / (time.process_time() - began) > 80, "about 450 a second where nothing else runs"
